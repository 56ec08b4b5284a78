package wds_test

import (
	"net/netip"
	"testing"

	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
)

func TestEnrolled(t *testing.T) {
	plain := func(hosts ...string) func(*workloadpb.Workload) {
		return func(w *workloadpb.Workload) {
			in(hosts...)(w)
			w.TunnelProtocol = workloadpb.TunnelProtocol_NONE
		}
	}
	s := store(t,
		service("web", "10.96.0.1", nil), service("old", "10.96.0.2", nil), service("none", "10.96.0.3", nil),
		service("bound", "10.96.0.4", func(svc *workloadpb.Service) {
			svc.Waypoint = &workloadpb.GatewayAddress{Destination: &workloadpb.GatewayAddress_Address{Address: &workloadpb.NetworkAddress{Address: ip("10.96.0.9")}}, HboneMtlsPort: 15008}
		}),
		pod("web", "10.0.0.1", in("web")), pod("old", "10.0.0.2", plain("old")),
		pod("node", "10.0.0.3", func(w *workloadpb.Workload) { w.NetworkMode = workloadpb.NetworkMode_HOST_NETWORK }),
	)
	for addr, want := range map[string]string{
		"10.0.0.1": "workload shop/web", "::ffff:10.0.0.1": "workload shop/web", "10.96.0.1": "Service shop/web", "10.96.0.4": "Service shop/bound",
		"10.0.0.2": "", "10.96.0.2": "", "10.96.0.3": "", "10.0.0.3": "", "192.0.2.1": "", "2001:db8::1": "",
	} {
		if got, ok := s.Enrolled(netip.MustParseAddr(addr)); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v, want %q", addr, got, ok, want)
		}
	}
}
