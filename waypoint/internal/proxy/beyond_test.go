package proxy

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	waypointpb "github.com/ambit-mesh/ambit/apis/waypoint"
	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/internal/xdsclient"
	"github.com/ambit-mesh/ambit/waypoint/internal/frontend"
)

// known is a proxy that serves two hosts of the same name for two namespaces, a
// wildcard, and a block of addresses.
func known(t *testing.T) *Proxy {
	t.Helper()
	p := New(Config{Gateway: "shop/egress", Store: wds.New(), Frontends: frontend.New(nil, nil)})
	t.Cleanup(p.Close)
	fronts := make(map[string]*waypointpb.Frontend)
	var resources []*discoveryv3.Resource
	add := func(namespace, host string, change func(*workloadpb.Service)) {
		key := namespace + "/" + host
		fronts[key] = &waypointpb.Frontend{Namespace: namespace, Name: "es", Hostname: host, External: true, Ports: []*waypointpb.Port{{Number: 80}}}
		config, err := anypb.New(&workloadpb.ServiceOptions{External: true})
		if err != nil {
			t.Fatal(err)
		}
		svc := &workloadpb.Service{
			Namespace: namespace, Name: "es", Hostname: host, Ports: []*workloadpb.Port{{ServicePort: 80, TargetPort: 80}},
			Extensions: []*workloadpb.Extension{{Name: workloadpb.ServiceExtension, Config: config}},
		}
		if change != nil {
			change(svc)
		}
		body, err := anypb.New(&workloadpb.Address{Type: &workloadpb.Address_Service{Service: svc}})
		if err != nil {
			t.Fatal(err)
		}
		resources = append(resources, &discoveryv3.Resource{Name: key, Resource: body})
	}
	add("shop", "api.example", nil)
	add("bank", "api.example", nil)
	add("shop", "*.wild.example", nil)
	add("shop", "block.example", func(s *workloadpb.Service) {
		length := uint32(24)
		s.Addresses = []*workloadpb.NetworkAddress{{Address: []byte{192, 0, 2, 0}, Length: &length}}
		s.LoadBalancing = &workloadpb.LoadBalancing{Mode: workloadpb.LoadBalancing_PASSTHROUGH}
	})
	for _, sub := range wds.Subscriptions(p.cfg.Store, nil) {
		if strings.HasSuffix(sub.TypeURL, "Address") {
			if err := sub.Handle(xdsclient.Update{Resources: resources}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if wrong := p.cfg.Frontends.Update(fronts, nil); len(wrong) > 0 {
		t.Fatal(wrong)
	}
	return p
}

// What a client's node says is meant is held against what it asks for.
func TestResolveOutside(t *testing.T) {
	p := known(t)
	for _, tc := range []struct {
		namespace, authority, meant string
		key, host                   string // key "" is a refusal
	}{
		{"shop", "api.example:80", "shop/api.example", "shop/api.example", "api.example"},
		{"shop", "API.example:80", "shop/api.example", "shop/api.example", "API.example"},
		{"other", "api.example:80", "bank/api.example", "bank/api.example", "api.example"},
		{"bank", "api.example:80", "", "bank/api.example", "api.example"},
		{"other", "api.example:80", "", "", ""}, // which of the two
		{"shop", "other.example:80", "shop/api.example", "", ""},
		{"shop", "api.example:81", "shop/api.example", "", ""},
		{"shop", "api.example:80", "shop/gone.example", "", ""},
		{"shop", "a.wild.example:80", "shop/*.wild.example", "shop/*.wild.example", "a.wild.example"},
		{"shop", "wild.example:80", "shop/*.wild.example", "", ""},
		{"shop", "evilwild.example:80", "shop/*.wild.example", "", ""},
		{"shop", "192.0.2.9:80", "shop/block.example", "shop/block.example", ""},
		{"shop", "192.0.3.9:80", "shop/block.example", "", ""},
		{"shop", "block.example:80", "shop/block.example", "", ""}, // a name does not say where to
		{"shop", "192.0.2.9:80", "shop/api.example", "", ""},
	} {
		d := &downstream{proxy: p}
		d.client.ID = identity.ID{TrustDomain: "cluster.local", Namespace: tc.namespace, ServiceAccount: "a"}
		p.cfg.Self = func() *wds.Workload { return nil }
		err := d.resolve(tc.authority, tc.meant)
		var r *refusal
		if tc.key == "" && !errors.As(err, &r) || tc.key != "" && err != nil || tc.key != "" && (d.key != tc.key || d.client.Host != tc.host) {
			t.Errorf("%+v: %q, host %q, %v", tc, d.key, d.client.Host, err)
		}
	}
	d := &downstream{proxy: p}
	if err := d.resolve("192.0.2.9:80", "shop/block.example"); err != nil || d.client.To != netip.MustParseAddrPort("192.0.2.9:80") {
		t.Errorf("%v, %v", d.client.To, err)
	}
}
