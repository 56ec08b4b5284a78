package netns_test

import (
	"fmt"
	"strings"
	"testing"
)

// Enrolling and leaving under load: no connection fails, no process is restarted,
// connections that were open before stay open.
func TestEnrolAndLeaveUnderLoad(t *testing.T) {
	files := world()
	m := start(t, files)
	m.captured("in")
	pids := m.pids()
	inside := m.steady("in", "client", "server-n2.out.svc.cluster.local:8080")
	outside := m.steady("out", "client", "server-n2.out.svc.cluster.local:8080")
	sameNode := m.steady("out", "client", "server-n1.out.svc.cluster.local:8080")
	before := m.hold("out", "client", "server-n2.out.svc.cluster.local:8085")
	for range 3 {
		m.write("out.yaml", strings.Replace(files["out.yaml"], "name: out\n", "name: out\n  labels: {ambit-mesh.io/dataplane-mode: ambient}\n", 1))
		m.captured("in", "out")
		before.beat()
		m.write("out.yaml", files["out.yaml"])
		m.captured("in")
		before.beat()
	}
	for name, s := range map[string]*steady{"enrolled client": inside, "client that is enrolled": outside, "client on the same node": sameNode} {
		if ok, failures := s.end(); failures != "" || ok < atLeast {
			t.Errorf("%s: %d connections worked, failures: %s", name, ok, failures)
		}
	}
	for pod, pid := range m.pids() {
		if pids[pod] != pid {
			t.Errorf("%s was restarted", pod)
		}
	}
}

// pids of every container.
func (m *mesh) pids() map[string]int {
	m.t.Helper()
	out := make(map[string]int)
	for _, p := range m.status().Pods {
		for c, pid := range p.Pids {
			out[p.Namespace+"/"+p.Name+"/"+c] = pid
		}
	}
	return out
}

func TestPolicyIsNamedAtBothEnds(t *testing.T) {
	files := world()
	files["policy.yaml"] = allowFrom("in", "only-n1", "server-n2", "server-n1")
	m := start(t, files)
	m.captured("in")
	target := "server-n2.in.svc.cluster.local:8080"
	m.until("the policy is enforced", func() bool {
		return m.checks("in", "client", []check{{Kind: "refused", Addr: target}})[0].Error == ""
	})
	m.succeed("in", "server-n1", []check{{Kind: "echo", Addr: target, Size: 1000}})
	// From outside of the mesh there is no identity that could be allowed.
	m.succeed("out", "client", []check{{Kind: "refused", Addr: target}})
	denied := func(direction, namespace string) []map[string]any {
		return m.accessLog(func(l map[string]any) bool {
			return l["direction"] == direction && l["src.namespace"] == namespace && l["error"] != nil && strings.Contains(l["error"].(string), "in/only-n1")
		})
	}
	for _, d := range [][2]string{{"inbound", "in"}, {"outbound", "in"}, {"inbound", "out"}} {
		m.until(fmt.Sprintf("an %s line of a client in %q names the policy", d[0], d[1]), func() bool { return len(denied(d[0], d[1])) > 0 })
	}
}

// A connection that a new policy denies is closed, and others stay.
func TestPolicyChangeClosesConnections(t *testing.T) {
	files := world()
	m := start(t, files)
	m.captured("in")
	denied := m.hold("in", "client", "server-n2.in.svc.cluster.local:8085")
	allowed := m.hold("in", "server-n1", "server-n2.in.svc.cluster.local:8085")
	denied.beat()
	allowed.beat()
	m.write("policy.yaml", allowFrom("in", "only-n1", "server-n2", "server-n1"))
	m.until("the connection that is denied now is closed", func() bool { return denied.try() != "ok" })
	allowed.beat()
}

func TestStrictRefusesPlaintext(t *testing.T) {
	files := world()
	m := start(t, files)
	m.captured("in")
	target := "server-n2.in.svc.cluster.local:8080"
	m.succeed("out", "client", []check{{Kind: "echo", Addr: target, Size: 1000}})
	m.write("strict.yaml", "apiVersion: ambit-mesh.io/v1alpha1\nkind: PeerAuthentication\nmetadata: {name: strict, namespace: in}\nspec: {mtls: {mode: STRICT}}\n")
	m.until("plaintext is refused", func() bool {
		return m.checks("out", "client", []check{{Kind: "refused", Addr: target}})[0].Error == ""
	})
	m.succeed("in", "client", []check{{Kind: "echo", Addr: target, Size: 1000}})
}
