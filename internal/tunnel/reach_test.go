package tunnel

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/wds"
)

func TestReach(t *testing.T) {
	r := NewReach(prometheus.NewRegistry(), zap.NewNop())
	now := time.Unix(1000, 0)
	r.now = func() time.Time { return now }
	if !r.try("n1") {
		t.Fatal("a node that nothing is known of is not tried")
	}
	r.failed("n1", errors.New("no answer"))
	if r.try("n1") || !r.try("n2") {
		t.Error("blocked is n1, and n1 alone")
	}
	now = now.Add(firstBackoff)
	if !r.try("n1") || r.try("n1") {
		t.Error("after the time-out one tries, and no other")
	}
	r.failed("n1", errors.New("no answer"))
	now = now.Add(firstBackoff)
	if r.try("n1") {
		t.Error("the second time-out is not longer")
	}
	for range 20 {
		r.failed("n1", errors.New("no answer"))
	}
	now = now.Add(maxBackoff)
	if !r.try("n1") {
		t.Error("the time-out has no upper bound")
	}
	r.worked("n1")
	for range 2 {
		if !r.try("n1") {
			t.Error("what works is not used")
		}
	}
}

// Both ends have a say in what is used, and a waypoint takes datagrams alone.
func TestWants(t *testing.T) {
	const auto, h2, h3 = workloadpb.Transport_AUTO, workloadpb.Transport_H2, workloadpb.Transport_H3
	pod := wds.Workload{Name: "cart", Node: "n1", HTTP3: true, HTTP3UDP: true}
	waypoint := wds.Workload{Name: "wp", Namespace: "shop", Node: "n1", Native: true, HTTP3UDP: true}
	for _, tc := range []struct {
		dst      wds.Workload
		from, to workloadpb.Transport_Preference
		tcp, udp bool
	}{
		{pod, auto, auto, false, true},
		{pod, h3, auto, true, true},
		{pod, auto, h3, true, true},
		{pod, h2, h3, false, false},
		{pod, h3, h2, false, false},
		{waypoint, auto, auto, false, true},
		{waypoint, h3, h3, false, true},
		{waypoint, h2, auto, false, false},
		{wds.Workload{Name: "old", UDP: true}, h3, h3, false, false},
	} {
		r := NewReach(prometheus.NewRegistry(), zap.NewNop())
		dst := tc.dst
		dst.Transport = tc.to
		src := &wds.Workload{Transport: tc.from}
		if tcp, udp := r.Wants(src, &dst, false), r.Wants(src, &dst, true); tcp != tc.tcp || udp != tc.udp {
			t.Errorf("%s, from %s to %s: TCP %t, UDP %t", dst.Name, tc.from, tc.to, tcp, udp)
		}
	}
	r := NewReach(prometheus.NewRegistry(), zap.NewNop())
	r.failed(placeOf(netip.Addr{}, &waypoint), errors.New("no answer"))
	if src := new(wds.Workload); r.Wants(src, &waypoint, true) || !r.Wants(src, &pod, true) {
		t.Error("a waypoint that is closed to QUIC closes its node")
	}
}

// Places that nobody has tried for long are forgotten.
func TestReachForgets(t *testing.T) {
	r := NewReach(prometheus.NewRegistry(), zap.NewNop())
	now := time.Unix(1000, 0)
	r.now = func() time.Time { return now }
	r.failed("gone", errors.New("no answer"))
	now = now.Add(firstBackoff + maxBackoff + time.Second)
	r.failed("there", errors.New("no answer"))
	if len(r.places) != 1 || r.places["there"] == nil {
		t.Errorf("remembered: %v", r.places)
	}
}
