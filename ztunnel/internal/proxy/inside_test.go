package proxy

import (
	"net/netip"
	"testing"

	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// A host outside whose address turns out to be that of an enrolled pod, or of a Service
// of such, is reached as these are: through a tunnel to the identity that must be there.
func TestHostOutsideThatIsInside(t *testing.T) {
	enrolled := &workloadpb.Workload{
		Uid: "cart", Name: "cart", Namespace: "shop", ServiceAccount: "cart", Addresses: [][]byte{{10, 0, 0, 2}}, TunnelProtocol: workloadpb.TunnelProtocol_HBONE,
		Services: map[string]*workloadpb.PortList{"shop/cart": {Ports: []*workloadpb.Port{{ServicePort: 80, TargetPort: 8080}}}},
	}
	plain := &workloadpb.Workload{Uid: "old", Name: "old", Namespace: "shop", Addresses: [][]byte{{10, 0, 0, 3}}}
	web := &workloadpb.Workload{Uid: "web", Name: "web", Namespace: "shop", Addresses: [][]byte{{10, 0, 0, 1}}, TunnelProtocol: workloadpb.TunnelProtocol_HBONE}
	s := wds.New()
	s.Update(func(c wds.Change) {
		for _, w := range []*workloadpb.Workload{enrolled, plain, web} {
			if err := c.Put(w.GetUid(), &workloadpb.Address{Type: &workloadpb.Address_Workload{Workload: w}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Put("shop/cart", &workloadpb.Address{Type: &workloadpb.Address_Service{Service: &workloadpb.Service{
			Name: "cart", Namespace: "shop", Hostname: "cart", Addresses: []*workloadpb.NetworkAddress{{Address: []byte{10, 96, 0, 1}}}, Ports: []*workloadpb.Port{{ServicePort: 80, TargetPort: 8080}},
		}}}); err != nil {
			t.Fatal(err)
		}
	})
	p := &Pod{cfg: Config{Store: s}}
	outside := &wds.Service{Key: "shop/api.example", Hostname: "api.example", External: true}
	for _, tc := range []struct {
		at      string
		service *wds.Service
		connect string
		tunnel  bool
		refused bool
	}{
		{at: "10.0.0.2:8080", service: outside, connect: "10.0.0.2:15008", tunnel: true},
		{at: "[::ffff:10.0.0.2]:8080", service: outside, connect: "10.0.0.2:15008", tunnel: true},
		{at: "10.96.0.1:80", service: outside, connect: "10.0.0.2:15008", tunnel: true},
		{at: "10.96.0.1:81", service: outside, refused: true},
		{at: "10.0.0.3:8080", service: outside, connect: "10.0.0.3:8080"},
		{at: "192.0.2.1:8080", service: outside, connect: "192.0.2.1:8080"},
		{at: "10.0.0.3:8080", service: &wds.Service{Key: "shop/old"}, connect: "10.0.0.3:8080"},
	} {
		at := netip.MustParseAddrPort(tc.at)
		c := &connection{src: s.WorkloadByName("shop", "web"), service: tc.service}
		r, err := p.inside(c, wds.Route{Connect: at, Target: at, Service: tc.service}, nil)
		switch {
		case tc.refused:
			if err == nil {
				t.Errorf("%s is let through: %+v", tc.at, r)
			}
		case err != nil || r.Connect.String() != tc.connect || r.Tunnel != tc.tunnel:
			t.Errorf("%s: %+v, %v", tc.at, r, err)
		case tc.tunnel && (len(r.Peers) != 1 || r.Peers[0].ServiceAccount != "cart" || c.dst == nil || c.dst.Name != "cart"):
			t.Errorf("%s: peers %v, destination %v", tc.at, r.Peers, c.dst)
		}
	}
}
