package netns_test

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ip gives a pod's IPv4 address.
func (m *mesh) ip(ns, name string) string {
	m.t.Helper()
	for _, p := range m.status().Pods {
		for _, ip := range p.IPs {
			if p.Namespace == ns && p.Name == name && family(ip) == "IPv4" {
				return ip
			}
		}
	}
	m.t.Fatalf("%s/%s has no IPv4 address", ns, name)
	return ""
}

// errorsOf gives the errors of the access log lines of one end about connections
// to an address.
func (m *mesh) errorsOf(direction, addr string) []string {
	m.t.Helper()
	var out []string
	for _, l := range m.accessLog(func(l map[string]any) bool { return l["direction"] == direction && l["dst.addr"] == addr }) {
		text, _ := l["error"].(string)
		out = append(out, text)
	}
	return out
}

// wantErrors waits for a line of one end about connections to an address, and
// fails the test unless its error says all of want.
func (m *mesh) wantErrors(direction, addr string, want ...string) {
	m.t.Helper()
	var got []string
	m.until(fmt.Sprintf("an %s line about %s", direction, addr), func() bool {
		got = m.errorsOf(direction, addr)
		return len(got) > 0
	})
	for _, text := range got {
		for _, w := range want {
			if !strings.Contains(text, w) {
				m.t.Errorf("%s line about %s says %q, want %q in it", direction, addr, text, w)
			}
		}
	}
}

// What does not answer is given up within a bound, the application is told by a
// reset, and both ends that heard of the connection say why.
func TestBlackHoles(t *testing.T) {
	m := start(t, world())
	m.captured("in")
	full := func(ns, pod string) string { return net.JoinHostPort(m.ip(ns, pod), strconv.Itoa(fullPort)) }
	lost := net.JoinHostPort(m.ip("in", "server-n1"), "8080")
	enrolled, plain, gone := full("in", "server-n2"), full("out", "server-n2"), net.JoinHostPort("203.0.113.9", "80")
	m.meddle("n1", net.JoinHostPort(m.ip("in", "server-n1"), "15008"), "")
	m.meddle("n1", gone, "")

	began := time.Now()
	var list []check
	for _, addr := range []string{enrolled, plain, lost, gone} {
		list = append(list, check{Kind: "refused", Addr: addr})
	}
	m.succeed("in", "client", list)
	m.succeed("out", "client", []check{{Kind: "refused", Addr: enrolled}})
	// Each attempt is given up after 10 s, and none is repeated, as it would be for a service.
	if took := time.Since(began); took > 45*time.Second {
		t.Errorf("it took %s until both clients were told", took)
	}

	m.wantErrors("outbound", enrolled, "connection_timeout", "application at "+enrolled)
	m.wantErrors("inbound", enrolled, "application at "+enrolled, "timeout")
	m.wantErrors("outbound", plain, plain, "timeout")
	m.wantErrors("outbound", gone, gone, "timeout")
	// The destination never heard of this one.
	m.wantErrors("outbound", lost, "tunnel to "+net.JoinHostPort(m.ip("in", "server-n1"), "15008"), "deadline exceeded")
	if got := m.errorsOf("inbound", lost); len(got) > 0 {
		t.Errorf("inbound lines about %s: %q", lost, got)
	}
	// Who is not in a black hole is reached all the same.
	m.succeed("in", "client", []check{{Kind: "echo", Addr: net.JoinHostPort(m.ip("in", "server-n2"), "8080"), Size: 1000}})
}

// A tunnel that ends up at another pod than it is for finds a genuine certificate
// of the mesh's root there, and goes no further: it is the wrong one.
func TestTunnelDeliveredToAnotherPod(t *testing.T) {
	files := world()
	files["other.yaml"] = pod("in", "other", "n2")
	m := start(t, files)
	m.captured("in")
	target := net.JoinHostPort(m.ip("in", "server-n2"), "8080")
	m.meddle("n2", net.JoinHostPort(m.ip("in", "server-n2"), "15008"), m.ip("in", "other"))
	m.succeed("in", "client", []check{{Kind: "refused", Addr: target}})
	m.wantErrors("outbound", target, "spiffe://cluster.local/ns/in/sa/other", "TLS handshake")
	m.until("the other pod's ztunnel says that it was not wanted", func() bool {
		return len(m.accessLog(func(l map[string]any) bool {
			text, _ := l["error"].(string)
			return l["direction"] == "inbound" && l["dst.workload"] == "other" && l["response_flags"] == "TLS_FAILURE" && strings.Contains(text, "bad certificate")
		})) > 0
	})
}

// A destination that goes away is refused with a reason, by its service's address
// and by its own, and the connections to it end.
func TestDestinationGoesDown(t *testing.T) {
	files := world()
	m := start(t, files)
	m.captured("in")
	vip, own := m.clusterIPs("in", "server-n2")[0], m.ip("in", "server-n2")
	open := m.hold("in", "client", net.JoinHostPort(own, "8085"))
	m.write("in.yaml", strings.Replace(files["in.yaml"], pod("in", "server-n2", "n2"), "", 1))
	m.until("the open connection ends", func() bool { return open.try() != "ok" })
	m.until("no pod is there", func() bool {
		for _, p := range m.status().Pods {
			if p.Namespace == "in" && p.Name == "server-n2" {
				return false
			}
		}
		return true
	})
	by, at := net.JoinHostPort(vip, "8080"), net.JoinHostPort(own, "8080")
	m.until("connections are refused", func() bool {
		for _, o := range m.checks("in", "client", []check{{Kind: "refused", Addr: by}, {Kind: "refused", Addr: at}}) {
			if o.Error != "" {
				return false
			}
		}
		return true
	})
	m.until("the access log says why", func() bool {
		byService, byPod := m.errorsOf("outbound", by), m.errorsOf("outbound", at)
		return len(byService) > 0 && strings.Contains(byService[len(byService)-1], "server-n2.in.svc.cluster.local") &&
			len(byPod) > 0 && byPod[len(byPod)-1] != ""
	})
}
