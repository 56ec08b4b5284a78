package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"go.uber.org/goleak"

	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/enrolled"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// agent answers every request in one way and keeps what it was asked.
type agent struct {
	socket string
	asked  chan string
}

func newAgent(t *testing.T, status int, answer string) *agent {
	t.Helper()
	a := &agent{socket: filepath.Join(t.TempDir(), "s"), asked: make(chan string, 16)}
	l, err := net.Listen("unix", a.socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		_, _ = b.ReadFrom(r.Body)
		a.asked <- r.URL.Path + " " + b.String()
		w.WriteHeader(status)
		_, _ = w.Write([]byte(answer))
	})}
	done := make(chan struct{})
	go func() { _ = srv.Serve(l); close(done) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return a
}

const result = `{"cniVersion":"1.0.0","ips":[{"address":"10.1.2.3/24"},{"address":"fd00::3/64"}],"x":{"n":1.0}}`

func stdin(socket, file string) string {
	return `{"cniVersion":"1.0.0","name":"n","type":"ambit-cni","socket":"` + socket + `","enrolledFile":"` + file + `","exemptNamespaces":["ambit-system"],"timeoutSeconds":1,"prevResult":` + result + `}`
}

func args(namespace, config string) *skel.CmdArgs {
	return &skel.CmdArgs{
		ContainerID: "c", Netns: "/run/netns/a", IfName: "eth0", StdinData: []byte(config),
		Args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=" + namespace + ";K8S_POD_NAME=app;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=u-1",
	}
}

func TestAdd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "enrolled.json")
	if err := enrolled.Write(file, []string{"shop"}); err != nil {
		t.Fatal(err)
	}
	yes, late := newAgent(t, 200, "{}"), newAgent(t, 503, `{"error":"no ztunnel is connected"}`)
	never, odd := newAgent(t, 400, `{"error":"netns is the node's own"}`), newAgent(t, 502, "")
	const away = "/nowhere/sock"
	for name, tc := range map[string]struct {
		namespace, config string
		code              uint // 0 for success
		text              string
	}{
		"captured":                           {"shop", stdin(yes.socket, file), 0, ""},
		"not yet":                            {"shop", stdin(late.socket, file), types.ErrTryAgainLater, "no ztunnel"},
		"not yet, by a label of its own":     {"bank", stdin(late.socket, file), types.ErrTryAgainLater, "no ztunnel"},
		"never":                              {"shop", stdin(never.socket, file), types.ErrInternal, "node's own"},
		"an answer without a reason":         {"shop", stdin(odd.socket, file), types.ErrTryAgainLater, "502"},
		"away, enrolled":                     {"shop", stdin(away, file), types.ErrTryAgainLater, "namespace shop is enrolled"},
		"away, not enrolled":                 {"bank", stdin(away, file), 0, ""},
		"away, and nothing is known":         {"bank", stdin(away, "/nowhere/file"), types.ErrTryAgainLater, "/nowhere/file"},
		"the mesh's own, nothing is known":   {"ambit-system", stdin(away, "/nowhere/file"), 0, ""},
		"the mesh's own is not asked about":  {"ambit-system", stdin(never.socket, file), 0, ""},
		"first in the list":                  {"bank", strings.Replace(stdin(yes.socket, file), `"prevResult"`, `"none"`, 1), types.ErrInvalidNetworkConfig, "primary"},
		"a result that has no address in it": {"bank", strings.Replace(stdin(yes.socket, file), "10.1.2.3/24", "10.1.2.3", 1), types.ErrDecodingFailure, "ips[0]"},
		"no socket":                          {"bank", stdin("", file), types.ErrInvalidNetworkConfig, "socket"},
		"no JSON":                            {"bank", "{", types.ErrDecodingFailure, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var out, log bytes.Buffer
			err := Funcs(&out, &log).Add(args(tc.namespace, tc.config))
			if tc.code == 0 {
				if err != nil || out.String() != result+"\n" {
					t.Errorf("%v; result %s", err, out.String())
				}
				return
			}
			e, ok := errors.AsType[*types.Error](err)
			if !ok || e.Code != tc.code || !strings.Contains(e.Error(), tc.text) || out.Len() > 0 {
				t.Errorf("%v; result %s", err, out.String())
			}
		})
	}
	want := `/cmdadd {"ips":["10.1.2.3","fd00::3"],"netns":"/run/netns/a","podName":"app","podNamespace":"shop","podUID":"u-1"}`
	if got := <-yes.asked; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
}

// Whatever the agent says, a pod can end.
func TestDelNeverFails(t *testing.T) {
	no := newAgent(t, 503, `{"error":"disk full"}`)
	for _, config := range []string{stdin(no.socket, "/e"), stdin("/nowhere", "/e"), "{", ""} {
		var out, log bytes.Buffer
		if err := Funcs(&out, &log).Del(args("shop", config)); err != nil || log.Len() == 0 {
			t.Errorf("%q: %v, log %q", config, err, log.String())
		}
	}
	if got, want := <-no.asked, `/cmddel {"netns":"/run/netns/a","podUID":"u-1"}`; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
}

func FuzzInput(f *testing.F) {
	f.Add([]byte(stdin("/s", "/e")), "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_UID=c")
	f.Add([]byte(`{"type":"a","socket":"/s","enrolledFile":"/e","prevResult":{"ips":[{"address":"::ffff:1.2.3.4/120"}]}}`), ";;=;K8S_POD_NAME")
	f.Fuzz(func(t *testing.T, b []byte, cniArgs string) {
		in, err := parseInput(b)
		if err != nil {
			if _, ok := errors.AsType[*types.Error](err); !ok {
				t.Errorf("%v has no code", err)
			}
			return
		}
		if !filepath.IsAbs(in.Socket) || in.timeout() <= 0 || len(in.PrevResult) > 0 && !json.Valid(in.PrevResult) {
			t.Errorf("taken: %+v", in)
		}
		pod := parsePod(&skel.CmdArgs{Args: cniArgs})
		if strings.ContainsAny(pod.namespace+pod.name+pod.uid, ";") {
			t.Errorf("%+v of %q", pod, cniArgs)
		}
		if ips, err := addresses(in.PrevResult); err == nil && slices.Contains(ips, "") {
			t.Errorf("%q of %s", ips, in.PrevResult)
		}
	})
}
