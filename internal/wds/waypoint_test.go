package wds_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/anypb"

	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/wds"
)

func options(t testing.TB, o *workloadpb.WaypointOptions) []*workloadpb.Extension {
	t.Helper()
	config, err := anypb.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return []*workloadpb.Extension{{Name: "x", Config: config}, {Name: workloadpb.WaypointExtension, Config: config}}
}

// native makes a waypoint's pod.
func native(name, addr string, healthy bool) *workloadpb.Workload {
	return pod(name, addr, func(w *workloadpb.Workload) {
		w.NativeTunnel, w.ServiceAccount = true, "wp"
		w.Services = map[string]*workloadpb.PortList{"shop/wp": {Ports: []*workloadpb.Port{{ServicePort: 15008, TargetPort: 15008}}}}
		if !healthy {
			w.Status = workloadpb.WorkloadStatus_UNHEALTHY
		}
	})
}

// Where a connection to a service and to a workload goes: through the waypoint,
// around it where that was asked for and it is not ready, or nowhere.
func TestWaypointAvailability(t *testing.T) {
	wpService := service("wp", "10.96.0.9", func(s *workloadpb.Service) {
		s.Ports = []*workloadpb.Port{{ServicePort: 15008, TargetPort: 15008}}
	})
	type state struct {
		options *workloadpb.WaypointOptions
		pods    []any
	}
	for name, tc := range map[string]struct {
		state
		want string // who is connected to, or the error
	}{
		"ready":                      {state{nil, []any{wpService, native("wp-1", "10.0.0.9", true)}}, "wp-1"},
		"one of two is ready":        {state{nil, []any{wpService, native("wp-1", "10.0.0.9", false), native("wp-2", "10.0.0.10", true)}}, "wp-2"},
		"not ready":                  {state{nil, []any{wpService, native("wp-1", "10.0.0.9", false)}}, "waypoint shop/wp of"},
		"not there":                  {state{nil, nil}, "no such service"},
		"ready, may be gone around":  {state{&workloadpb.WaypointOptions{FailOpen: true}, []any{wpService, native("wp-1", "10.0.0.9", true)}}, "wp-1"},
		"not ready, around":          {state{&workloadpb.WaypointOptions{FailOpen: true}, []any{wpService, native("wp-1", "10.0.0.9", false)}}, "web"},
		"not there, around":          {state{&workloadpb.WaypointOptions{FailOpen: true}, nil}, "web"},
		"cannot be used":             {state{&workloadpb.WaypointOptions{Refusal: "there is no Gateway shop/wp"}, []any{wpService, native("wp-1", "10.0.0.9", true)}}, "there is no Gateway shop/wp"},
		"cannot be used, around":     {state{&workloadpb.WaypointOptions{Refusal: "there is no Gateway shop/wp", FailOpen: true}, nil}, "web"},
		"takes no tunnels, and that": {state{nil, []any{wpService, withoutTunnel(native("wp-1", "10.0.0.9", true))}}, "does not accept HBONE"},
	} {
		for _, dst := range []string{"10.96.0.1:80", "10.0.0.1:8080"} {
			t.Run(name+"/"+dst, func(t *testing.T) {
				web := pod("web", "10.0.0.1", in("web"))
				svc := service("web", "10.96.0.1", nil)
				for _, g := range []struct {
					at  **workloadpb.GatewayAddress
					ext *[]*workloadpb.Extension
				}{{&web.Waypoint, &web.Extensions}, {&svc.Waypoint, &svc.Extensions}} {
					*g.at = waypoint("wp")
					if tc.options != nil {
						*g.ext = options(t, tc.options)[1:]
					}
				}
				s := store(t, append([]any{web, svc, pod("client", "10.0.0.2", nil)}, tc.pods...)...)
				r, err := s.Route(s.WorkloadByName("shop", "client"), netip.MustParseAddrPort(dst))
				if err != nil {
					if !errors.Is(err, wds.ErrWaypoint) || !strings.Contains(err.Error(), tc.want) {
						t.Fatalf("%v; want %s", err, tc.want)
					}
					return
				}
				if r.Workload.Name != tc.want || r.Waypoint != strings.HasPrefix(tc.want, "wp") || !r.Tunnel {
					t.Errorf("goes to %s (%+v), want %s", r.Workload.Name, r, tc.want)
				}
			})
		}
	}
}

func withoutTunnel(w *workloadpb.Workload) *workloadpb.Workload {
	w.TunnelProtocol = workloadpb.TunnelProtocol_NONE
	return w
}

// Only the identity of a waypoint that serves the workload speaks for others.
func TestSpeaksFor(t *testing.T) {
	wp := service("wp", "10.96.0.9", nil)
	bound := func(s *workloadpb.Service) { s.Waypoint = waypoint("wp") }
	refused := func(s *workloadpb.Service) {
		s.Waypoint, s.Extensions = waypoint("wp"), options(t, &workloadpb.WaypointOptions{Refusal: "no"})[1:]
	}
	byAddress := &workloadpb.GatewayAddress{Destination: &workloadpb.GatewayAddress_Address{Address: &workloadpb.NetworkAddress{Address: ip("10.96.0.9")}}}
	s := store(t, wp, native("wp-1", "10.0.0.9", false),
		service("bound", "", bound), service("refused", "", refused), service("free", "", nil),
		pod("a", "10.0.0.1", in("bound", "free")), pod("b", "10.0.0.2", in("free")), pod("c", "10.0.0.3", in("refused")),
		pod("d", "10.0.0.4", func(w *workloadpb.Workload) { w.Waypoint = waypoint("wp") }),
		pod("e", "10.0.0.5", func(w *workloadpb.Workload) { w.Waypoint = byAddress }),
		pod("f", "10.0.0.6", func(w *workloadpb.Workload) { w.Waypoint = waypoint("other") }))
	id := func(account string) identity.ID {
		return identity.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: account}
	}
	foreign := id("wp")
	foreign.TrustDomain = "elsewhere"
	for _, tc := range []struct {
		peer identity.ID
		to   string
		want bool
	}{
		{id("wp"), "a", true},
		{id("wp"), "d", true},
		{id("wp"), "e", true},
		{id("wp"), "b", false},
		{id("wp"), "c", false},
		{id("wp"), "f", false},
		{id("a"), "a", false},
		{identity.ID{}, "a", false},
		{foreign, "a", false},
	} {
		if got := s.SpeaksFor(tc.peer, s.WorkloadByName("shop", tc.to)); got != tc.want {
			t.Errorf("%s to %s: %v, want %v", tc.peer, tc.to, got, tc.want)
		}
	}
	if ids := s.Identities("n1"); len(ids) != 6 {
		t.Errorf("the node's proxy fetches certificates for %v; a waypoint does so itself", ids)
	}
}

// An extension that cannot be read is not passed over.
func TestBadWaypointOptions(t *testing.T) {
	svc := service("web", "10.96.0.1", func(s *workloadpb.Service) {
		s.Waypoint = waypoint("wp")
		s.Extensions = []*workloadpb.Extension{{Name: workloadpb.WaypointExtension, Config: &anypb.Any{TypeUrl: "type.googleapis.com/other"}}}
	})
	var err error
	wds.New().Update(func(c wds.Change) {
		err = c.Put("shop/web", &workloadpb.Address{Type: &workloadpb.Address_Service{Service: svc}})
	})
	if err == nil || !strings.Contains(err.Error(), "ambit-mesh.io/waypoint") {
		t.Errorf("taken with %v", err)
	}
}

// A waypoint that is going to be bound is believed and not taken.
func TestAnnouncedWaypoint(t *testing.T) {
	announced := func(s *workloadpb.Service) {
		s.Extensions = options(t, &workloadpb.WaypointOptions{Announced: waypoint("wp")})[1:]
	}
	s := store(t, service("wp", "10.96.0.9", nil), native("wp-1", "10.0.0.9", false),
		service("soon", "10.96.0.1", announced), pod("a", "10.0.0.1", in("soon")))
	wp := identity.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "wp"}
	if !s.SpeaksFor(wp, s.WorkloadByName("shop", "a")) {
		t.Error("it is not believed")
	}
	r, err := s.Route(s.WorkloadByName("shop", "a"), netip.MustParseAddrPort("10.96.0.1:80"))
	if err != nil || r.Waypoint {
		t.Errorf("goes to %+v, %v", r, err)
	}
}
