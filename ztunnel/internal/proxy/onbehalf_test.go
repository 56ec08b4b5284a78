package proxy

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/wds"
)

var (
	waypointID = identity.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "wp"}
	clientID   = identity.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "web"}
	waypointAt = netip.MustParseAddrPort("10.0.0.9:40000")
)

func TestOnBehalf(t *testing.T) {
	const source = "spiffe://cluster.local/ns/shop/sa/web"
	field := func(pairs ...string) (out []hbone.Field) {
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, hbone.Field{Name: pairs[i], Value: pairs[i+1]})
		}
		return out
	}
	for name, tc := range map[string]struct {
		fields []hbone.Field
		id     identity.ID
		addr   string // "" is an error
	}{
		"neither":                   {field("baggage", "x=y"), waypointID, waypointAt.String()},
		"both":                      {field(fieldSource, source, fieldForwarded, `for="10.0.0.7:5000"`), clientID, "10.0.0.7:5000"},
		"with host":                 {field(fieldSource, source, fieldForwarded, `for="10.0.0.7:5000";host=cart.shop.svc`), clientID, "10.0.0.7:5000"},
		"IPv6":                      {field(fieldSource, source, fieldForwarded, `For="[fd00::7]:5000"`), clientID, "[fd00::7]:5000"},
		"IPv4 in IPv6":              {field(fieldSource, source, fieldForwarded, `for="[::ffff:10.0.0.7]:5000"`), clientID, "10.0.0.7:5000"},
		"identity alone":            {field(fieldSource, source), clientID, waypointAt.String()},
		"address alone means none":  {field(fieldForwarded, `for="10.0.0.7:5000"`), waypointID, waypointAt.String()},
		"no identity":               {field(fieldSource, ""), identity.ID{}, ""},
		"malformed identity":        {field(fieldSource, "web"), identity.ID{}, ""},
		"two identities":            {field(fieldSource, source, fieldSource, source), identity.ID{}, ""},
		"two addresses":             {field(fieldSource, source, fieldForwarded, `for="10.0.0.7:1"`, fieldForwarded, `for="10.0.0.8:1"`), identity.ID{}, ""},
		"a chain":                   {field(fieldSource, source, fieldForwarded, `for="10.0.0.7:1", for="10.0.0.8:1"`), identity.ID{}, ""},
		"for twice":                 {field(fieldSource, source, fieldForwarded, `for="10.0.0.7:1";for="10.0.0.8:1"`), identity.ID{}, ""},
		"obfuscated":                {field(fieldSource, source, fieldForwarded, `for=_hidden`), identity.ID{}, ""},
		"without port":              {field(fieldSource, source, fieldForwarded, `for="10.0.0.7"`), identity.ID{}, ""},
		"loopback":                  {field(fieldSource, source, fieldForwarded, `for="127.0.0.1:80"`), identity.ID{}, ""},
		"with a zone":               {field(fieldSource, source, fieldForwarded, `for="[fe80::1%lo]:80"`), identity.ID{}, ""},
		"nothing that says for":     {field(fieldSource, source, fieldForwarded, `host=x`), identity.ID{}, ""},
		"a quote that is not ended": {field(fieldSource, source, fieldForwarded, `for="10.0.0.7:80`), identity.ID{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := &connection{srcID: waypointID, srcAddr: waypointAt}
			err := c.onBehalf(tc.fields)
			if tc.addr == "" {
				if err == nil {
					t.Fatalf("taken: %s at %s", c.srcID, c.srcAddr)
				}
				return
			}
			if err != nil || c.srcID != tc.id || c.srcAddr.String() != tc.addr {
				t.Errorf("%s at %s, %v; want %s at %s", c.srcID, c.srcAddr, err, tc.id, tc.addr)
			}
		})
	}
}

// Whatever a peer sends, it is an address that a client can have, or refused.
func FuzzForwarded(f *testing.F) {
	for _, s := range []string{`for="10.0.0.7:5000";host=x`, `for="[fd00::1]:1"`, `for=10.0.0.1:80`, `,;=`, `for="";for=`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseForwarded(s)
		if (err == nil) != a.IsValid() {
			t.Fatalf("%s with %v", a, err)
		}
		if err == nil && (a.Port() == 0 || a.Addr().Is4In6() || a.Addr().Zone() != "" || a.Addr().IsLoopback() || a.Addr().IsUnspecified()) {
			t.Fatalf("%s is not the address of a client", a)
		}
	})
}

// Only the waypoint of the pod is believed; from anybody else the fields mean
// nothing.
func TestWhoIsBelieved(t *testing.T) {
	s := wds.New()
	gateway := &workloadpb.GatewayAddress{Destination: &workloadpb.GatewayAddress_Hostname{Hostname: &workloadpb.NamespacedHostname{Namespace: "shop", Hostname: "wp"}}}
	s.Update(func(c wds.Change) {
		for name, a := range map[string]*workloadpb.Address{
			"web": {Type: &workloadpb.Address_Workload{Workload: &workloadpb.Workload{Uid: "web", Name: "web", Namespace: "shop", Services: map[string]*workloadpb.PortList{"shop/web": {}}}}},
			"wp": {Type: &workloadpb.Address_Workload{Workload: &workloadpb.Workload{
				Uid: "wp", Name: "wp", Namespace: "shop", ServiceAccount: "wp", TunnelProtocol: workloadpb.TunnelProtocol_HBONE, NativeTunnel: true, Services: map[string]*workloadpb.PortList{"shop/wp": {}},
			}}},
			"shop/web": {Type: &workloadpb.Address_Service{Service: &workloadpb.Service{Name: "web", Namespace: "shop", Hostname: "web", Waypoint: gateway}}},
		} {
			if err := c.Put(name, a); err != nil {
				t.Fatal(err)
			}
		}
	})
	p := &Pod{cfg: Config{Store: s}}
	fields := []hbone.Field{{Name: fieldSource, Value: clientID.String()}, {Name: fieldForwarded, Value: `for="10.0.0.7:5000"`}}
	stranger := identity.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "stranger"}
	for _, tc := range []struct {
		peer, source identity.ID
		addr         string
	}{
		{waypointID, clientID, "10.0.0.7:5000"},
		{stranger, stranger, waypointAt.String()},
	} {
		c := &connection{srcID: tc.peer, srcAddr: waypointAt, dst: s.WorkloadByName("shop", "web")}
		if err := p.identify(fields, c); err != nil || c.srcID != tc.source || c.peerID != tc.peer || c.srcAddr.String() != tc.addr {
			t.Errorf("%s: taken for %s at %s with peer %s, %v", tc.peer, c.srcID, c.srcAddr, c.peerID, err)
		}
	}
	// What a stranger sends is not even read.
	c := &connection{srcID: stranger, srcAddr: waypointAt, dst: s.WorkloadByName("shop", "web")}
	if err := p.identify([]hbone.Field{{Name: fieldSource, Value: "nonsense"}}, c); err != nil {
		t.Error(err)
	}
}

// A waypoint that is no longer bound is believed a little longer, whether or not it
// has spoken to this pod lately, so that what is on its way through it stays what it
// is.
func TestBelievedForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := wds.New()
		bind := func(waypoint string) {
			s.Update(func(c wds.Change) {
				svc := &workloadpb.Service{Name: "web", Namespace: "shop", Hostname: "web"}
				if waypoint != "" {
					svc.Waypoint = &workloadpb.GatewayAddress{Destination: &workloadpb.GatewayAddress_Hostname{Hostname: &workloadpb.NamespacedHostname{Namespace: "shop", Hostname: waypoint}}}
				}
				if err := c.Put("shop/web", &workloadpb.Address{Type: &workloadpb.Address_Service{Service: svc}}); err != nil {
					t.Fatal(err)
				}
			})
		}
		s.Update(func(c wds.Change) {
			for name, w := range map[string]*workloadpb.Workload{
				"web": {Uid: "web", Name: "web", Namespace: "shop", Services: map[string]*workloadpb.PortList{"shop/web": {}}},
				"wp": {
					Uid: "wp", Name: "wp", Namespace: "shop", ServiceAccount: "wp", TunnelProtocol: workloadpb.TunnelProtocol_HBONE, NativeTunnel: true,
					Services: map[string]*workloadpb.PortList{"shop/wp": {}},
				},
			} {
				if err := c.Put(name, &workloadpb.Address{Type: &workloadpb.Address_Workload{Workload: w}}); err != nil {
					t.Fatal(err)
				}
			}
		})
		p := &Pod{cfg: Config{Store: s}}
		want := func(when string, want bool) {
			t.Helper()
			c := &connection{srcID: waypointID, dst: s.WorkloadByName("shop", "web")}
			err := p.identify([]hbone.Field{{Name: fieldSource, Value: clientID.String()}}, c)
			if got := c.srcID == clientID; got != want || err != nil {
				t.Errorf("%s: believed %v, %v", when, got, err)
			}
		}
		bind("")
		want("never bound", false)
		bind("wp")
		time.Sleep(time.Hour) // it is bound, and has nothing to say
		bind("")
		want("just unbound", true)
		bind("") // something else changed
		time.Sleep(wds.Linger - time.Millisecond)
		want("still on its way", true)
		time.Sleep(time.Millisecond)
		want("unbound for a while, having asked meanwhile", false)
		bind("wp")
		want("bound again", true)
	})
}
