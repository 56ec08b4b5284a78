package netns_test

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"testing"
)

// world is two namespaces, one of them enrolled, with a client on n1 and a server
// on each node in both.
func world() map[string]string {
	files := make(map[string]string)
	for _, ns := range []string{"in", "out"} {
		text := namespace(ns, ns == "in") + "---\n" + pod(ns, "client", "n1") + "---\n"
		for _, node := range []string{"n1", "n2"} {
			name := "server-" + node
			text += pod(ns, name, node) + "---\n" + services(ns, name)
		}
		files[ns+".yaml"] = text
	}
	return files
}

// addresses of a server by every kind and family: the pod's own, the service's
// virtual one, the headless service's name, and a named target port.
func (m *mesh) addresses(s status, ns, server string) map[string]check {
	m.t.Helper()
	out := make(map[string]check)
	echo := strconv.Itoa(servers["echo"].port)
	for _, p := range s.Pods {
		if p.Namespace != ns || p.Name != server {
			continue
		}
		for _, ip := range p.IPs {
			out["pod "+family(ip)] = check{Addr: net.JoinHostPort(ip, echo)}
		}
	}
	for _, vip := range m.clusterIPs(ns, server) {
		out["service "+family(vip)] = check{Addr: net.JoinHostPort(vip, echo)}
	}
	for _, vip := range m.clusterIPs(ns, server+"-named") {
		out["named port "+family(vip)] = check{Addr: net.JoinHostPort(vip, "80")}
	}
	host := ns + ".svc.cluster.local"
	out["headless IPv4"] = check{Addr: server + "-headless." + host + ":" + echo, Network: "tcp4"}
	out["headless IPv6"] = check{Addr: server + "-headless." + host + ":" + echo, Network: "tcp6"}
	out["service name"] = check{Addr: server + "." + host + ":" + echo}
	if len(out) != 9 {
		m.t.Fatalf("%s/%s has addresses %v", ns, server, out)
	}
	return out
}

func family(ip string) string {
	if netip.MustParseAddr(ip).Is4() {
		return "IPv4"
	}
	return "IPv6"
}

func TestReachabilityMatrix(t *testing.T) {
	m := start(t, world())
	m.captured("in")
	s := m.status()
	for _, from := range []string{"in", "out"} {
		var list []check
		var names []string
		for _, to := range []string{"in", "out"} {
			for _, server := range []string{"server-n1", "server-n2"} {
				for kind, c := range m.addresses(s, to, server) {
					c.Kind, c.Size = "echo", 100_000
					list = append(list, c)
					names = append(names, fmt.Sprintf("%s → %s %s by %s", from, to, server, kind))
				}
			}
		}
		for i, o := range m.checks(from, "client", list) {
			if o.Error != "" {
				t.Errorf("%s: %s", names[i], o.Error)
			}
		}
	}
	m.encryptedExactly()
}

// encryptedExactly looks at what the ztunnels logged: between the enrolled pods all
// of it was mutual TLS, and nothing else was.
func (m *mesh) encryptedExactly() {
	m.t.Helper()
	seen := 0
	for _, l := range m.accessLog(func(l map[string]any) bool { return l["error"] == nil }) {
		between := l["src.namespace"] == "in" && l["dst.namespace"] == "in"
		mutual := l["connection_security_policy"] == "mutual_tls"
		if between != mutual {
			m.t.Errorf("between enrolled pods: %v, mutual TLS: %v: %v", between, mutual, l)
		}
		if mutual {
			seen++
			if want := "spiffe://cluster.local/ns/in/sa/client"; l["src.identity"] != want {
				m.t.Errorf("source identity %v, want %s", l["src.identity"], want)
			}
		}
	}
	// Both ends log each of the 18 addresses.
	if seen < 36 {
		m.t.Errorf("%d connections of mutual TLS were logged, want at least 36", seen)
	}
}

func TestProtocolsAndSourceAddress(t *testing.T) {
	m := start(t, world())
	m.captured("in")
	s := m.status()
	clientIPs := make(map[string]map[string]bool)
	for _, p := range s.Pods {
		if p.Name == "client" {
			clientIPs[p.Namespace] = make(map[string]bool)
			for _, ip := range p.IPs {
				clientIPs[p.Namespace][ip] = true
			}
		}
	}
	for _, from := range []string{"in", "out"} {
		var list []check
		for _, server := range []string{"server-n1", "server-n2"} {
			host := server + ".in.svc.cluster.local:"
			for kind := range servers {
				if _, ok := clients[kind]; !ok || kind == "echo" {
					continue
				}
				list = append(list, check{Kind: kind, Addr: host + strconv.Itoa(servers[kind].port), Size: 1_000_000})
			}
			for _, size := range []int64{0, 1, 16384, 65536, 65537, 50_000_000} {
				list = append(list, check{Kind: "echo", Addr: host + strconv.Itoa(servers["echo"].port), Size: size})
			}
			for _, ip := range m.clusterIPs("in", server) {
				list = append(list, check{Kind: "whoami", Addr: net.JoinHostPort(ip, strconv.Itoa(servers["whoami"].port))})
			}
		}
		for _, o := range m.succeed(from, "client", list) {
			if o.Check.Kind == "whoami" && !clientIPs[from][o.Saw] {
				t.Errorf("%s: the server saw its client as %s, which is none of %v", from, o.Saw, clientIPs[from])
			}
		}
	}
}

func TestGigabyteArrivesWhole(t *testing.T) {
	if testing.Short() {
		t.SkipNow()
	}
	m := start(t, world())
	m.captured("in")
	m.succeed("in", "client", []check{{Kind: "halfclose", Addr: "server-n2.in.svc.cluster.local:8082", Size: 1 << 30}})
}

func TestUnreachableDestinations(t *testing.T) {
	m := start(t, world())
	m.captured("in")
	s := m.status()
	var pod string
	for _, p := range s.Pods {
		if p.Namespace == "in" && p.Name == "server-n2" {
			pod = p.IPs[0]
		}
	}
	var list []check
	for _, addr := range []string{
		net.JoinHostPort(pod, "9999"),  // nobody listens
		net.JoinHostPort(pod, "15008"), // the tunnel's own ports are no targets
		net.JoinHostPort(pod, "15001"),
		net.JoinHostPort(pod, "15006"),
		"server-n2.in.svc.cluster.local:9999", // no such port of the service
	} {
		list = append(list, check{Kind: "refused", Addr: addr})
	}
	m.succeed("in", "client", list)
	for _, port := range []string{"9999", "15008", "15001", "15006"} {
		addr := net.JoinHostPort(pod, port)
		m.until(addr+" is refused with a reason in the access log", func() bool {
			lines := m.accessLog(func(l map[string]any) bool { return l["direction"] == "outbound" && l["dst.addr"] == addr })
			return len(lines) > 0 && lines[0]["error"] != nil
		})
	}
}
