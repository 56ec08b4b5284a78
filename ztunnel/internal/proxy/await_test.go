package proxy

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// A service was bound to a waypoint of which nothing is known yet: connections wait for it,
// for two seconds and no longer. One that is missing later refuses at once.
func TestAwaitWaypoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := wds.New()
		put := func(name string, a *workloadpb.Address) {
			s.Update(func(c wds.Change) {
				if err := c.Put(name, a); err != nil {
					t.Fatal(err)
				}
			})
		}
		pod := func(w *workloadpb.Workload) {
			put(w.GetUid(), &workloadpb.Address{Type: &workloadpb.Address_Workload{Workload: w}})
		}
		service := func(name string, ip byte, waypoint *workloadpb.GatewayAddress) {
			put("shop/"+name, &workloadpb.Address{Type: &workloadpb.Address_Service{Service: &workloadpb.Service{
				Name: name, Namespace: "shop", Hostname: name, Addresses: []*workloadpb.NetworkAddress{{Address: []byte{10, 96, 0, ip}}},
				Ports: []*workloadpb.Port{{ServicePort: 80, TargetPort: 8080}, {ServicePort: 15008, TargetPort: 15008}}, Waypoint: waypoint,
			}}})
		}
		pod(&workloadpb.Workload{Uid: "web", Name: "web", Namespace: "shop", Addresses: [][]byte{{10, 0, 0, 1}}, TunnelProtocol: workloadpb.TunnelProtocol_HBONE})
		service("waypoint", 2, nil)
		service("cart", 1, &workloadpb.GatewayAddress{
			Destination:   &workloadpb.GatewayAddress_Hostname{Hostname: &workloadpb.NamespacedHostname{Namespace: "shop", Hostname: "waypoint"}},
			HboneMtlsPort: 15008,
		})
		p := &Pod{cfg: Config{Store: s}}
		cart := netip.MustParseAddrPort("10.96.0.1:80")
		toCart := func() (wds.Route, error) { return s.Route(s.WorkloadByName("shop", "web"), cart) }
		route := func() (time.Duration, wds.Route, error) {
			began := time.Now()
			r, err := p.awaitWaypoint(t.Context(), toCart)
			return time.Since(began), r, err
		}

		known := time.AfterFunc(time.Second, func() {
			pod(&workloadpb.Workload{
				Uid: "wp", Name: "wp", Namespace: "shop", ServiceAccount: "waypoint", Addresses: [][]byte{{10, 0, 0, 9}}, TunnelProtocol: workloadpb.TunnelProtocol_HBONE,
				Services: map[string]*workloadpb.PortList{"shop/waypoint": {Ports: []*workloadpb.Port{{ServicePort: 15008, TargetPort: 15008}}}},
			})
		})
		defer known.Stop()
		if took, r, err := route(); err != nil || took != time.Second || !r.Waypoint || r.Connect.String() != "10.0.0.9:15008" {
			t.Errorf("once it is known: %+v, %v after %s", r, err, took)
		}
		s.Update(func(c wds.Change) { c.Remove("wp") })
		if took, _, err := route(); !errors.Is(err, wds.ErrWaypoint) || took != time.Second {
			t.Errorf("within the time after the binding: %v after %s, want a refusal at its end", err, took)
		}
		if took, _, err := route(); !errors.Is(err, wds.ErrWaypoint) || took != 0 {
			t.Errorf("later: %v after %s, want a refusal at once", err, took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		service("cart", 1, nil)
		service("cart", 1, &workloadpb.GatewayAddress{
			Destination:   &workloadpb.GatewayAddress_Hostname{Hostname: &workloadpb.NamespacedHostname{Namespace: "shop", Hostname: "waypoint"}},
			HboneMtlsPort: 15008,
		})
		if _, err := p.awaitWaypoint(ctx, toCart); !errors.Is(err, wds.ErrWaypoint) {
			t.Errorf("bound anew, for a connection that is over: %v", err)
		}
	})
}
