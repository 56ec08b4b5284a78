package netns_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// withStandIn gives a directory of programs in which this binary is the waypoint.
func withStandIn(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ambit-local-controlplane", "ambit-nodeagent", "ambit-ztunnel"} {
		if err := os.Symlink(filepath.Join(binDir, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(self, filepath.Join(dir, "ambit-waypoint")); err != nil {
		t.Fatal(err)
	}
	return dir
}

const boundNamespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: in\n  labels: {ambit-mesh.io/dataplane-mode: ambient, ambit-mesh.io/use-waypoint: wp}\n"

// serviceWith gives a service of the server with annotations, as YAML in braces.
func serviceWith(annotations string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: server, namespace: in, annotations: {%s}}\nspec:\n  ipFamilyPolicy: RequireDualStack\n  selector: {app: server}\n"+
		"  ports: [{name: whoami, port: 8083, targetPort: 8083}, {name: echo, port: 8080, targetPort: 8080}]\n", annotations)
}

// A label on a namespace brings a waypoint into the path of its services. The
// destination sees the client: its address, its identity in policy and log.
func TestWaypointSpeaksForItsClient(t *testing.T) {
	files := map[string]string{
		"ns.yaml": boundNamespace, "out.yaml": namespace("out", false) + "---\n" + pod("out", "stranger", "n1"),
		"pods.yaml": pod("in", "client", "n1") + "---\n" + pod("in", "server", "n2") + "---\n" + pod("in", "other", "n2"), "svc.yaml": serviceWith(""),
	}
	m := start(t, files, "--bin-dir", withStandIn(t))
	m.until("all but the waypoint and the stranger are captured", func() bool {
		for _, p := range m.status().Pods {
			want := "yes"
			if p.Namespace == "out" || strings.HasPrefix(p.Name, "wp-") {
				want = "no"
			}
			if p.Captured != want {
				return false
			}
		}
		return true
	})
	ips := make(map[string]bool)
	var direct string
	for _, p := range m.status().Pods {
		if p.Namespace == "in" && p.Name == "client" {
			for _, ip := range p.IPs {
				ips[ip] = true
			}
		}
		if p.Name == "server" {
			direct = net.JoinHostPort(p.IPs[0], "8083")
		}
	}
	const service = "server.in.svc.cluster.local:8083"
	whoami := func(addr string) []check { return []check{{Kind: "whoami", Addr: addr}} }
	through := func(l map[string]any) bool {
		return l["direction"] == "inbound" && l["src.identity"] == "spiffe://cluster.local/ns/in/sa/client" && l["peer.identity"] == "spiffe://cluster.local/ns/in/sa/wp" && l["src.workload"] == "client"
	}
	for _, vip := range m.clusterIPs("in", "server") {
		for _, o := range m.succeed("in", "client", whoami(net.JoinHostPort(vip, "8083"))) {
			if !ips[o.Saw] {
				t.Errorf("by %s the server saw its client as %s, which is none of %v", vip, o.Saw, ips)
			}
		}
	}
	m.succeed("in", "client", []check{{Kind: "echo", Addr: "server.in.svc.cluster.local:8080", Size: 5_000_000}})
	m.until("three connections are logged with client and waypoint", func() bool { return len(m.accessLog(through)) == 3 })
	m.succeed("in", "server", whoami(service)) // to itself, by way of the waypoint

	t.Run("policy is about the client", func(t *testing.T) {
		m.write("policy.yaml", allowFrom("in", "only-client", "server", "client"))
		m.until("others are refused", func() bool {
			return m.checks("in", "other", []check{{Kind: "refused", Addr: "server.in.svc.cluster.local:8080"}})[0].Error == ""
		})
		m.succeed("in", "client", whoami(service))
		if err := os.Remove(filepath.Join(m.dir, "policy.yaml")); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("around the waypoint", func(t *testing.T) {
		m.until("the policy is gone", func() bool { return m.checks("in", "other", whoami(service))[0].Error == "" })
		m.succeed("in", "client", whoami(direct))
		m.write("svc.yaml", serviceWith(`ambit-mesh.io/require-waypoint: "true"`))
		refused := []check{{Kind: "refused", Addr: direct}}
		m.until("who goes around is refused", func() bool { return m.checks("in", "client", refused)[0].Error == "" })
		m.succeed("out", "stranger", refused)
		m.succeed("out", "stranger", []check{{Kind: "refused", Addr: service}})
		m.succeed("in", "client", whoami(service))
		m.until("both ends say why", func() bool {
			lines := m.accessLog(func(l map[string]any) bool {
				return l["error"] != nil && strings.Contains(l["error"].(string), "it did not come through waypoint in/wp, which Service in/server requires")
			})
			return len(lines) >= 3
		})
		m.write("svc.yaml", serviceWith(""))
	})
	t.Run("without a ready waypoint", func(t *testing.T) {
		m.until("nothing requires the waypoint", func() bool { return m.checks("in", "client", whoami(direct))[0].Error == "" })
		m.write("gw.yaml", "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: wp, namespace: in, annotations: {ambit-mesh.io/waypoint-replicas: \"0\"}}\n"+
			"spec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n")
		m.until("it is refused", func() bool {
			return m.checks("in", "client", []check{{Kind: "refused", Addr: service}})[0].Error == ""
		})
		m.write("svc.yaml", serviceWith(`ambit-mesh.io/waypoint-fail-open: "true"`))
		m.until("it goes around", func() bool { return m.checks("in", "client", whoami(service))[0].Error == "" })
	})
}
