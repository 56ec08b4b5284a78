package netns_test

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/hbone/hbonetest"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

// forgeries are connections to a pod whose policy lets in nobody but boss, by what has
// been taken over, and the client that it says it speaks for.
var forgeries = []struct {
	name, namespace, account string
	source                   []string
	status, reason           string
}{
	{"the waypoint of the service, for whom it likes", "in", "wp", []string{"ambit-source", "spiffe://cluster.local/ns/in/sa/boss", "forwarded", `for="10.9.9.9:4000"`}, "200", ""},
	{"the same, for itself", "in", "wp", nil, "401", "only-boss"},
	{"the same, for somebody who may not", "in", "wp", []string{"ambit-source", "spiffe://cluster.local/ns/in/sa/client"}, "401", "only-boss"},
	{"the same, for two", "in", "wp", []string{"ambit-source", "spiffe://cluster.local/ns/in/sa/boss", "ambit-source", "spiffe://cluster.local/ns/in/sa/boss"}, "400", "given more than once"},
	{"the same, for nobody that there can be", "in", "wp", []string{"ambit-source", "boss"}, "400", "ambit-source"},
	{"the same, from no address", "in", "wp", []string{"ambit-source", "spiffe://cluster.local/ns/in/sa/boss", "forwarded", "for=boss"}, "400", "forwarded"},
	{"another service's waypoint", "in", "wp2", []string{"ambit-source", "spiffe://cluster.local/ns/in/sa/boss"}, "401", "only-boss"},
	{"another namespace's waypoint of the same name", "bank", "wp", []string{"ambit-source", "spiffe://cluster.local/ns/in/sa/boss"}, "401", "only-boss"},
	{"a pod", "in", "client", []string{"ambit-source", "spiffe://cluster.local/ns/in/sa/boss", "forwarded", `for="10.9.9.9:4000"`}, "401", "only-boss"},
	{"a pod, with baggage", "in", "client", []string{"baggage", "k8s.service_account.name=boss,source.principal=spiffe://cluster.local/ns/in/sa/boss"}, "401", "only-boss"},
	{"who may, without any", "in", "boss", nil, "200", ""},
}

// attackForged says for each forgery what becomes of it.
func attackForged(t *testing.T, in *inside) {
	ca := testkit.LoadCA(t, in.Cert, in.Key)
	target := net.JoinHostPort(in.Victim, "8080")
	for _, f := range forgeries {
		t.Run(f.name, func(t *testing.T) {
			cfg, err := ca.Workload(f.namespace, f.account).ClientConfig(ca.Workload("in", "server").ID)
			if err != nil {
				t.Fatal(err)
			}
			sock, err := net.Dial("tcp", net.JoinHostPort(in.Victim, "15008"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { sock.Close() })
			c := tls.Client(sock, cfg)
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			p := hbonetest.NewPeer(t, c)
			p.Hello()
			p.OK(p.Headers(1, false, append([]string{":method", "CONNECT", ":authority", target}, f.source...)...))
			got := p.Answer(1)
			if got.PseudoValue("status") != f.status || !strings.Contains(proxyStatus(got), f.reason) {
				t.Errorf("answer %s, %q; want %s, %q", got.PseudoValue("status"), proxyStatus(got), f.status, f.reason)
			}
		})
	}
}

// A waypoint that has been taken over can pass for the clients of the services that are
// bound to it, at those, and for nobody anywhere else. Nobody but a waypoint can.
func TestForgedClients(t *testing.T) {
	if in := insideOf(t); in != nil {
		t.Run("forged", func(t *testing.T) { attackForged(t, in) })
		return
	}
	bound := func(name, waypoint string) string {
		return "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + ", namespace: in, labels: {ambit-mesh.io/use-waypoint: " + waypoint + "}}\n" +
			"spec:\n  selector: {app: " + name + "}\n  ports: [{name: echo, port: 8080, targetPort: 8080}]\n"
	}
	var waypoints strings.Builder
	for _, wp := range []string{"name: wp, namespace: in", "name: wp2, namespace: in", "name: wp, namespace: bank"} {
		waypoints.WriteString("---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {" + wp + "}\n" +
			"spec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n")
	}
	files := map[string]string{
		"ns.yaml":   namespace("in", true) + "---\n" + namespace("out", false) + "---\n" + strings.ReplaceAll(boundNamespace, "name: in", "name: bank"),
		"pods.yaml": pod("in", "client", "n1") + "---\n" + pod("in", "server", "n2") + "---\n" + pod("in", "other", "n2") + "---\n" + pod("out", "attacker", "n1"),
		"svc.yaml":  bound("server", "wp") + "---\n" + bound("other", "wp2"), "gw.yaml": waypoints.String(),
		"policy.yaml": strings.Replace(allowFrom("in", "only-boss", "server", "boss"), "targetRefs: [{kind: Service, name: server}]", "targetRefs: [{kind: Pod, selector: {matchLabels: {app: server}}}]", 1),
	}
	ca := testkit.NewCA(t)
	in := &inside{}
	in.Cert, in.Key = ca.PEM()
	m := start(t, files, append(pluggedIn(t, in), "--bin-dir", withStandIn(t))...)
	m.until("what is enrolled is captured, and waypoints run", func() bool {
		running := 0
		for _, p := range m.status().Pods {
			switch {
			case strings.HasPrefix(p.Name, "wp"):
				running++
			case p.Namespace == "in" && p.Captured != "yes":
				return false
			}
		}
		return running == 3
	})
	// The waypoint is in the path, as it says itself of its client: who is not boss is refused by the pod.
	m.until("the policy is in force behind the waypoint", func() bool {
		refused := m.checks("in", "client", []check{{Kind: "refused", Addr: "server.in.svc.cluster.local:8080"}})[0].Error == ""
		return refused && len(m.accessLog(func(l map[string]any) bool {
			return l["policy.rule"] != nil && l["peer.identity"] == "spiffe://cluster.local/ns/in/sa/wp" && l["src.identity"] == "spiffe://cluster.local/ns/in/sa/client"
		})) > 0
	})
	in.Victim = m.ip("in", "server")
	m.runInside("out", "attacker", "forged", in)
}
