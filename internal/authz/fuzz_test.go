package authz_test

import (
	"net/netip"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/apis/security"
	"github.com/ambit-mesh/ambit/internal/authz"
	"github.com/ambit-mesh/ambit/internal/identity"
)

// Whatever a control plane sends, it is compiled or refused, decided upon, and
// never panics; and what cannot be read opens nothing.
func FuzzCompile(f *testing.F) {
	for _, a := range fuzzSeeds() {
		b, err := proto.Marshal(a)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	connections := []authz.Connection{
		{SourceIP: netip.MustParseAddr("10.0.0.1"), DestIP: netip.MustParseAddr("10.0.0.2"), DestPort: 80},
		{
			Source:   identity.ID{TrustDomain: "td", Namespace: "a", ServiceAccount: "b"},
			SourceIP: netip.MustParseAddr("fd00::1"), DestIP: netip.MustParseAddr("fd00::2"), DestPort: 8080,
		},
		{Source: identity.ID{TrustDomain: "td"}},
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a := &security.Authorization{}
		if proto.Unmarshal(b, a) != nil {
			return
		}
		p, err := authz.Compile(a)
		if p == nil {
			t.Fatal("no policy")
		}
		set := authz.NewSet(p)
		for _, c := range connections {
			for _, selected := range [][]string{nil, {p.Key().String()}} {
				e := set.For(a.GetNamespace(), selected)
				if d := e.DecideRequest(c, &authz.Request{Method: "GET", Path: "/a/b", Host: "a.x", Header: func(n string) []string { return []string{n} }, Claim: func(i, n string) []string { return []string{i, n} }}); d.Allowed == (d.Reason != "") {
					t.Fatalf("request allowed %v with reason %q", d.Allowed, d.Reason)
				}
				d := e.Decide(c)
				if d.Allowed == (d.Reason != "") {
					t.Fatalf("allowed %v with reason %q", d.Allowed, d.Reason)
				}
				if err != nil && d.Allowed && selected != nil && !p.DryRun() {
					t.Fatalf("a policy that cannot be read (%v) let a connection in", err)
				}
			}
		}
	})
}

func fuzzSeeds() []*security.Authorization {
	presence := &security.StringMatch{MatchType: &security.StringMatch_Presence{Presence: &security.Empty{}}}
	exact := &security.StringMatch{MatchType: &security.StringMatch_Exact{Exact: "td/ns/a/sa/b"}}
	prefix := &security.StringMatch{MatchType: &security.StringMatch_Prefix{Prefix: "td/ns/a/"}}
	suffix := &security.StringMatch{MatchType: &security.StringMatch_Suffix{Suffix: "/ns/a/sa/b"}}
	one := func(m *security.Match) []*security.Rule {
		return []*security.Rule{{Clauses: []*security.Clause{{Matches: []*security.Match{m}}}}}
	}
	return []*security.Authorization{
		{},
		{Name: "deny", Namespace: "a", Action: security.Action_DENY, Rules: []*security.Rule{{}}},
		{Name: "strict", Namespace: "a", Scope: security.Scope_WORKLOAD_SELECTOR, Action: security.Action_DENY, Rules: one(&security.Match{NotPrincipals: []*security.StringMatch{presence}})},
		{Name: "allow", Namespace: "a", Scope: security.Scope_NAMESPACE, Rules: one(&security.Match{Principals: []*security.StringMatch{exact, prefix, suffix}})},
		{Name: "blocks", Namespace: "a", Rules: one(&security.Match{
			SourceIps: []*security.Address{{Address: []byte{10, 0, 0, 0}, Length: 8}}, NotDestinationIps: []*security.Address{{Address: make([]byte, 16), Length: 0}},
			DestinationPorts: []uint32{80, 99999}, ServiceAccounts: []*security.ServiceAccountMatch{{Namespace: "a", ServiceAccount: "b"}},
		})},
		{Name: "request", Namespace: "a", Action: security.Action_DENY, Rules: one(&security.Match{NotPrincipals: []*security.StringMatch{exact}, Extensions: []*security.Extension{
			extension(security.TunnelPeerExtension, &security.TunnelPeer{}),
			extension(security.RequestExtension, &security.RequestMatch{
				Methods: []string{"GET"}, Hosts: []string{"*.x"}, Paths: []*security.RequestPath{{Type: &security.RequestPath_Prefix{Prefix: "/a"}}},
				Headers: []*security.RequestHeader{{Name: "h", Values: []string{"h"}}}, Claims: []*security.RequestClaim{{Issuer: "i", Name: "n", Values: []string{"n"}}},
			}),
		}})},
		{Name: "odd", Namespace: "a", Action: 9, Scope: 9, Extensions: []*security.Extension{{Name: security.OriginExtension}}},
	}
}
