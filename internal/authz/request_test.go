package authz_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"pgregory.net/rapid"

	"github.com/ambit-mesh/ambit/apis/security"
	"github.com/ambit-mesh/ambit/internal/authz"
	"github.com/ambit-mesh/ambit/internal/identity"
)

func extension(name string, m proto.Message) *security.Extension {
	config, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return &security.Extension{Name: name, Config: config}
}

func genRequestMatch(t *rapid.T) *security.RequestMatch {
	m := &security.RequestMatch{}
	set := func(label string) bool { return rapid.IntRange(0, 3).Draw(t, label) == 0 }
	if set("methods") {
		m.Methods = rapid.SliceOfN(rapid.SampledFrom([]string{"GET", "PUT"}), 1, 2).Draw(t, "method")
	}
	if set("paths") {
		for range rapid.IntRange(1, 2).Draw(t, "paths") {
			text := rapid.SampledFrom([]string{"/", "/a", "/a/", "/a/b", "/ab"}).Draw(t, "path")
			p := &security.RequestPath{Type: &security.RequestPath_Exact{Exact: text}}
			if rapid.Bool().Draw(t, "prefix") {
				p.Type = &security.RequestPath_Prefix{Prefix: text}
			}
			m.Paths = append(m.Paths, p)
		}
	}
	if set("hosts") {
		m.Hosts = rapid.SliceOfN(rapid.SampledFrom([]string{"a.x", "b.x", "*.x"}), 1, 2).Draw(t, "host")
	}
	if set("grpc") {
		m.GrpcMethods = []*security.RequestGRPC{{Service: rapid.SampledFrom([]string{"", "s", "u"}).Draw(t, "service"), Method: rapid.SampledFrom([]string{"", "M"}).Draw(t, "rpc")}}
	}
	if set("headers") {
		m.Headers = []*security.RequestHeader{{Name: "h", Values: rapid.SliceOfN(rapid.SampledFrom([]string{"1", "2", "1,2"}), 1, 2).Draw(t, "values")}}
	}
	if set("claims") {
		m.Claims = []*security.RequestClaim{{Issuer: "i", Name: rapid.SampledFrom([]string{"sub", "aud"}).Draw(t, "claim"), Values: []string{"x"}}}
	}
	return m
}

// genRequest gives nil for a connection as such.
func genRequest(t *rapid.T) *authz.Request {
	if rapid.IntRange(0, 2).Draw(t, "no request") == 0 {
		return nil
	}
	lines := rapid.SliceOfN(rapid.SampledFrom([]string{"1", "2", "1,2", "3, 1"}), 0, 2).Draw(t, "lines")
	claims := rapid.SliceOfN(rapid.SampledFrom([]string{"x", "y"}), 0, 2).Draw(t, "claims")
	r := &authz.Request{
		Method: rapid.SampledFrom([]string{"GET", "PUT", "put"}).Draw(t, "method"),
		Path:   rapid.SampledFrom([]string{"/", "/a", "/a/", "/a/b", "/ab", "/a/b/c?x=/", "*", ""}).Draw(t, "path"),
		Host:   rapid.SampledFrom([]string{"a.x", "B.x:80", "x", "c.a.x"}).Draw(t, "host"),
		Header: func(string) []string { return lines },
		Claim:  func(_, name string) []string { return map[string][]string{"sub": claims}[name] },
	}
	if rapid.Bool().Draw(t, "grpc") {
		r.GRPCService, r.GRPCMethod = rapid.SampledFrom([]string{"s", "t"}).Draw(t, "service"), "M"
	}
	return r
}

// about makes a policy of one rule about requests, in namespace ns.
func about(t testing.TB, action security.Action, m *security.RequestMatch) *authz.Policy {
	t.Helper()
	p, err := authz.Compile(&security.Authorization{
		Name: "l7", Namespace: "ns", Scope: security.Scope_WORKLOAD_SELECTOR, Action: action,
		Rules: []*security.Rule{{Clauses: []*security.Clause{{Matches: []*security.Match{{Extensions: []*security.Extension{extension(security.RequestExtension, m)}}}}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func connection() authz.Connection {
	id := identity.ID{TrustDomain: "cluster.local", Namespace: "ns", ServiceAccount: "web"}
	return authz.Connection{Source: id, Peer: id, SourceIP: netip.MustParseAddr("10.0.0.1"), DestIP: netip.MustParseAddr("10.0.0.2"), DestPort: 8080}
}

func header(lines ...string) func(string) []string {
	return func(name string) []string {
		if name == "x-role" {
			return lines
		}
		return nil
	}
}

// What matches for ALLOW and for DENY where the two differ: what is not known or
// not clear is refused by both.
func TestDoubtRefuses(t *testing.T) {
	role := &security.RequestMatch{Headers: []*security.RequestHeader{{Name: "X-Role", Values: []string{"admin"}}}}
	method := &security.RequestMatch{Methods: []string{"DELETE"}}
	for name, tc := range map[string]struct {
		match        *security.RequestMatch
		request      *authz.Request
		allows, lets bool // ALLOW lets it in; DENY does
	}{
		"no request":                  {method, nil, false, false},
		"method":                      {method, &authz.Request{Method: "DELETE"}, true, false},
		"other method":                {method, &authz.Request{Method: "GET"}, false, true},
		"method in another case":      {method, &authz.Request{Method: "delete"}, false, false},
		"header":                      {role, &authz.Request{Header: header("admin")}, true, false},
		"no header":                   {role, &authz.Request{Header: header()}, false, true},
		"no headers at all":           {role, &authz.Request{}, false, true},
		"another header line besides": {role, &authz.Request{Header: header("user", "admin")}, false, false},
		"another member in a list":    {role, &authz.Request{Header: header("user, admin")}, false, false},
		"the same value twice":        {role, &authz.Request{Header: header("admin", "admin")}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			for action, want := range map[security.Action]bool{security.Action_ALLOW: tc.allows, security.Action_DENY: tc.lets} {
				e := authz.NewSet(about(t, action, tc.match)).For("ns", []string{"ns/l7"})
				d := e.Decide(connection())
				if tc.request != nil {
					d = e.DecideRequest(connection(), tc.request)
				}
				if d.Allowed != want {
					t.Errorf("%s: allowed %v: %s", action, d.Allowed, d.Reason)
				}
				if tc.request == nil && action == security.Action_DENY && !strings.Contains(d.Reason, "is about requests, and this is a connection without any") {
					t.Errorf("reason %q", d.Reason)
				}
			}
		})
	}
}

func TestBadRequestMatchesFailClosed(t *testing.T) {
	for name, e := range map[string]*security.Extension{
		"nothing is set":     extension(security.RequestExtension, &security.RequestMatch{}),
		"kind of path":       extension(security.RequestExtension, &security.RequestMatch{Paths: []*security.RequestPath{{}}}),
		"not that message":   {Name: security.RequestExtension, Config: &anypb.Any{TypeUrl: "type.googleapis.com/x"}},
		"of a later version": extension("ambit-mesh.io/later", &security.TunnelPeer{}),
	} {
		t.Run(name, func(t *testing.T) {
			for _, action := range []security.Action{security.Action_ALLOW, security.Action_DENY} {
				p, err := authz.Compile(&security.Authorization{
					Name: "l7", Namespace: "ns", Action: action,
					Rules: []*security.Rule{{Clauses: []*security.Clause{{Matches: []*security.Match{{DestinationPorts: []uint32{1}, Extensions: []*security.Extension{e}}}}}}},
				})
				if err == nil {
					t.Fatal("taken")
				}
				if d := authz.NewSet(p).For("ns", nil).DecideRequest(connection(), &authz.Request{Method: "GET"}); d.Allowed {
					t.Errorf("%s lets in what it cannot read", action)
				}
			}
		})
	}
}

// The guard of a service whose policies a waypoint enforces: what did not come
// through the waypoint is refused, whoever sent it, and named.
func TestOnlyThroughThePeer(t *testing.T) {
	const waypoint = "cluster.local/ns/ns/sa/wp"
	peers := func(field func(*security.Match, []*security.StringMatch)) []*security.Rule {
		m := &security.Match{DestinationPorts: []uint32{8080}, Extensions: []*security.Extension{extension(security.TunnelPeerExtension, &security.TunnelPeer{})}}
		field(m, []*security.StringMatch{exactly(waypoint)})
		return []*security.Rule{{Clauses: []*security.Clause{{Matches: []*security.Match{m}}}}}
	}
	guard, err := authz.Compile(&security.Authorization{
		Name: "guard", Namespace: "ns", Scope: security.Scope_WORKLOAD_SELECTOR, Action: security.Action_DENY,
		Rules:      peers(func(m *security.Match, l []*security.StringMatch) { m.NotPrincipals = l }),
		Extensions: []*security.Extension{extension(security.OriginExtension, &security.Origin{Kind: "AuthorizationPolicy", Namespace: "ns", Name: "read-only", Reason: "only through waypoint ns/wp"})},
	})
	if err != nil {
		t.Fatal(err)
	}
	opens, err := authz.Compile(&security.Authorization{
		Name: "opens", Namespace: "ns", Scope: security.Scope_WORKLOAD_SELECTOR,
		Rules:      peers(func(m *security.Match, l []*security.StringMatch) { m.Principals = l }),
		Extensions: []*security.Extension{extension(security.OriginExtension, &security.Origin{Optional: true})},
	})
	if err != nil {
		t.Fatal(err)
	}
	nothing, err := authz.Compile(&security.Authorization{Name: "nothing", Namespace: "ns", Scope: security.Scope_NAMESPACE})
	if err != nil {
		t.Fatal(err)
	}
	wp, err := identity.ParsePrincipal(waypoint)
	if err != nil {
		t.Fatal(err)
	}
	through, around, plaintext, otherPort := connection(), connection(), connection(), connection()
	through.Peer = wp
	plaintext.Source, plaintext.Peer = identity.ID{}, identity.ID{}
	otherPort.DestPort = 9090
	fromWaypoint := through
	fromWaypoint.Source = wp
	for _, tc := range []struct {
		name   string
		c      authz.Connection
		free   bool // with the guard alone
		locked bool // where the namespace allows nothing besides
	}{
		{"through the waypoint", through, true, true},
		{"the waypoint for itself", fromWaypoint, true, true},
		{"around it", around, false, false},
		{"plaintext", plaintext, false, false},
		{"another port", otherPort, true, false},
	} {
		free := authz.NewSet(guard, opens).For("ns", []string{"ns/guard", "ns/opens"}).Decide(tc.c)
		locked := authz.NewSet(guard, opens, nothing).For("ns", []string{"ns/guard", "ns/opens"}).Decide(tc.c)
		if free.Allowed != tc.free || locked.Allowed != tc.locked {
			t.Errorf("%s: %v and %v, want %v and %v (%s)", tc.name, free.Allowed, locked.Allowed, tc.free, tc.locked, free.Reason)
		}
		if !tc.free && free.Reason != "AuthorizationPolicy ns/read-only (policy ns/guard) denies it: only through waypoint ns/wp" {
			t.Errorf("%s: reason %q", tc.name, free.Reason)
		}
	}
}

// A request against 10,000 policies of ten rules each, all of the one service.
func BenchmarkDecideRequest(b *testing.B) {
	lookup := func(string) []string { return nil }
	for name, s := range map[string]struct {
		match   func(n int) *security.RequestMatch
		request authz.Request
	}{
		"path": {func(n int) *security.RequestMatch {
			return &security.RequestMatch{Methods: []string{"GET"}, Paths: []*security.RequestPath{{Type: &security.RequestPath_Exact{Exact: fmt.Sprintf("/api/v1/items/%d", n)}}}}
		}, authz.Request{Method: "GET", Path: "/api/v1/items/99999", Host: "shop.example.com"}},
		"prefix": {func(n int) *security.RequestMatch {
			return &security.RequestMatch{Methods: []string{"GET"}, Paths: []*security.RequestPath{{Type: &security.RequestPath_Prefix{Prefix: fmt.Sprintf("/api/v1/items/%d", n)}}}}
		}, authz.Request{Method: "GET", Path: "/api/v1/items/99999/reviews", Host: "shop.example.com"}},
		"host": {func(n int) *security.RequestMatch {
			return &security.RequestMatch{Hosts: []string{fmt.Sprintf("shop-%d.example.com", n)}, Methods: []string{"GET"}}
		}, authz.Request{Method: "GET", Path: "/", Host: "shop-99999.example.com:8080"}},
		"grpc": {func(n int) *security.RequestMatch {
			return &security.RequestMatch{GrpcMethods: []*security.RequestGRPC{{Service: fmt.Sprintf("shop.v1.Service%d", n), Method: "Get"}}}
		}, authz.Request{Method: "POST", Path: "/shop.v1.Service99999/Get", GRPCService: "shop.v1.Service99999", GRPCMethod: "Get"}},
	} {
		for _, action := range []security.Action{security.Action_ALLOW, security.Action_DENY} {
			b.Run(name+"/"+action.String(), func(b *testing.B) {
				e := authz.NewSet(benchRequests(b, action, s.match)...).For("ns", nil)
				r := s.request
				r.Header = lookup
				if action == security.Action_DENY { // none matches
					r.Path, r.Host, r.GRPCService = "/other"+r.Path, "other."+r.Host, "other"
				}
				c := connection()
				if d := e.DecideRequest(c, &r); !d.Allowed {
					b.Fatal(d.Reason)
				}
				b.ReportAllocs()
				for b.Loop() {
					e.DecideRequest(c, &r)
				}
			})
		}
	}
}

func benchRequests(tb testing.TB, action security.Action, match func(int) *security.RequestMatch) []*authz.Policy {
	tb.Helper()
	out := make([]*authz.Policy, benchPolicies)
	for p := range out {
		a := &security.Authorization{Name: fmt.Sprintf("p%d", p), Namespace: "ns", Action: action, Scope: security.Scope_NAMESPACE}
		for r := range benchRules {
			a.Rules = append(a.Rules, &security.Rule{Clauses: []*security.Clause{
				{Matches: []*security.Match{{NotDestinationPorts: []uint32{22}}}},
				{Matches: []*security.Match{{Extensions: []*security.Extension{extension(security.RequestExtension, match(p*benchRules+r))}}}},
			}})
		}
		compiled, err := authz.Compile(a)
		if err != nil {
			tb.Fatal(err)
		}
		out[p] = compiled
	}
	return out
}
