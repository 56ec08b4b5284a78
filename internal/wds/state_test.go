package wds_test

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	securitypb "github.com/ambit-mesh/ambit/apis/security"
	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/authz"
	"github.com/ambit-mesh/ambit/internal/wds"
)

func ip(s string) []byte { return netip.MustParseAddr(s).AsSlice() }

// pod makes a workload resource; change may alter it.
func pod(name, addr string, change func(*workloadpb.Workload)) *workloadpb.Workload {
	w := &workloadpb.Workload{
		Uid: "Kubernetes//Pod/shop/" + name, Name: name, Namespace: "shop", ServiceAccount: name, Addresses: [][]byte{ip(addr)},
		TunnelProtocol: workloadpb.TunnelProtocol_HBONE, Node: "n1",
	}
	if change != nil {
		change(w)
	}
	return w
}

// in puts a workload behind a service whose port 80 is its port 8080.
func in(hosts ...string) func(*workloadpb.Workload) {
	return func(w *workloadpb.Workload) {
		w.Services = make(map[string]*workloadpb.PortList)
		for _, h := range hosts {
			w.Services["shop/"+h] = &workloadpb.PortList{Ports: []*workloadpb.Port{{ServicePort: 80, TargetPort: 8080}}}
		}
	}
}

func service(host, vip string, change func(*workloadpb.Service)) *workloadpb.Service {
	s := &workloadpb.Service{Name: host, Namespace: "shop", Hostname: host, Ports: []*workloadpb.Port{{ServicePort: 80, TargetPort: 8080}}}
	if vip != "" {
		s.Addresses = []*workloadpb.NetworkAddress{{Address: ip(vip)}}
	}
	if change != nil {
		change(s)
	}
	return s
}

func store(t testing.TB, resources ...any) *wds.Store {
	t.Helper()
	s := wds.New()
	s.Update(func(c wds.Change) {
		for _, r := range resources {
			put(t, c, r)
		}
	})
	return s
}

func put(t testing.TB, c wds.Change, r any) {
	t.Helper()
	var err error
	switch r := r.(type) {
	case *workloadpb.Workload:
		err = c.Put(r.Uid, &workloadpb.Address{Type: &workloadpb.Address_Workload{Workload: r}})
	case *workloadpb.Service:
		err = c.Put(r.Namespace+"/"+r.Hostname, &workloadpb.Address{Type: &workloadpb.Address_Service{Service: r}})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func waypoint(svc string) *workloadpb.GatewayAddress {
	return &workloadpb.GatewayAddress{Destination: &workloadpb.GatewayAddress_Hostname{Hostname: &workloadpb.NamespacedHostname{Namespace: "shop", Hostname: svc}}, HboneMtlsPort: 15008}
}

func TestRoute(t *testing.T) {
	plain := func(w *workloadpb.Workload) { w.TunnelProtocol = workloadpb.TunnelProtocol_NONE }
	unready := func(w *workloadpb.Workload) {
		in("web")(w)
		w.Status = workloadpb.WorkloadStatus_UNHEALTHY
	}
	both := func(fs ...func(*workloadpb.Workload)) func(*workloadpb.Workload) {
		return func(w *workloadpb.Workload) {
			for _, f := range fs {
				f(w)
			}
		}
	}
	client := pod("client", "10.0.0.9", nil)
	for _, tt := range []struct {
		name      string
		resources []any
		dst       string
		want      string // kind connect authority peer
		err       error
	}{
		{name: "address nobody told of", dst: "192.0.2.1:443", want: "plain 192.0.2.1:443"},
		{
			name: "enrolled pod", resources: []any{pod("a", "10.0.0.1", nil)}, dst: "10.0.0.1:9000",
			want: "tunnel 10.0.0.1:15008 10.0.0.1:9000 spiffe://cluster.local/ns/shop/sa/a",
		},
		{name: "pod that is not enrolled", resources: []any{pod("a", "10.0.0.1", plain)}, dst: "10.0.0.1:9000", want: "plain 10.0.0.1:9000"},
		{
			name: "IPv4-mapped address", resources: []any{pod("a", "10.0.0.1", nil)}, dst: "[::ffff:10.0.0.1]:9000",
			want: "tunnel 10.0.0.1:15008 10.0.0.1:9000 spiffe://cluster.local/ns/shop/sa/a",
		},
		{
			name: "service", resources: []any{service("web", "10.96.0.1", nil), pod("a", "10.0.0.1", in("web"))}, dst: "10.96.0.1:80",
			want: "tunnel 10.0.0.1:15008 10.0.0.1:8080 spiffe://cluster.local/ns/shop/sa/a",
		},
		{
			name: "service over IPv6", resources: []any{service("web", "fd00::1", nil), pod("a", "fd00::2", in("web"))}, dst: "[fd00::1]:80",
			want: "tunnel [fd00::2]:15008 [fd00::2]:8080 spiffe://cluster.local/ns/shop/sa/a",
		},
		{name: "service of a pod that is not enrolled", resources: []any{service("web", "10.96.0.1", nil), pod("a", "10.0.0.1", both(in("web"), plain))}, dst: "10.96.0.1:80", want: "plain 10.0.0.1:8080"},
		{name: "port that the service lacks", resources: []any{service("web", "10.96.0.1", nil), pod("a", "10.0.0.1", in("web"))}, dst: "10.96.0.1:81", err: wds.ErrNoPort},
		{name: "service without endpoints", resources: []any{service("web", "10.96.0.1", nil)}, dst: "10.96.0.1:80", err: wds.ErrNoEndpoint},
		{name: "service without ready endpoints", resources: []any{service("web", "10.96.0.1", nil), pod("a", "10.0.0.1", unready)}, dst: "10.96.0.1:80", err: wds.ErrNoEndpoint},
		{name: "service that publishes unready endpoints", resources: []any{service("web", "10.96.0.1", func(s *workloadpb.Service) {
			s.LoadBalancing = &workloadpb.LoadBalancing{HealthPolicy: workloadpb.LoadBalancing_ALLOW_ALL}
		}), pod("a", "10.0.0.1", unready)}, dst: "10.96.0.1:80", want: "tunnel 10.0.0.1:15008 10.0.0.1:8080 spiffe://cluster.local/ns/shop/sa/a"},
		{
			name: "unready pod by its own address", resources: []any{pod("a", "10.0.0.1", unready)}, dst: "10.0.0.1:8080",
			want: "tunnel 10.0.0.1:15008 10.0.0.1:8080 spiffe://cluster.local/ns/shop/sa/a",
		},
		{name: "named target port is the pod's own", resources: []any{
			service("web", "10.96.0.1", func(s *workloadpb.Service) { s.Ports = []*workloadpb.Port{{ServicePort: 80}} }),
			pod("a", "10.0.0.1", func(w *workloadpb.Workload) {
				w.Services = map[string]*workloadpb.PortList{"shop/web": {Ports: []*workloadpb.Port{{ServicePort: 80, TargetPort: 8443}}}}
			}),
		}, dst: "10.96.0.1:80", want: "tunnel 10.0.0.1:15008 10.0.0.1:8443 spiffe://cluster.local/ns/shop/sa/a"},
		{name: "service with a waypoint", resources: []any{
			service("web", "10.96.0.1", func(s *workloadpb.Service) { s.Waypoint = waypoint("wp") }), pod("a", "10.0.0.1", in("web")),
			service("wp", "10.96.0.2", func(s *workloadpb.Service) {
				s.Ports = []*workloadpb.Port{{ServicePort: 15008, TargetPort: 15008}}
			}), pod("wp-0", "10.0.0.5", func(w *workloadpb.Workload) {
				w.Services = map[string]*workloadpb.PortList{"shop/wp": {Ports: []*workloadpb.Port{{ServicePort: 15008, TargetPort: 15008}}}}
			}),
		}, dst: "10.96.0.1:80", want: "tunnel 10.0.0.5:15008 10.96.0.1:80 spiffe://cluster.local/ns/shop/sa/wp-0"},
		{name: "waypoint that does not exist", resources: []any{
			service("web", "10.96.0.1", func(s *workloadpb.Service) { s.Waypoint = waypoint("wp") }), pod("a", "10.0.0.1", in("web")),
		}, dst: "10.96.0.1:80", err: wds.ErrWaypoint},
		{name: "waypoint without ready pods", resources: []any{
			service("web", "10.96.0.1", func(s *workloadpb.Service) { s.Waypoint = waypoint("wp") }), pod("a", "10.0.0.1", in("web")),
			service("wp", "10.96.0.2", func(s *workloadpb.Service) {
				s.Ports = []*workloadpb.Port{{ServicePort: 15008, TargetPort: 15008}}
			}),
		}, dst: "10.96.0.1:80", err: wds.ErrWaypoint},
		{name: "waypoint of a workload", resources: []any{
			pod("a", "10.0.0.1", func(w *workloadpb.Workload) { w.Waypoint = waypoint("wp") }),
		}, dst: "10.0.0.1:80", err: wds.ErrWaypoint},
		{name: "waypoint that cannot be read is not no waypoint", resources: []any{
			pod("a", "10.0.0.1", func(w *workloadpb.Workload) { w.Waypoint = &workloadpb.GatewayAddress{} }),
		}, dst: "10.0.0.1:80", err: wds.ErrWaypoint},
		{name: "host network address is nobody's", resources: []any{
			pod("a", "10.0.0.1", func(w *workloadpb.Workload) { w.NetworkMode = workloadpb.NetworkMode_HOST_NETWORK }),
		}, dst: "10.0.0.1:80", want: "plain 10.0.0.1:80"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := store(t, append(tt.resources, client)...)
			r, err := s.Route(s.WorkloadByName("shop", "client"), netip.MustParseAddrPort(tt.dst))
			if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			got := "plain " + r.Connect.String()
			if r.Tunnel {
				got = fmt.Sprintf("tunnel %s %s %s", r.Connect, r.Authority, r.Peers[0])
			}
			if got != tt.want {
				t.Fatalf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestEndpointsAreShared(t *testing.T) {
	s := store(t, pod("client", "10.0.0.9", nil), service("web", "10.96.0.1", nil),
		pod("a", "10.0.0.1", in("web")), pod("b", "10.0.0.2", in("web")), pod("c", "10.0.0.3", in("web")))
	src := s.WorkloadByName("shop", "client")
	for range 90 {
		r, err := s.Route(src, netip.MustParseAddrPort("10.96.0.1:80"))
		if err != nil {
			t.Fatal(err)
		}
		r.Workload.Opened() // and it stays open
	}
	for _, name := range []string{"a", "b", "c"} {
		if n := s.WorkloadByName("shop", name).Active(); n < 20 || n > 40 {
			t.Errorf("%s got %d of 90 connections", name, n)
		}
	}
}

func TestUpdatesLeaveNothingBehind(t *testing.T) {
	s := store(t, pod("client", "10.0.0.9", nil))
	src := s.WorkloadByName("shop", "client")
	vip := netip.MustParseAddrPort("10.96.0.1:80")
	route := func() string {
		r, err := s.Route(src, vip)
		if err != nil {
			return "refused"
		}
		return r.Connect.String()
	}
	step := func(what, want string, f func(wds.Change)) {
		t.Helper()
		s.Update(f)
		if got := route(); got != want {
			t.Fatalf("%s: goes to %s, want %s", what, got, want)
		}
	}
	step("service", "refused", func(c wds.Change) { put(t, c, service("web", "10.96.0.1", nil)) })
	step("endpoint", "10.0.0.1:15008", func(c wds.Change) { put(t, c, pod("a", "10.0.0.1", in("web"))) })
	step("endpoint moves", "10.0.0.2:15008", func(c wds.Change) { put(t, c, pod("a", "10.0.0.2", in("web"))) })
	step("endpoint leaves the service", "refused", func(c wds.Change) { put(t, c, pod("a", "10.0.0.2", nil)) })
	step("another takes its address", "10.0.0.2:15008", func(c wds.Change) {
		put(t, c, pod("b", "10.0.0.2", in("web")))
		c.Remove("Kubernetes//Pod/shop/a")
	})
	if w := s.Workload(netip.MustParseAddr("10.0.0.2")); w == nil || w.Name != "b" {
		t.Fatalf("address belongs to %v", w)
	}
	step("service gone", "10.96.0.1:80", func(c wds.Change) { c.Remove("shop/web") })
	s.Update(func(c wds.Change) {
		c.Remove("Kubernetes//Pod/shop/b")
		c.Remove("Kubernetes//Pod/shop/client")
	})
	if w, svc, _ := s.Snapshot(); len(w)+len(svc) != 0 || len(s.Identities("n1")) != 0 {
		t.Fatalf("left: %v %v %v", w, svc, s.Identities("n1"))
	}
}

func TestBadResourcesAreRefusedByName(t *testing.T) {
	s := wds.New()
	s.Update(func(c wds.Change) {
		for name, a := range map[string]*workloadpb.Address{
			"":                       {},
			"Kubernetes//Pod/shop/a": {Type: &workloadpb.Address_Workload{Workload: pod("b", "10.0.0.1", nil)}},
			"Kubernetes//Pod/shop/b": {Type: &workloadpb.Address_Workload{Workload: pod("b", "10.0.0.1", func(w *workloadpb.Workload) { w.Addresses = [][]byte{{1, 2, 3}} })}},
			"Kubernetes//Pod/shop/c": {Type: &workloadpb.Address_Workload{Workload: pod("c", "10.0.0.1", func(w *workloadpb.Workload) {
				w.Services = map[string]*workloadpb.PortList{"shop/x": {Ports: []*workloadpb.Port{{ServicePort: 1 << 20}}}}
			})}},
			"shop/web": {Type: &workloadpb.Address_Service{Service: service("web", "", func(s *workloadpb.Service) { s.SubjectAltNames = []string{"web.example.com"} })}},
		} {
			if err := c.Put(name, a); err == nil {
				t.Errorf("%q was taken", name)
			}
		}
	})
}

func TestPoliciesOfWorkload(t *testing.T) {
	s := store(t, pod("a", "10.0.0.1", func(w *workloadpb.Workload) { w.AuthorizationPolicies = []string{"shop/deny"} }))
	w := s.WorkloadByName("shop", "a")
	conn := authz.Connection{SourceIP: netip.MustParseAddr("10.0.0.9"), DestIP: netip.MustParseAddr("10.0.0.1"), DestPort: 80}
	if d := s.Evaluator(w).Decide(conn); d.Allowed {
		t.Fatal("a policy that is listed and not known was taken for none")
	}
	p, err := authz.Compile(&securitypb.Authorization{
		Name: "deny", Namespace: "shop", Scope: securitypb.Scope_WORKLOAD_SELECTOR, Action: securitypb.Action_DENY,
		Rules: []*securitypb.Rule{{Clauses: []*securitypb.Clause{{Matches: []*securitypb.Match{{DestinationPorts: []uint32{81}}}}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Update(func(c wds.Change) { c.Policies([]*authz.Policy{p}, nil) })
	if d := s.Evaluator(w).Decide(conn); !d.Allowed {
		t.Fatal(d.Reason)
	}
}

// BenchmarkMemoryPerWorkload reports what a known workload costs at 100,000.
func BenchmarkMemoryPerWorkload(b *testing.B) {
	const n = 100_000
	for range b.N {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := wds.New()
		s.Update(func(c wds.Change) {
			for i := range n / 10 {
				put(b, c, service(fmt.Sprintf("svc-%d.shop.svc.cluster.local", i), netip.AddrFrom4([4]byte{10, 96 + byte(i>>16), byte(i >> 8), byte(i)}).String(), nil))
			}
			for i := range n {
				host := fmt.Sprintf("svc-%d.shop.svc.cluster.local", i%(n/10))
				put(b, c, pod(fmt.Sprintf("svc-%d-7c5ddbdf54-%05d", i%(n/10), i), netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String(), func(w *workloadpb.Workload) {
					in(host)(w)
					w.ServiceAccount = fmt.Sprintf("svc-%d", i%(n/10))
					w.WorkloadName, w.CanonicalName = w.ServiceAccount, w.ServiceAccount
				}))
			}
		})
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/workload")
		runtime.KeepAlive(s)
	}
}

func BenchmarkRouteToService(b *testing.B) {
	resources := []any{pod("client", "10.0.0.9", nil), service("web", "10.96.0.1", nil)}
	for i := range 1000 {
		resources = append(resources, pod(fmt.Sprintf("web-%d", i), netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}).String(), in("web")))
	}
	s := store(b, resources...)
	src := s.WorkloadByName("shop", "client")
	dst := netip.MustParseAddrPort("10.96.0.1:80")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Route(src, dst); err != nil {
			b.Fatal(err)
		}
	}
}
