package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/local/system"
)

// call runs a command line of ambit and gives exit code, output and errors.
func call(t *testing.T, args ...string) (int, string, string) {
	t.Helper()
	none := Part{Commands: func(Streams) []*cobra.Command { return nil }, ExitCode: func(error) int { return 0 }}
	return callMain(t, func(s Streams) int { return Main(args, s, none) })
}

func callMain(t *testing.T, main func(Streams) int) (int, string, string) {
	t.Helper()
	dir := t.TempDir()
	var s Streams
	for name, f := range map[string]**os.File{"in": &s.In, "out": &s.Out, "err": &s.Err} {
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		*f = file
	}
	code := main(s)
	read := func(name string) string {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	return code, read("out"), read("err")
}

func TestExitCodes(t *testing.T) {
	runtimeDir := "--runtime-dir=" + t.TempDir()
	for _, tc := range []struct {
		args []string
		code int
		out  string
		err  string
	}{
		{[]string{"completion", "bash"}, 0, "bash completion", ""},
		{nil, 0, "Usage:", ""},
		{[]string{"local"}, 0, "Available Commands:", ""},
		{[]string{"nonsense"}, 2, "", `there is no command "nonsense": see ambit --help`},
		{[]string{"local", "nonsense"}, 2, "", `there is no command "nonsense": see ambit local --help`},
		{[]string{"completion", "tcsh"}, 2, "", `invalid argument "tcsh"`},
		{[]string{"local", "up"}, 2, "", "-f DIR is required"},
		{[]string{"local", "up", "--nodes", "many"}, 2, "", "invalid argument"},
		{[]string{"local", "up", "-f", ".", "--component-arg", "x"}, 2, "", "want PROGRAM=--FLAG=VALUE"},
		{[]string{"local", "up", "-f", "/nonexistent", runtimeDir}, 1, "", "name a directory of Kubernetes manifests"},
		{[]string{"local", "exec", "web", "ls"}, 2, "", "write -- between"},
		{[]string{"local", "exec", "web"}, 2, "", "requires at least 2 arg"},
		{[]string{"local", "status", "-o", "xml"}, 2, "", "want table, json or yaml"},
		{[]string{"local", "status", "--name", "A/B"}, 2, "", "--name: name"},
		{[]string{"local", "status", runtimeDir}, 1, "", `local mesh "default" is not running: start it with`},
		{[]string{"local", "get", "pods", runtimeDir}, 1, "", "is not running"},
		{[]string{"local", "logs", "x", runtimeDir}, 1, "", "is not running"},
		{[]string{"local", "restart", "x", runtimeDir}, 1, "", "is not running"},
		{[]string{"local", "exec", "x", runtimeDir, "--", "ls"}, 1, "", "is not running"},
		{[]string{"local", "down", runtimeDir}, 0, `local mesh "default" is not running`, ""},
	} {
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) {
			code, out, errOut := call(t, tc.args...)
			if code != tc.code || !strings.Contains(out, tc.out) || !strings.Contains(errOut, tc.err) {
				t.Errorf("exit code %d, output %q, errors %q; want %d, %q, %q", code, out, errOut, tc.code, tc.out, tc.err)
			}
			if (errOut == "") != (tc.err == "") {
				t.Errorf("errors %q", errOut)
			}
		})
	}
}

// Whoever has ambit-local alone has all of ambit local, by that name.
func TestLocalAlone(t *testing.T) {
	all := make(map[string]bool)
	for _, c := range newLocal(Streams{}).Commands() {
		all[c.Name()] = true
	}
	root := localRoot(Streams{})
	for _, c := range append(root.Commands(), root) {
		if !strings.HasPrefix(c.CommandPath(), "ambit-local") || !strings.Contains(c.Example, c.CommandPath()) || strings.Contains(c.Example, "ambit local") {
			t.Errorf("%s has the example %q", c.CommandPath(), c.Example)
		}
		delete(all, c.Name())
	}
	if len(all) > 0 {
		t.Errorf("ambit-local does not have %v", all)
	}
	for line, want := range map[string]struct {
		code int
		text string
	}{
		"":                                    {0, "Usage:"},
		"version":                             {0, "ambit "},
		"version x":                           {ExitUsage, "usage: ambit-local version"},
		"up":                                  {ExitUsage, "-f DIR is required"},
		"install":                             {ExitUsage, `there is no command "install": see ambit-local --help`},
		"get --nope":                          {ExitUsage, "see ambit-local get --help"},
		"status --runtime-dir " + t.TempDir(): {ExitFailed, "start it with ambit-local up -f DIR"},
	} {
		code, out, errs := callMain(t, func(s Streams) int { return LocalMain(strings.Fields(line), s) })
		if code != want.code || !strings.Contains(out+errs, want.text) {
			t.Errorf("%s: exit code %d, %s%s; want %d, %s", line, code, out, errs, want.code, want.text)
		}
	}
}

func TestStatusTable(t *testing.T) {
	st := control.Status{
		Name: "default", Manifests: "/m", Ready: true, Mesh: true,
		Nodes:      []control.Node{{Name: "n1", Addresses: []string{"172.18.0.11"}, PodBlocks: []string{"10.244.1.0/24"}, Pods: 1}},
		Components: []system.Status{{Name: "n1/ztunnel", Pid: 7, Restarts: 2, Message: "pending: xds"}},
		Pods:       []control.Pod{{Namespace: "shop", Name: "web-1", Node: "n1", IPs: []string{"10.244.1.2"}, Ready: "0/1", State: "CrashLoopBackOff", Message: "ended with exit code 1", Captured: "yes"}},
		Routes:     []control.Route{{Kind: "HTTPRoute", Namespace: "shop", Name: "web", Parent: "Service shop/web", Reason: "WaypointRequired"}},
		Problems:   []string{"a.yaml:3: Deployment shop/web: spec.x: wrong"},
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 4, 3, ' ', 0)
	statusTable(w, st)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"local mesh default: ready", "n1/ztunnel", "pending: xds", "CrashLoopBackOff", "shop/web-1: ended with exit code 1", "shop        HTTPRoute web        Service shop/web   WaypointRequired", "PROBLEMS\na.yaml:3: Deployment"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("missing %q in\n%s", want, b.String())
		}
	}
}

func TestObjectTables(t *testing.T) {
	for object, want := range map[string]string{
		`{"kind":"Pod","metadata":{"namespace":"a","name":"p"},"spec":{"nodeName":"n1"},"status":{"phase":"Running","podIPs":[{"ip":"10.0.0.1"}],"containerStatuses":[{"ready":true},{}]}}`:                                                                                                                                                                                                              "a p Running 1/2 10.0.0.1 n1 -",
		`{"kind":"Service","metadata":{"namespace":"a","name":"s"},"spec":{"type":"ClusterIP","clusterIPs":["10.96.0.1"],"ports":[{"port":80,"protocol":"TCP"}],"selector":{"app":"x"}}}`:                                                                                                                                                                                                                "a s ClusterIP 10.96.0.1 80/TCP app=x",
		`{"kind":"EndpointSlice","metadata":{"namespace":"a","name":"e"},"endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":false}}],"ports":[{"port":8080}]}`:                                                                                                                                                                                                                                 "a e 10.0.0.1(not ready) 8080",
		`{"kind":"AuthorizationPolicy","metadata":{"namespace":"a","name":"z"},"status":{"conditions":[{"type":"Accepted","status":"False","reason":"Invalid","message":"m"}]}}`:                                                                                                                                                                                                                         "a z - no (Invalid) m",
		`{"kind":"FaultInjection","metadata":{"namespace":"a","name":"z"},"status":{"ancestors":[{"ancestorRef":{"group":"","kind":"Service","namespace":"a","name":"s","sectionName":"http"},"conditions":[{"type":"Accepted","status":"True","message":"m"}]}]}}`:                                                                                                                                      "a z Service a/s#http yes m",
		`{"kind":"HTTPRoute","metadata":{"namespace":"a","name":"r"},"status":{"parents":[{"parentRef":{"group":"","kind":"Service","name":"s","port":80},"conditions":[{"type":"Accepted","status":"True"},{"type":"ResolvedRefs","status":"False","reason":"BackendNotFound","message":"no s2"},{"type":"PartiallyInvalid","status":"True","reason":"UnsupportedValue","message":"Dropped Rule"}]}]}}`: "a r Service a/s:80 in part (UnsupportedValue) no (BackendNotFound) - Dropped Rule",
		`{"kind":"TLSRoute","metadata":{"namespace":"a","name":"r"}}`:                                                                                                                                                        "a r - - - - no parent is a Service that the control plane has looked at",
		`{"kind":"ServiceAccount","metadata":{"namespace":"a","name":"z","labels":{"l":"1"}}}`:                                                                                                                               "a z l=1",
		`{"kind":"Deployment","metadata":{"namespace":"a","name":"d"},"spec":{"replicas":3,"selector":{},"template":{"spec":{"containers":[{"name":"c","command":["web","-x"]}]}}}}`:                                         "a d 3 web -x",
		`{"kind":"Node","metadata":{"name":"n1"},"spec":{"podCIDRs":["10.244.1.0/24"]},"status":{"addresses":[{"type":"Hostname","address":"n1"},{"type":"InternalIP","address":"172.18.0.11"}]}}`:                           "- n1 172.18.0.11 10.244.1.0/24 -",
		`{"kind":"RetryPolicy","metadata":{"namespace":"a","name":"r"},"spec":{"targetRefs":[{"kind":"Service","name":"web"},{"kind":"HTTPRoute","name":"web","sectionName":"buy"}]}}`:                                       "a r Service web, HTTPRoute web/buy - -",
		`{"kind":"HTTPRoute","metadata":{"namespace":"a","name":"h"},"spec":{"parentRefs":[{"kind":"Service","name":"web"}],"rules":[{"name":"all","backendRefs":[{"name":"v1","weight":9},{"name":"v2","weight":1}]},{}]}}`: "a h Service web - - all: v1 x 9, v2 x 1; 1: none no parent is a Service that the control plane has looked at",
	} {
		var b strings.Builder
		w := tabwriter.NewWriter(&b, 0, 4, 1, ' ', 0)
		objectTable(w, []json.RawMessage{json.RawMessage(object)})
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		if got := strings.Join(strings.Fields(lines[len(lines)-1]), " "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
