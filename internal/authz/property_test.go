package authz_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"pgregory.net/rapid"

	"github.com/ambit-mesh/ambit/apis/security"
	"github.com/ambit-mesh/ambit/internal/authz"
	"github.com/ambit-mesh/ambit/internal/identity"
)

// The alphabets are small, so that policies and connections meet.
var (
	names     = rapid.SampledFrom([]string{"a", "b", "ab"})
	domains   = rapid.SampledFrom([]string{"td", "td.x"})
	portsGen  = rapid.SampledFrom([]uint32{1, 2, 80})
	blocksGen = rapid.SampledFrom([]string{
		"0.0.0.0/0", "10.0.0.0/8", "10.0.0.1/32", "10.1.2.3/9", "::/0", "fd00::/8", "fd00::1/128",
		"::ffff:10.0.0.0/104", "::ffff:0.0.0.0/90",
	})
	addrsGen = rapid.SampledFrom([]netip.Addr{
		netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.200.0.1"), netip.MustParseAddr("192.0.2.1"),
		netip.MustParseAddr("fd00::1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::ffff:10.0.0.1"),
	})
)

func genID(t *rapid.T) identity.ID {
	if rapid.IntRange(0, 4).Draw(t, "anonymous") == 0 {
		return identity.ID{}
	}
	return identity.ID{
		TrustDomain:    domains.Draw(t, "td"),
		Namespace:      names.Draw(t, "namespace"),
		ServiceAccount: names.Draw(t, "account"),
	}
}

func genConnection(t *rapid.T) authz.Connection {
	return authz.Connection{
		Source:   genID(t),
		Peer:     genID(t),
		SourceIP: addrsGen.Draw(t, "from"),
		DestIP:   addrsGen.Draw(t, "to"),
		DestPort: uint16(portsGen.Draw(t, "port")),
	}
}

// genPrincipalText gives a principal, or the beginning or the end of one, mostly
// cut beside a slash.
func genPrincipalText(t *rapid.T) string {
	p := domains.Draw(t, "td") + "/ns/" + names.Draw(t, "namespace") + "/sa/" + names.Draw(t, "account")
	cuts := []int{rapid.IntRange(0, len(p)).Draw(t, "cut"), 0, len(p)}
	for i, r := range p {
		if r == '/' {
			cuts = append(cuts, i, i+1)
		}
	}
	cut := rapid.SampledFrom(cuts).Draw(t, "cut at")
	return rapid.SampledFrom([]string{p, p[:cut], p[cut:]}).Draw(t, "part")
}

// genStrings gives values of a string field; now and then one that cannot be
// read.
func genStrings(text func(*rapid.T) string) func(*rapid.T) []*security.StringMatch {
	return func(t *rapid.T) []*security.StringMatch {
		var out []*security.StringMatch
		for range rapid.IntRange(1, 2).Draw(t, "values") {
			m := &security.StringMatch{}
			switch rapid.IntRange(0, 30).Draw(t, "kind") {
			case 0:
			case 1, 2:
				m.MatchType = &security.StringMatch_Presence{Presence: &security.Empty{}}
			case 3, 4, 5, 6, 7:
				m.MatchType = &security.StringMatch_Prefix{Prefix: text(t)}
			case 8, 9, 10, 11, 12:
				m.MatchType = &security.StringMatch_Suffix{Suffix: text(t)}
			default:
				m.MatchType = &security.StringMatch_Exact{Exact: text(t)}
			}
			out = append(out, m)
		}
		return out
	}
}

func genBlocks(t *rapid.T) []*security.Address {
	var out []*security.Address
	for range rapid.SampledFrom([]int{1, 1, 2, 13}).Draw(t, "blocks") {
		p := netip.MustParsePrefix(blocksGen.Draw(t, "block"))
		length := uint32(p.Bits())
		if rapid.IntRange(0, 40).Draw(t, "bad") == 0 {
			length += 200
		}
		out = append(out, &security.Address{Address: p.Addr().AsSlice(), Length: length})
	}
	return out
}

func genPorts(t *rapid.T) []uint32 {
	return rapid.SliceOfN(portsGen, 1, 2).Draw(t, "ports")
}

func genAccounts(t *rapid.T) []*security.ServiceAccountMatch {
	return []*security.ServiceAccountMatch{{Namespace: names.Draw(t, "namespace"), ServiceAccount: names.Draw(t, "account")}}
}

func genMatch(t *rapid.T) *security.Match {
	m := &security.Match{}
	set := func(label string) bool { return rapid.IntRange(0, 5).Draw(t, label) == 0 }
	name := func(t *rapid.T) string { return rapid.SampledFrom([]string{"a", "b", "ab", ""}).Draw(t, "text") }
	if set("principals") {
		m.Principals = genStrings(genPrincipalText)(t)
	}
	if set("not principals") {
		m.NotPrincipals = genStrings(genPrincipalText)(t)
	}
	if set("namespaces") {
		m.Namespaces = genStrings(name)(t)
	}
	if set("not namespaces") {
		m.NotNamespaces = genStrings(name)(t)
	}
	if set("source ips") {
		m.SourceIps = genBlocks(t)
	}
	if set("not source ips") {
		m.NotSourceIps = genBlocks(t)
	}
	if set("destination ips") {
		m.DestinationIps = genBlocks(t)
	}
	if set("not destination ips") {
		m.NotDestinationIps = genBlocks(t)
	}
	if set("ports") {
		m.DestinationPorts = genPorts(t)
	}
	if set("not ports") {
		m.NotDestinationPorts = genPorts(t)
	}
	if set("accounts") {
		m.ServiceAccounts = genAccounts(t)
	}
	if set("not accounts") {
		m.NotServiceAccounts = genAccounts(t)
	}
	if set("of the peer") {
		m.Extensions = append(m.Extensions, extension(security.TunnelPeerExtension, &security.TunnelPeer{}))
	}
	if set("request") || set("request again") {
		m.Extensions = append(m.Extensions, extension(security.RequestExtension, genRequestMatch(t)))
	}
	if rapid.IntRange(0, 200).Draw(t, "unknown extension") == 0 {
		m.Extensions = append(m.Extensions, extension("ambit-mesh.io/later", &security.TunnelPeer{}))
	}
	return m
}

func genAuthorization(t *rapid.T) *security.Authorization {
	a := &security.Authorization{
		Namespace: rapid.SampledFrom([]string{"a", "b", "root"}).Draw(t, "in"),
		Name:      fmt.Sprintf("p%d", rapid.IntRange(0, 5).Draw(t, "name")),
		Scope:     security.Scope(rapid.SampledFrom([]int32{0, 1, 1, 1, 2, 2, 2, 9}).Draw(t, "scope")),
		Action:    security.Action(rapid.SampledFrom([]int32{0, 0, 0, 0, 0, 1, 1, 1, 7}).Draw(t, "action")),
		DryRun:    rapid.IntRange(0, 5).Draw(t, "dry run") == 0,
	}
	if rapid.IntRange(0, 5).Draw(t, "optional") == 0 {
		a.Extensions = append(a.Extensions, extension(security.OriginExtension, &security.Origin{Optional: true}))
	}
	for range rapid.IntRange(0, 3).Draw(t, "rules") {
		r := &security.Rule{}
		for range rapid.SampledFrom([]int{0, 1, 1, 1, 2, 2, 3}).Draw(t, "clauses") {
			c := &security.Clause{}
			for range rapid.SampledFrom([]int{0, 1, 1, 1, 1, 2, 3}).Draw(t, "matches") {
				c.Matches = append(c.Matches, genMatch(t))
			}
			r.Clauses = append(r.Clauses, c)
		}
		a.Rules = append(a.Rules, r)
	}
	return a
}

func compile(all []*security.Authorization) []*authz.Policy {
	out := make([]*authz.Policy, len(all))
	for i, a := range all {
		// An error is expected of some; the policy is enforced all the same.
		out[i], _ = authz.Compile(a)
	}
	return out
}

func verdictOf(d authz.Decision) slowVerdict {
	v := slowVerdict{allowed: d.Allowed, policy: d.Policy.String(), rule: d.Rule}
	for _, a := range d.Audits {
		v.audits = append(v.audits, a.Policy.String())
	}
	return v
}

// The evaluator and the slow reference agree on every policy set and every
// connection: on the verdict, on the policy and rule that made it, and on what
// is audited.
func TestEvaluatorAgreesWithReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Custom(genAuthorization), 0, 8).Draw(t, "policies")
		var selected []string
		for _, a := range all {
			if a.Scope == security.Scope_WORKLOAD_SELECTOR && rapid.Bool().Draw(t, "listed") {
				selected = append(selected, a.Namespace+"/"+a.Name)
			}
		}
		lacks := rapid.IntRange(0, 20).Draw(t, "lacks one") == 0
		if lacks {
			selected = append(selected, "a/unknown")
		}
		namespace := names.Draw(t, "workload namespace")
		evaluator := authz.NewSet(compile(all)...).For(namespace, selected)
		for range 8 {
			c, r := genConnection(t), genRequest(t)
			want := slow(all, namespace, selected, c, r)
			var got authz.Decision
			if r == nil {
				got = evaluator.Decide(c)
			} else {
				got = evaluator.DecideRequest(c, r)
			}
			if lacks {
				want.policy = "a/unknown"
			}
			if diff := cmp.Diff(want, verdictOf(got), cmp.AllowUnexported(slowVerdict{})); diff != "" {
				for _, a := range all {
					t.Log(prototext.Format(a))
				}
				t.Fatalf("%+v %+v to a workload of %q listing %v (-reference +evaluator):\n%s", c, r, namespace, selected, diff)
			}
			if got.Allowed == (got.Reason != "") {
				t.Fatalf("allowed %v with reason %q", got.Allowed, got.Reason)
			}
		}
	})
}

// A snapshot that came about by changes decides as one made at once.
func TestChangesAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set, want := authz.NewSet(), map[authz.Key]*authz.Policy{}
		for range rapid.IntRange(1, 6).Draw(t, "changes") {
			all := rapid.SliceOfN(rapid.Custom(genAuthorization), 0, 4).Draw(t, "updated")
			updated := compile(all)
			var removed []authz.Key
			for k := range want {
				if rapid.Bool().Draw(t, "remove") {
					removed = append(removed, k)
				}
			}
			set = set.With(updated, removed)
			for _, k := range removed {
				delete(want, k)
			}
			for _, p := range updated {
				want[p.Key()] = p
			}
			compareSets(t, set, want)
		}
	})
}

func compareSets(t *rapid.T, set *authz.Set, want map[authz.Key]*authz.Policy) {
	var all []*authz.Policy
	for k, p := range want {
		all = append(all, p)
		if got, _ := set.Get(k); got != p {
			t.Fatalf("Get(%s) gives another policy", k)
		}
	}
	if set.Len() != len(want) {
		t.Fatalf("has %d policies, want %d", set.Len(), len(want))
	}
	fresh := authz.NewSet(all...)
	for _, namespace := range []string{"a", "b", "ab"} {
		selected := []string{"a/p0", "b/p1"}
		c := genConnection(t)
		got, ref := set.For(namespace, selected).Decide(c), fresh.For(namespace, selected).Decide(c)
		if diff := cmp.Diff(ref, got); diff != "" {
			t.Fatalf("namespace %s (-at once +by changes):\n%s", namespace, diff)
		}
	}
}
