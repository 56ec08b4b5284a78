package wds_test

import (
	"net/netip"
	"testing"

	"github.com/ambit-mesh/ambit/internal/wds"
)

// A second try goes to another endpoint, though the one that does not answer is the
// least loaded, and to the same when there is no other.
func TestRouteAvoids(t *testing.T) {
	s := store(t, service("web", "10.96.0.1", nil), pod("a", "10.0.0.1", in("web")), pod("b", "10.0.0.2", in("web")), pod("client", "10.0.0.9", nil))
	client, dst := s.Workload(netip.MustParseAddr("10.0.0.9")), netip.MustParseAddrPort("10.96.0.1:80")
	a, b := s.Workload(netip.MustParseAddr("10.0.0.1")), s.Workload(netip.MustParseAddr("10.0.0.2"))
	for range 5 {
		b.Opened()
	}
	for range 50 {
		if r, err := s.Route(client, dst, a); err != nil || r.Workload != b {
			t.Fatalf("%v, %v", r.Workload, err)
		}
		if r, err := s.Route(client, dst, a, b); err != nil || r.Workload == nil {
			t.Fatalf("after all were tried: %v, %v", r.Workload, err)
		}
	}
	var none []*wds.Workload
	if r, err := s.Route(client, dst, none...); err != nil || r.Workload != a && r.Workload != b {
		t.Errorf("%v, %v", r.Workload, err)
	}
}
