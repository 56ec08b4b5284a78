package authz_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/ambit-mesh/ambit/apis/security"
	"github.com/ambit-mesh/ambit/internal/authz"
	"github.com/ambit-mesh/ambit/internal/identity"
)

const (
	benchPolicies = 10_000
	benchRules    = 10
)

// shape makes rule r of policy p, numbered through in n.
type shape func(n, p, r int) *security.Match

func byPrincipal(n, _, _ int) *security.Match {
	return &security.Match{Principals: []*security.StringMatch{exactly(fmt.Sprintf("cluster.local/ns/client-%d/sa/app", n))}}
}

func byAccount(n, _, _ int) *security.Match {
	return &security.Match{ServiceAccounts: []*security.ServiceAccountMatch{{Namespace: fmt.Sprintf("client-%d", n), ServiceAccount: "app"}}}
}

func byNamespace(n, _, _ int) *security.Match {
	return &security.Match{Namespaces: []*security.StringMatch{exactly(fmt.Sprintf("client-%d", n))}}
}

func byNamespacePrefix(n, _, _ int) *security.Match {
	return &security.Match{Principals: []*security.StringMatch{{MatchType: &security.StringMatch_Prefix{Prefix: fmt.Sprintf("cluster.local/ns/client-%d/sa/", n)}}}}
}

func byBlock(n, _, _ int) *security.Match {
	return &security.Match{SourceIps: []*security.Address{{Address: []byte{11, byte(n >> 16), byte(n >> 8), byte(n)}, Length: 32}}}
}

// bySamePrincipal tells the rules apart by port alone.
func bySamePrincipal(n, _, _ int) *security.Match {
	m := byPrincipal(7, 0, 0)
	m.DestinationPorts = []uint32{1000 + uint32(n)%60000}
	return m
}

func exactly(s string) *security.StringMatch {
	return &security.StringMatch{MatchType: &security.StringMatch_Exact{Exact: s}}
}

func benchSet(tb testing.TB, policies int, action security.Action, scope security.Scope, namespace func(p int) string, s shape) []*authz.Policy {
	tb.Helper()
	out := make([]*authz.Policy, policies)
	for p := range policies {
		a := &security.Authorization{Name: fmt.Sprintf("p%d", p), Namespace: namespace(p), Action: action, Scope: scope}
		for r := range benchRules {
			a.Rules = append(a.Rules, &security.Rule{Clauses: []*security.Clause{
				{Matches: []*security.Match{s(p*benchRules+r, p, r)}},
				{Matches: []*security.Match{{NotDestinationPorts: []uint32{22}}}},
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

func client(n int) authz.Connection {
	return authz.Connection{
		Source:   identity.ID{TrustDomain: "cluster.local", Namespace: fmt.Sprintf("client-%d", n), ServiceAccount: "app"},
		SourceIP: netip.AddrFrom4([4]byte{11, byte(n >> 16), byte(n >> 8), byte(n)}),
		DestIP:   netip.MustParseAddr("10.0.0.2"), DestPort: 8080,
	}
}

// Policies of other namespaces: ten concern the workload, whatever there is
// besides.
func BenchmarkDecideAmongOthers(b *testing.B) {
	for _, n := range []int{10, 100, 1000, benchPolicies} {
		b.Run(fmt.Sprintf("policies=%d", n), func(b *testing.B) {
			spread := func(p int) string { return fmt.Sprintf("ns-%d", p/10) }
			set := authz.NewSet(benchSet(b, n, security.Action_ALLOW, security.Scope_NAMESPACE, spread, byPrincipal)...)
			decide(b, set.For("ns-0", nil), client(99), true)
		})
	}
}

// All policies concern the workload. The connection matches the last rule, or
// none.
func BenchmarkDecideAllConcern(b *testing.B) {
	same := func(int) string { return "ns" }
	last := benchPolicies*benchRules - 1
	for _, c := range []struct {
		name string
		s    shape
	}{
		{"principal", byPrincipal},
		{"account", byAccount},
		{"namespace", byNamespace},
		{"prefix", byNamespacePrefix},
		{"block", byBlock},
	} {
		allow := authz.NewSet(benchSet(b, benchPolicies, security.Action_ALLOW, security.Scope_NAMESPACE, same, c.s)...).For("ns", nil)
		b.Run(c.name+"/allow-matches", func(b *testing.B) { decide(b, allow, client(last), true) })
		b.Run(c.name+"/allow-none-matches", func(b *testing.B) { decide(b, allow, client(last+1), false) })
		deny := authz.NewSet(benchSet(b, benchPolicies, security.Action_DENY, security.Scope_GLOBAL, same, c.s)...).For("ns", nil)
		b.Run(c.name+"/deny-none-matches", func(b *testing.B) { decide(b, deny, client(last+1), true) })
	}
}

// All policies concern the workload and name the same client, each for a port
// of its own.
func BenchmarkDecideOnePrincipalManyPorts(b *testing.B) {
	same := func(int) string { return "ns" }
	e := authz.NewSet(benchSet(b, benchPolicies, security.Action_ALLOW, security.Scope_NAMESPACE, same, bySamePrincipal)...).For("ns", nil)
	c := client(7)
	c.DestPort = 60000
	decide(b, e, c, true)
}

func decide(b *testing.B, e *authz.Evaluator, c authz.Connection, want bool) {
	b.Helper()
	if d := e.Decide(c); d.Allowed != want {
		b.Fatalf("allowed %v: %s", d.Allowed, d.Reason)
	}
	b.ReportAllocs()
	for b.Loop() {
		e.Decide(c)
	}
}

// One policy changes among many, and the workload it concerns asks again.
func BenchmarkChangeOnePolicy(b *testing.B) {
	spread := func(p int) string { return fmt.Sprintf("ns-%d", p/10) }
	all := benchSet(b, benchPolicies, security.Action_ALLOW, security.Scope_NAMESPACE, spread, byPrincipal)
	set := authz.NewSet(all...)
	set.For("ns-5", nil)
	b.ReportAllocs()
	for b.Loop() {
		set = set.With(all[50:51], nil)
		set.For("ns-5", nil)
	}
}

func BenchmarkFirstIndexOfAllConcern(b *testing.B) {
	same := func(int) string { return "ns" }
	all := benchSet(b, benchPolicies, security.Action_ALLOW, security.Scope_NAMESPACE, same, byPrincipal)
	for b.Loop() {
		authz.NewSet(all...).For("ns", nil)
	}
}
