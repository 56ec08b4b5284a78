package local_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/internal/local/control"
)

func TestNetwork(t *testing.T) {
	m := up(t, options(t, map[string]string{"server.yaml": server(2, "1"), "client.yaml": client}))
	ips := make(map[string][]string)
	for _, p := range m.status().Pods {
		ips[p.Name] = p.IPs
	}
	vips := m.get("svc", "server").Items[0].service().Spec.ClusterIPs

	t.Run("service by name reaches every node", func(t *testing.T) {
		seen := make(map[string]bool)
		for range 40 {
			r := m.run("client", "role-get", "http://server/")
			words := strings.Fields(r.out)
			if r.code != 0 || len(words) != 3 || !slices.Contains(ips["client"], words[1]) {
				t.Fatalf("%+v; the client is %v", r, ips["client"])
			}
			if seen[words[0]] = true; len(seen) == 2 {
				return
			}
		}
		t.Errorf("only %v answered", seen)
	})
	for _, url := range []string{
		"http://" + vips[0], "http://[" + vips[1] + "]", "http://server.default.svc.cluster.local", "http://headless:8080",
		"http://" + ips[podOf(ips, "server")][0] + ":8080", "http://[" + ips[podOf(ips, "server")][1] + "]:8080",
	} {
		t.Run(url, func(t *testing.T) {
			if r := m.run("client", "role-get", url); r.code != 0 || !strings.HasPrefix(r.out, "server-") {
				t.Errorf("%+v", r)
			}
		})
	}
	t.Run("a pod meets itself", func(t *testing.T) {
		for range 20 {
			if r := m.run("deploy/server", "role-get", "http://server/"); r.code != 0 {
				t.Fatalf("%+v", r)
			}
		}
	})
	t.Run("nodes reach services", func(t *testing.T) {
		if r := m.run("n2", "role-get", "http://"+vips[0]); r.code != 0 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("UDP", func(t *testing.T) {
		if r := m.run("client", "role-udp", vips[0]+":81"); r.code != 0 || !strings.HasPrefix(r.out, "server-") {
			t.Errorf("%+v", r)
		}
	})
	for name, url := range map[string]string{
		"service without endpoints": "http://nobody", "port that the service does not have": "http://server:82", "address that no service has": "http://10.96.77.77",
	} {
		t.Run(name, func(t *testing.T) {
			if r := m.run("client", "role-get", url); r.code == 0 || !strings.Contains(r.err, "connection refused") {
				t.Errorf("%+v", r)
			}
		})
	}
	t.Run("there is no way out", func(t *testing.T) {
		if r := m.run("client", "role-get", "http://192.0.2.1"); r.code == 0 || !strings.Contains(r.err, "unreachable") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("probes come from the address that capture leaves alone", func(t *testing.T) {
		for _, p := range m.status().Pods {
			if strings.HasPrefix(p.Name, "server-") && p.Ready != "1/1" {
				t.Errorf("%+v", p)
			}
		}
	})
}

func podOf(ips map[string][]string, prefix string) string {
	for name := range ips {
		if strings.HasPrefix(name, prefix) {
			return name
		}
	}
	return ""
}

// object decodes what OpGet gives.
type object json.RawMessage

func (o *object) UnmarshalJSON(b []byte) error { *o = slices.Clone(b); return nil }

func (o object) service() *corev1.Service {
	var s corev1.Service
	if err := json.Unmarshal(o, &s); err != nil {
		panic(err)
	}
	return &s
}

type objects struct{ Items []object }

func (m *testMesh) get(kind, name string) objects {
	m.t.Helper()
	ctx, cancel := m.context()
	defer cancel()
	var list objects
	if err := m.Call(ctx, control.OpGet, control.GetArgs{Kind: kind, Name: name}, &list); err != nil {
		m.t.Fatal(err)
	}
	return list
}

func TestExec(t *testing.T) {
	m := up(t, options(t, map[string]string{"client.yaml": client}))
	for _, tc := range []struct {
		target string
		argv   []string
		want   result
	}{
		{"client", []string{"sh", "-c", "echo out; echo err >&2; exit 7"}, result{7, "out\n", "err\n"}},
		{"client", []string{"hostname"}, result{0, "client\n", ""}},
		{"default/client", []string{"cat", "/etc/resolv.conf"}, result{0, "nameserver 10.96.0.10\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n", ""}},
		{"client", []string{"sh", "-c", "kill -9 $$"}, result{137, "", ""}},
		{"n1", []string{"sh", "-c", "ls /sys/class/net >/dev/null; cat /proc/net/dev | grep -c eth0"}, result{0, "1\n", ""}},
		{"wire", []string{"sh", "-c", "grep -c br0 /proc/net/dev"}, result{0, "1\n", ""}},
	} {
		if got := m.run(tc.target, tc.argv...); got != tc.want {
			t.Errorf("%s: %v: got %+v, want %+v", tc.target, tc.argv, got, tc.want)
		}
	}
	t.Run("other pods' state is out of sight", func(t *testing.T) {
		if r := m.run("client", "sh", "-c", "ls "+m.state+" /run/netns /run/sandbox"); strings.Contains(r.out, "token") || strings.Contains(r.out, "n1") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("signals are passed on", func(t *testing.T) {
		signals := make(chan os.Signal, 1)
		mark := filepath.Join(t.TempDir(), "trapped")
		wait := m.start("client", signals, "sh", "-c", "trap 'exit 3' USR1; touch "+mark+"; while :; do sleep 0.1; done")
		m.await("the shell waits", func(control.Status) bool {
			_, err := os.Stat(mark)
			return err == nil
		})
		signals <- syscall.SIGUSR1
		if r, err := wait(); err != nil || r.code != 3 {
			t.Errorf("%+v %v", r, err)
		}
	})
	for target, want := range map[string]string{
		"nothing": "nothing that runs is called nothing: there are default/client, n1, n2, wire",
	} {
		t.Run(want, func(t *testing.T) {
			if _, err := m.start(target, nil, "true")(); err == nil || !strings.Contains(err.Error(), want) {
				t.Error(err)
			}
		})
	}
	t.Run("no such program", func(t *testing.T) {
		if _, err := m.start("client", nil, "no-such-program")(); err == nil || !strings.Contains(err.Error(), `"no-such-program" is neither in PATH`) {
			t.Error(err)
		}
	})
}

// versions gives the pods of the server by the hash of their template, ready
// ones only.
func readyServers(st control.Status) []string {
	var names []string
	for _, p := range st.Pods {
		if strings.HasPrefix(p.Name, "server-") && p.Ready == "1/1" && p.State == "Running" {
			names = append(names, p.Name)
		}
	}
	return names
}

func TestEditsConverge(t *testing.T) {
	o := options(t, map[string]string{"server.yaml": server(2, "1"), "client.yaml": client})
	m := up(t, o)
	file := filepath.Join(o.Manifests, "server.yaml")
	signals := make(chan os.Signal, 1)
	hammering := m.start("client", signals, "role-hammer", "http://server/")

	writeFile(t, file, server(4, "1"))
	four := m.await("four servers are ready", func(st control.Status) bool { return len(readyServers(st)) == 4 })
	writeFile(t, file, server(2, "1"))
	m.await("two servers are left", func(st control.Status) bool { return len(st.Pods) == 3 })
	writeFile(t, file, server(2, "2"))
	st := m.await("two others have replaced them", func(st control.Status) bool {
		names := readyServers(st)
		return st.Ready && len(st.Pods) == 3 && len(names) == 2 && !slices.ContainsFunc(names, func(n string) bool { return slices.Contains(readyServers(four), n) })
	})
	if r := m.run("client", "role-get", "http://server/"); !strings.HasSuffix(r.out, " 2") {
		t.Errorf("the new version should answer: %+v", r)
	}
	signals <- syscall.SIGTERM
	r, err := hammering()
	var counted struct {
		Count    int
		Failures []string
	}
	if err != nil || json.Unmarshal([]byte(r.out), &counted) != nil || counted.Count == 0 || len(counted.Failures) > 0 {
		t.Errorf("scaling and updating broke requests: %v %+v", err, r)
	}

	t.Run("what cannot run leaves what runs", func(t *testing.T) {
		writeFile(t, file, strings.Replace(server(2, "3"), "command: [SELF, role-server]", "image: nginx", 1))
		now := m.await("the problem is named", func(st control.Status) bool { return len(st.Problems) == 1 })
		if want := file + ":13: Deployment default/server: spec.template.spec.containers[0].command: required"; !strings.HasPrefix(now.Problems[0], want) {
			t.Errorf("problem %q, want %q", now.Problems[0], want)
		}
		if !slices.Equal(readyServers(now), readyServers(st)) {
			t.Errorf("pods are %v, were %v", readyServers(now), readyServers(st))
		}
	})
	t.Run("what goes is gone", func(t *testing.T) {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		m.await("only the client is left", func(st control.Status) bool { return len(st.Pods) == 1 && len(st.Problems) == 0 })
		if r := m.run("wire", "sh", "-c", "ls /run/netns; ip -o link 2>/dev/null | wc -l"); !strings.HasPrefix(r.out, "default_client\nn1\nn2\n") {
			t.Errorf("%+v", r)
		}
	})
}

func TestPodLifecycle(t *testing.T) {
	dir := t.TempDir()
	m := up(t, options(t, map[string]string{"pods.yaml": fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: once}
spec:
  restartPolicy: Never
  initContainers: [{name: first, command: [sh, -c, "echo init > %[1]s/$(WHO)"], env: [{name: WHO, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}]
  containers: [{name: c, command: [sh, -c, "cat %[1]s/once; echo $IP; hostname; exit 0"], env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: stubborn}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, command: [SELF, role-stubborn]}]
---
apiVersion: v1
kind: Pod
metadata: {name: sick}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: c
      command: [sleep, infinity]
      livenessProbe: {exec: {command: [test, "!", -e, "%[1]s/sick"]}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: slow}
spec:
  terminationGracePeriodSeconds: 60
  containers: [{name: c, command: [sh, -c, "trap '' TERM; while [ ! -e %[1]s/leave ]; do sleep 0.1; done"]}]
`, dir)}))
	m.await("the first has run", func(st control.Status) bool {
		return slices.ContainsFunc(st.Pods, func(p control.Pod) bool { return p.Name == "once" && p.State == "Succeeded" })
	})
	lines := strings.Split(m.log("once"), "\n")
	if len(lines) < 3 || lines[0] != "init" || lines[2] != "once" {
		t.Errorf("output %q", lines)
	} else if _, err := netip.ParseAddr(lines[1]); err != nil {
		t.Error(err)
	}
	t.Run("a program that its probe gives up is restarted", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(dir, "sick"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		m.await("it is restarted", func(st control.Status) bool {
			return slices.ContainsFunc(st.Pods, func(p control.Pod) bool { return p.Name == "sick" && p.Restarts > 0 })
		})
	})
	t.Run("strays end with their pod", func(t *testing.T) {
		count := func() string {
			return m.run("wire", "sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c '^role-stubborn$'").out
		}
		if got := count(); got != "2\n" {
			t.Fatalf("%q processes, want 2", got)
		}
		writeFile(t, filepath.Join(m.files, "pods.yaml"), client)
		m.await("one takes its time", func(st control.Status) bool {
			return slices.ContainsFunc(st.Pods, func(p control.Pod) bool { return p.Name == "slow" && p.State == "Terminating" })
		})
		if got := m.run("slow", "hostname"); got != (result{0, "slow\n", ""}) {
			t.Errorf("in a pod that is being ended: %+v", got)
		}
		writeFile(t, filepath.Join(dir, "leave"), "")
		m.await("the pods are gone", func(st control.Status) bool { return len(st.Pods) == 1 && st.Pods[0].Name == "client" })
		if got := count(); got != "0\n" {
			t.Errorf("%q processes are left", got)
		}
	})
}
