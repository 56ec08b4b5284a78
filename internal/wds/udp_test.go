package wds_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/anypb"

	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// takesUDP says that a workload's tunnel takes datagrams.
func takesUDP(t *testing.T, w *workloadpb.Workload) *workloadpb.Workload {
	t.Helper()
	config, err := anypb.New(&workloadpb.Transport{Udp: true})
	if err != nil {
		t.Fatal(err)
	}
	w.Extensions = append(w.Extensions, &workloadpb.Extension{Name: workloadpb.TransportExtension, Config: config})
	return w
}

// Datagrams take the waypoint of a service and of a workload as connections do, and
// go around it only where that was asked for.
func TestRouteUDPThroughWaypoint(t *testing.T) {
	wpService := service("wp", "10.96.0.9", func(s *workloadpb.Service) {
		s.Ports = []*workloadpb.Port{{ServicePort: 15008, TargetPort: 15008}}
	})
	for name, tc := range map[string]struct {
		options *workloadpb.WaypointOptions
		pods    []any
		want    string // who is connected to, or the error
	}{
		"ready":                     {nil, []any{wpService, takesUDP(t, native("wp-1", "10.0.0.9", true))}, "wp-1"},
		"takes no datagrams":        {nil, []any{wpService, native("wp-1", "10.0.0.9", true)}, "its tunnel takes no UDP"},
		"not ready":                 {nil, []any{wpService, takesUDP(t, native("wp-1", "10.0.0.9", false))}, "waypoint shop/wp of"},
		"not there":                 {nil, nil, "no such service"},
		"not there, around":         {&workloadpb.WaypointOptions{FailOpen: true}, nil, "web"},
		"cannot be used":            {&workloadpb.WaypointOptions{Refusal: "there is no Gateway shop/wp"}, []any{wpService, takesUDP(t, native("wp-1", "10.0.0.9", true))}, "there is no Gateway shop/wp"},
		"ready, may be gone around": {&workloadpb.WaypointOptions{FailOpen: true}, []any{wpService, takesUDP(t, native("wp-1", "10.0.0.9", true))}, "wp-1"},
	} {
		for _, dst := range []string{"10.96.0.1:80", "10.0.0.1:8080"} {
			t.Run(name+"/"+dst, func(t *testing.T) {
				web, svc := takesUDP(t, pod("web", "10.0.0.1", in("web"))), service("web", "10.96.0.1", nil)
				web.Waypoint, svc.Waypoint = waypoint("wp"), waypoint("wp")
				if tc.options != nil {
					web.Extensions = append(web.Extensions, options(t, tc.options)[1:]...)
					svc.Extensions = append(svc.Extensions, options(t, tc.options)[1:]...)
				}
				s := store(t, append([]any{web, svc, pod("client", "10.0.0.2", nil)}, tc.pods...)...)
				r, err := s.RouteUDP(s.WorkloadByName("shop", "client"), netip.MustParseAddrPort(dst))
				if err != nil {
					if !errors.Is(err, wds.ErrWaypoint) || !strings.Contains(err.Error(), tc.want) {
						t.Fatalf("%v; want %s", err, tc.want)
					}
					return
				}
				if r.Workload.Name != tc.want || r.Waypoint != strings.HasPrefix(tc.want, "wp") || !r.Tunnel {
					t.Errorf("goes to %s (%+v), want %s", r.Workload.Name, r, tc.want)
				}
				if r.Waypoint && r.Target.String() != dst {
					t.Errorf("the waypoint is asked for %s, want %s", r.Target, dst)
				}
			})
		}
	}
}

// A service whose waypoint is missing is reached on no port of UDP.
func TestRouteUDPWithoutWaypoint(t *testing.T) {
	out := service("out", "10.96.0.3", func(s *workloadpb.Service) { s.Waypoint = waypoint("wp") })
	s := store(t, out, pod("client", "10.0.0.2", nil))
	for _, dst := range []string{"10.96.0.3:80", "10.96.0.3:443"} {
		if r, err := s.RouteUDP(s.WorkloadByName("shop", "client"), netip.MustParseAddrPort(dst)); err == nil {
			t.Errorf("%s goes to %+v", dst, r)
		}
	}
}

// HTTP/3 for everything is HTTP/3 for datagrams, and not the other way round.
func TestTransportOverHTTP3(t *testing.T) {
	for _, tc := range []struct {
		said     *workloadpb.Transport
		all, udp bool
	}{
		{&workloadpb.Transport{Udp: true}, false, false},
		{&workloadpb.Transport{Udp: true, H3: true}, true, true},
		{&workloadpb.Transport{Udp: true, H3Udp: true}, false, true},
	} {
		config, err := anypb.New(tc.said)
		if err != nil {
			t.Fatal(err)
		}
		web := pod("web", "10.0.0.1", nil)
		web.Extensions = []*workloadpb.Extension{{Name: workloadpb.TransportExtension, Config: config}}
		if w := store(t, web).WorkloadByName("shop", "web"); w.HTTP3 != tc.all || w.HTTP3UDP != tc.udp {
			t.Errorf("%v: HTTP/3 %t, for datagrams %t", tc.said, w.HTTP3, w.HTTP3UDP)
		}
	}
}
