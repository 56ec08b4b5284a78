package wds

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
)

// served makes a service with n endpoints, one in three of each zone.
func served(t testing.TB, n int, lb *workloadpb.LoadBalancing) (*Store, *Workload, *Service) {
	t.Helper()
	s := New()
	put := func(name string, a *workloadpb.Address) {
		s.Update(func(c Change) {
			if err := c.Put(name, a); err != nil {
				t.Fatal(err)
			}
		})
	}
	put("a/svc", &workloadpb.Address{Type: &workloadpb.Address_Service{Service: &workloadpb.Service{
		Name: "svc", Namespace: "a", Hostname: "svc", LoadBalancing: lb,
		Ports: []*workloadpb.Port{{ServicePort: 80, TargetPort: 8080}}, Addresses: []*workloadpb.NetworkAddress{{Address: []byte{10, 96, 0, 1}}},
	}}})
	for i := range n {
		w := &workloadpb.Workload{
			Uid: fmt.Sprintf("w%04d", i), Name: fmt.Sprintf("w%d", i), Namespace: "a", Node: fmt.Sprintf("n%d", i%6), Addresses: [][]byte{{10, 0, byte(i >> 8), byte(i)}},
			Locality: &workloadpb.Locality{Region: "r", Zone: fmt.Sprintf("z%d", i%3)},
			Services: map[string]*workloadpb.PortList{"a/svc": {}},
		}
		put(w.Uid, &workloadpb.Address{Type: &workloadpb.Address_Workload{Workload: w}})
	}
	return s, &Workload{Namespace: "a", Region: "r", Zone: "z1", Node: "n1"}, s.Service("a/svc")
}

var vip = netip.MustParseAddrPort("10.96.0.1:80")

func failover(scopes ...workloadpb.LoadBalancing_Scope) *workloadpb.LoadBalancing {
	return &workloadpb.LoadBalancing{Mode: workloadpb.LoadBalancing_FAILOVER, RoutingPreference: scopes}
}

// Connections that stay open are spread almost evenly, and those that are set up
// slowly get fewer.
func TestSpread(t *testing.T) {
	s, src, _ := served(t, 10, nil)
	count := make(map[string]int)
	for range 10000 {
		r, err := s.Route(src, vip)
		if err != nil {
			t.Fatal(err)
		}
		r.Workload.Opened()
		count[r.Workload.UID]++
	}
	for uid, n := range count {
		if n < 950 || n > 1050 { // two choices: within a few of the mean of 1000
			t.Errorf("%s has %d of 10000 connections", uid, n)
		}
	}
	s, src, _ = served(t, 10, nil)
	slow := 0
	for range 10000 {
		r, err := s.Route(src, vip)
		if err != nil {
			t.Fatal(err)
		}
		took := 5 * time.Millisecond
		if r.Workload.UID == "w0000" {
			took, slow = 50*time.Millisecond, slow+1
		}
		r.Workload.Reached(took, false)
		r.Workload.Opened()
	}
	if slow < 50 || slow > 250 { // a tenth of the share of others, 110
		t.Errorf("the slow endpoint has %d of 10000 connections", slow)
	}
}

func TestLocality(t *testing.T) {
	region, zone, node := workloadpb.LoadBalancing_REGION, workloadpb.LoadBalancing_ZONE, workloadpb.LoadBalancing_NODE
	for name, tc := range map[string]struct {
		lb   *workloadpb.LoadBalancing
		want func(*Workload) bool
		each int // lower bound of the share of 3000 of each endpoint that is wanted
	}{
		"zone":   {failover(region, zone), func(w *Workload) bool { return w.Zone == "z1" }, 700},
		"node":   {failover(region, zone, node), func(w *Workload) bool { return w.Node == "n1" }, 1300},
		"strict": {&workloadpb.LoadBalancing{Mode: workloadpb.LoadBalancing_STRICT, RoutingPreference: []workloadpb.LoadBalancing_Scope{node}}, func(w *Workload) bool { return w.Node == "n1" }, 1300},
	} {
		t.Run(name, func(t *testing.T) {
			s, src, _ := served(t, 12, tc.lb)
			count := make(map[string]int)
			var all []*Workload
			for range 3000 {
				r, err := s.Route(src, vip)
				if err != nil || !tc.want(r.Workload) {
					t.Fatalf("%v, %v", r.Workload, err)
				}
				if count[r.Workload.UID]++; count[r.Workload.UID] == 1 {
					all = append(all, r.Workload)
				}
			}
			for uid, n := range count {
				if n < tc.each*9/10 {
					t.Errorf("%s has %d of 3000", uid, n)
				}
			}
			// Those that failed are avoided: what is next is further away.
			r, err := s.Route(src, vip, all...)
			if strict := name == "strict"; err != nil || tc.want(r.Workload) != strict {
				t.Errorf("after all of the nearest have failed: %v, %v", r.Workload, err)
			}
		})
	}
}

func TestTerminatingTakesNothing(t *testing.T) {
	s, src, svc := served(t, 2, &workloadpb.LoadBalancing{HealthPolicy: workloadpb.LoadBalancing_ALLOW_ALL})
	s.Update(func(Change) { s.workloads["w0000"].Terminating = true })
	for range 100 {
		if r, err := s.Route(src, vip); err != nil || r.Workload.UID != "w0001" {
			t.Fatalf("%v, %v", r.Workload, err)
		}
	}
	if len(s.Members(svc)) != 2 {
		t.Error("publishNotReadyAddresses publishes all")
	}
}

func TestRegistryOnly(t *testing.T) {
	s, src, _ := served(t, 1, nil)
	src.RegistryOnly = true
	if _, err := s.Route(src, vip); err != nil {
		t.Error(err)
	}
	for _, to := range []string{"198.51.100.7:443", "[2001:db8::1]:443"} {
		if _, err := s.Route(src, netip.MustParseAddrPort(to)); err == nil {
			t.Errorf("%s is let through", to)
		}
	}
}

// Choosing takes no memory, in any way of choosing.
func TestPickDoesNotAllocate(t *testing.T) {
	for name, lb := range map[string]*workloadpb.LoadBalancing{"any": nil, "zone": failover(workloadpb.LoadBalancing_REGION, workloadpb.LoadBalancing_ZONE)} {
		s, src, svc := served(t, 100, lb)
		if n := testing.AllocsPerRun(1000, func() {
			if _, _, err := s.pick(src, svc, 80, true, nil); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%s: %.1f allocations", name, n)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for name, lb := range map[string]*workloadpb.LoadBalancing{"any": nil, "zone": failover(workloadpb.LoadBalancing_REGION, workloadpb.LoadBalancing_ZONE)} {
		s, src, svc := served(b, 100, lb)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					s.mu.RLock()
					_, _, err := s.pick(src, svc, 80, true, nil)
					s.mu.RUnlock()
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
