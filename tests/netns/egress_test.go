package netns_test

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// resolveWith are resolvers of real programs: both of Go, and that of the C library.
func resolveWith(t *testing.T) map[string]func(host string) ([]string, error) {
	lookup := func(r *net.Resolver) func(string) ([]string, error) {
		return func(host string) ([]string, error) { return r.LookupHost(t.Context(), host) }
	}
	all := map[string]func(string) ([]string, error){
		"go": lookup(&net.Resolver{PreferGo: true}), "system": lookup(&net.Resolver{}),
		"go over TCP": lookup(&net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}}),
	}
	if getent, err := exec.LookPath("getent"); err == nil {
		all["getent"] = func(host string) ([]string, error) {
			out, err := exec.CommandContext(t.Context(), getent, "ahosts", host).CombinedOutput()
			if err != nil {
				return nil, fmt.Errorf("%w: %s", err, out)
			}
			var addrs []string
			for line := range strings.Lines(string(out)) {
				if a := strings.Fields(line)[0]; !slices.Contains(addrs, a) {
					addrs = append(addrs, a)
				}
			}
			return addrs, nil
		}
	}
	return all
}

// An unmodified pod resolves what is in the mesh, and hosts outside, and a namespace
// that is registry-only reaches these and nothing else.
func TestDNSAndEgress(t *testing.T) {
	if in := insideOf(t); in != nil {
		t.Run("resolves", func(t *testing.T) { resolves(t, in) })
		t.Run("closed", closed)
		return
	}
	files := world()
	files["closed.yaml"] = strings.Replace(namespace("closed", true), "ambient}", "ambient, ambit-mesh.io/outbound: registry-only}", 1) +
		"---\n" + pod("closed", "client", "n1")
	files["stateful.yaml"] = strings.Replace(pod("in", "db-0", "n2"), "  nodeName:", "  hostname: db-0\n  subdomain: db-0-headless\n  nodeName:", 1) +
		"---\n" + services("in", "db-0")
	m := start(t, files)
	m.captured("in", "closed")
	ip := ""
	for _, p := range m.status().Pods {
		if p.Namespace == "out" && p.Name == "server-n2" {
			ip = p.IPs[0]
		}
	}
	// 192.0.2.0/24 leads nowhere: that it is not refused is what counts.
	for _, ns := range []string{"in", "closed"} {
		m.write("external-"+ns+".yaml", fmt.Sprintf(`apiVersion: ambit-mesh.io/v1alpha1
kind: ExternalService
metadata: {name: partner, namespace: %s}
spec:
  hosts: [api.partner.example, "*.wild.example"]
  ports: [{name: echo, port: 443, targetPort: 8080, protocol: TCP}]
  resolution: Static
  endpoints: [{address: %s}]
`, ns, ip))
	}
	m.until("the hosts are known", func() bool {
		return m.checks("closed", "client", []check{{Kind: "echo", Addr: "api.partner.example:443", Size: 1000}})[0].Error == ""
	})
	m.succeed("closed", "client", []check{
		{Kind: "echo", Addr: "some.wild.example:443", Size: 1000},
		{Kind: "echo", Addr: "server-n2.in.svc.cluster.local:8080", Size: 1000},
		{Kind: "refused", Addr: "198.51.100.7:443"},
		{Kind: "refused", Addr: "api.partner.example:444"},
	})
	m.until("the access log says why", func() bool {
		return len(m.accessLog(func(l map[string]any) bool {
			return l["src.namespace"] == "closed" && l["response_flags"] == "REGISTRY_ONLY" && l["dst.addr"] == "198.51.100.7:443" &&
				strings.Contains(fmt.Sprint(l["error"]), "registry-only for namespace closed")
		})) > 0
	})
	m.until("the host is named in the access log", func() bool {
		return len(m.accessLog(func(l map[string]any) bool {
			return l["src.namespace"] == "closed" && l["dst.service"] == "api.partner.example"
		})) > 0
	})
	m.runInside("in", "client", "resolves", &inside{Victim: ip})
	m.runInside("closed", "client", "closed", &inside{Victim: ip})
	m.until("the access log says why of a datagram", func() bool {
		return len(m.accessLog(func(l map[string]any) bool {
			return l["src.namespace"] == "closed" && l["response_flags"] == "REGISTRY_ONLY" && l["dst.addr"] == "198.51.100.7:9999"
		})) > 0
	})
}

func resolves(t *testing.T, _ *inside) {
	for name, resolve := range resolveWith(t) {
		t.Run(name, func(t *testing.T) {
			for host, want := range map[string]string{
				"server-n2":                               "10.", // search domains
				"server-n2.in":                            "10.",
				"server-n2.in.svc.cluster.local":          "10.",
				"server-n2.in.svc.cluster.local.":         "10.",
				"SERVER-n2.in.svc.cluster.local":          "10.",
				"server-n2-headless":                      "10.",
				"db-0.db-0-headless.in.svc.cluster.local": "10.",
				"api.partner.example":                     "240.240.",
				"any.name.wild.example":                   "240.240.",
				"server-n1.out.svc.cluster.local":         "10.",
			} {
				began := time.Now()
				got, err := resolve(host)
				if took := time.Since(began); took >= 5*time.Second {
					t.Errorf("%s: took %s, as long as a resolver waits for an answer", host, took)
				}
				if err != nil || !slices.ContainsFunc(got, func(a string) bool { return strings.HasPrefix(a, want) }) {
					t.Errorf("%s: %v, %v; want %s...", host, got, err, want)
				}
			}
			began := time.Now()
			if got, err := resolve("nobody.in.svc.cluster.local"); err == nil || time.Since(began) >= 5*time.Second {
				t.Errorf("a service that does not exist is at %v, %v after %s", got, err, time.Since(began))
			}
		})
	}
	r := &net.Resolver{PreferGo: true}
	_, srv, err := r.LookupSRV(t.Context(), "echo", "tcp", "server-n2.in.svc.cluster.local")
	if err != nil || len(srv) != 1 || srv[0].Port != 8080 || srv[0].Target != "server-n2.in.svc.cluster.local." {
		t.Errorf("SRV %v, %v", srv, err)
	}
	_, srv, err = r.LookupSRV(t.Context(), "echo", "tcp", "db-0-headless.in.svc.cluster.local")
	if err != nil || len(srv) == 0 || srv[0].Target != "db-0.db-0-headless.in.svc.cluster.local." {
		t.Errorf("SRV of a headless service %v, %v", srv, err)
	}
	vip, err := r.LookupHost(t.Context(), "server-n2.in.svc.cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	names, err := r.LookupAddr(t.Context(), vip[0])
	if err != nil || len(names) != 1 || names[0] != "server-n2.in.svc.cluster.local." {
		t.Errorf("PTR of %s: %v, %v", vip[0], names, err)
	}
}

func closed(t *testing.T) {
	c, err := net.Dial("udp", "198.51.100.7:9999")
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err = c.Write([]byte("x")); err == nil {
		_, err = c.Read(make([]byte, 10))
	}
	_ = c.Close()
	if err == nil {
		t.Error("a datagram to what the mesh does not know was answered")
	}
	if _, err := (&net.Resolver{PreferGo: true}).LookupHost(t.Context(), "server-n1.out.svc.cluster.local"); err != nil {
		t.Errorf("DNS in a closed namespace: %v", err)
	}
}
