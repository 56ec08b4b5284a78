package authz_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ambit-mesh/ambit/apis/security"
	"github.com/ambit-mesh/ambit/internal/authz"
	"github.com/ambit-mesh/ambit/internal/identity"
)

func web() identity.ID {
	return identity.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "web"}
}

func from(id identity.ID) authz.Connection {
	return authz.Connection{
		Source: id, SourceIP: netip.MustParseAddr("10.0.0.1"),
		DestIP: netip.MustParseAddr("10.0.0.2"), DestPort: 8080,
	}
}

// allow and deny make a policy of namespace shop with one rule for one
// principal; "" is a rule for everybody.
func policy(name string, action security.Action, scope security.Scope, principal string) *security.Authorization {
	rule := &security.Rule{}
	if principal != "" {
		rule.Clauses = []*security.Clause{{Matches: []*security.Match{{Principals: []*security.StringMatch{exactly(principal)}}}}}
	}
	return &security.Authorization{Name: name, Namespace: "shop", Action: action, Scope: scope, Rules: []*security.Rule{rule}}
}

func withOrigin(a *security.Authorization, o *security.Origin) *security.Authorization {
	config, err := anypb.New(o)
	if err != nil {
		panic(err)
	}
	a.Extensions = append(a.Extensions, &security.Extension{Name: security.OriginExtension, Config: config})
	return a
}

const (
	allow     = security.Action_ALLOW
	deny      = security.Action_DENY
	global    = security.Scope_GLOBAL
	namespace = security.Scope_NAMESPACE
	listed    = security.Scope_WORKLOAD_SELECTOR
	webID     = "cluster.local/ns/shop/sa/web"
	rootNS    = "ambit-system"
)

func TestDecide(t *testing.T) {
	inRoot := func(a *security.Authorization) *security.Authorization { a.Namespace = rootNS; return a }
	tests := map[string]struct {
		policies []*security.Authorization
		in       string
		selected []string
		c        authz.Connection
		want     authz.Decision
	}{
		"nothing is said": {
			want: authz.Decision{Allowed: true, Rule: authz.NoRule},
		},
		"an ALLOW rule matches": {
			policies: []*security.Authorization{policy("allow-web", allow, namespace, webID)},
			want:     authz.Decision{Allowed: true, Policy: authz.Key{Namespace: "shop", Name: "allow-web"}},
		},
		"no ALLOW rule matches": {
			policies: []*security.Authorization{
				policy("allow-api", allow, namespace, "cluster.local/ns/shop/sa/api"),
				withOrigin(policy("allow-db", allow, listed, "cluster.local/ns/shop/sa/db"),
					&security.Origin{Kind: "AuthorizationPolicy", Namespace: "shop", Name: "allow-db"}),
			},
			selected: []string{"shop/allow-db"},
			want: authz.Decision{
				Rule:   authz.NoRule,
				Reason: "no rule allowed it: considered policy shop/allow-api, AuthorizationPolicy shop/allow-db",
			},
		},
		"DENY comes before ALLOW": {
			policies: []*security.Authorization{
				policy("allow-all", allow, namespace, ""),
				withOrigin(policy("deny-web", deny, namespace, webID), &security.Origin{
					Kind: "AuthorizationPolicy", Namespace: "shop", Name: "deny-web", RuleNames: []string{"no-web"},
				}),
			},
			want: authz.Decision{
				Policy: authz.Key{Namespace: "shop", Name: "deny-web"}, RuleName: "no-web",
				Reason: `AuthorizationPolicy shop/deny-web denies it by rule "no-web"`,
			},
		},
		"an unnamed rule is called by its position": {
			policies: []*security.Authorization{policy("deny-web", deny, namespace, webID)},
			want: authz.Decision{
				Policy: authz.Key{Namespace: "shop", Name: "deny-web"},
				Reason: "policy shop/deny-web denies it by rule 0",
			},
		},
		"a global policy reaches every namespace": {
			policies: []*security.Authorization{inRoot(policy("deny-all", deny, global, ""))},
			want: authz.Decision{
				Policy: authz.Key{Namespace: rootNS, Name: "deny-all"}, Reason: "policy ambit-system/deny-all denies it by rule 0",
			},
		},
		"a policy of another namespace does not": {
			policies: []*security.Authorization{policy("deny-all", deny, namespace, "")},
			in:       "bank",
			want:     authz.Decision{Allowed: true, Rule: authz.NoRule},
		},
		"a policy of the root namespace stays there unless it is global": {
			policies: []*security.Authorization{inRoot(policy("deny-all", deny, namespace, ""))},
			want:     authz.Decision{Allowed: true, Rule: authz.NoRule},
		},
		"a policy for a selector needs to be listed": {
			policies: []*security.Authorization{policy("deny-all", deny, listed, "")},
			want:     authz.Decision{Allowed: true, Rule: authz.NoRule},
		},
		"a listed policy that is not known lets nothing in": {
			policies: []*security.Authorization{policy("allow-all", allow, namespace, "")},
			selected: []string{"shop/late"},
			want: authz.Decision{
				Policy: authz.Key{Namespace: "shop", Name: "late"}, Rule: authz.NoRule,
				Reason: "the workload lists policy shop/late, which has not been received; nothing is let in without it",
			},
		},
		"an ALLOW policy without rules": {
			policies: []*security.Authorization{{Name: "nothing", Namespace: "shop", Scope: namespace}},
			want:     authz.Decision{Rule: authz.NoRule, Reason: "no rule allowed it: considered policy shop/nothing"},
		},
		"a DENY policy without rules": {
			policies: []*security.Authorization{{Name: "nothing", Namespace: "shop", Scope: namespace, Action: deny}},
			want:     authz.Decision{Allowed: true, Rule: authz.NoRule},
		},
		"a refused ALLOW policy says why it allows nothing": {
			policies: []*security.Authorization{withOrigin(
				&security.Authorization{Name: "l7", Namespace: "shop", Scope: namespace},
				&security.Origin{Kind: "AuthorizationPolicy", Namespace: "shop", Name: "l7", Refusal: "spec.rules[0].application: needs a waypoint"})},
			want: authz.Decision{
				Rule: authz.NoRule,
				Reason: "no rule allowed it: considered AuthorizationPolicy shop/l7 (allows nothing, because it cannot be enforced as written: " +
					"spec.rules[0].application: needs a waypoint)",
			},
		},
		"a refused DENY policy says why it denies everything": {
			policies: []*security.Authorization{withOrigin(policy("l7", deny, namespace, ""),
				&security.Origin{Kind: "AuthorizationPolicy", Namespace: "shop", Name: "l7", Refusal: "spec.rules[0].application: needs a waypoint"})},
			want: authz.Decision{
				Policy: authz.Key{Namespace: "shop", Name: "l7"},
				Reason: "AuthorizationPolicy shop/l7 denies everything, because it cannot be enforced as written: spec.rules[0].application: needs a waypoint",
			},
		},
		"a policy made from another object names that object": {
			policies: []*security.Authorization{withOrigin(policy("converted_peer_authentication_db", deny, listed, ""),
				&security.Origin{Kind: "PeerAuthentication", Namespace: "shop", Name: "db", RuleNames: []string{"not-mutual-tls"}})},
			selected: []string{"shop/converted_peer_authentication_db"},
			want: authz.Decision{
				Policy: authz.Key{Namespace: "shop", Name: "converted_peer_authentication_db"}, RuleName: "not-mutual-tls",
				Reason: `PeerAuthentication shop/db (policy shop/converted_peer_authentication_db) denies it by rule "not-mutual-tls"`,
			},
		},
		"an AUDIT policy is reported and changes nothing": {
			policies: []*security.Authorization{withOrigin(
				func() *security.Authorization { a := policy("watch", deny, namespace, ""); a.DryRun = true; return a }(),
				&security.Origin{Audit: true, RuleNames: []string{"anybody"}})},
			want: authz.Decision{Allowed: true, Rule: authz.NoRule, Audits: []authz.AuditMatch{
				{Policy: authz.Key{Namespace: "shop", Name: "watch"}, Action: authz.Audit, RuleName: "anybody"},
			}},
		},
		"a dry run is reported under its own action": {
			policies: []*security.Authorization{
				func() *security.Authorization { a := policy("try", deny, namespace, webID); a.DryRun = true; return a }(),
				policy("deny-all", deny, namespace, ""),
			},
			want: authz.Decision{
				Policy: authz.Key{Namespace: "shop", Name: "deny-all"}, Reason: "policy shop/deny-all denies it by rule 0",
				Audits: []authz.AuditMatch{{Policy: authz.Key{Namespace: "shop", Name: "try"}, Action: authz.Deny}},
			},
		},
		"a connection without addresses is not judged by policies that may ask for them": {
			policies: []*security.Authorization{policy("allow-all", allow, namespace, "")},
			c:        authz.Connection{Source: web(), DestPort: 80},
			want: authz.Decision{
				Rule:   authz.NoRule,
				Reason: "the addresses of the connection are not known, and there are policies that may ask for them",
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var compiled []*authz.Policy
			for _, a := range tt.policies {
				p, err := authz.Compile(a)
				if err != nil {
					t.Fatal(err)
				}
				compiled = append(compiled, p)
			}
			if tt.in == "" {
				tt.in = "shop"
			}
			if tt.c == (authz.Connection{}) {
				tt.c = from(web())
			}
			got := authz.NewSet(compiled...).For(tt.in, tt.selected).Decide(tt.c)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// What cannot be read opens nothing and is reported with its place.
func TestUnreadablePolicies(t *testing.T) {
	bad := func(m *security.Match) []*security.Rule {
		fine := &security.Rule{Clauses: []*security.Clause{{Matches: []*security.Match{{DestinationPorts: []uint32{1}}}}}}
		return []*security.Rule{fine, {Clauses: []*security.Clause{{Matches: []*security.Match{m}}}}}
	}
	tests := map[string]struct {
		a    *security.Authorization
		want string
	}{
		"action":       {&security.Authorization{Action: 7}, "action: 7 is not known"},
		"scope":        {&security.Authorization{Scope: 7}, "scope: 7 is not known"},
		"kind":         {&security.Authorization{Rules: bad(&security.Match{NotPrincipals: []*security.StringMatch{{}}})}, "rules[1].clauses[0].matches[0].not_principals[0]: kind of match is not known"},
		"address":      {&security.Authorization{Rules: bad(&security.Match{SourceIps: []*security.Address{{Address: []byte{1, 2, 3}}}})}, "source_ips[0]: an address has 4 or 16 bytes, not 3"},
		"length":       {&security.Authorization{Rules: bad(&security.Match{NotDestinationIps: []*security.Address{{Address: []byte{1, 2, 3, 4}, Length: 33}}})}, "not_destination_ips[0]: prefix length 33 is more than 32"},
		"huge length":  {&security.Authorization{Rules: bad(&security.Match{SourceIps: []*security.Address{{Address: make([]byte, 16), Length: 1<<32 - 1}}})}, "is more than 128"},
		"port":         {&security.Authorization{Rules: bad(&security.Match{DestinationPorts: []uint32{65536}})}, "destination_ports[0]: 65536 is not a port"},
		"bad origin":   {&security.Authorization{Extensions: []*security.Extension{{Name: security.OriginExtension, Config: &anypb.Any{TypeUrl: "x/y"}}}}, "extensions[ambit-mesh.io/origin]"},
		"empty origin": {&security.Authorization{Extensions: []*security.Extension{{Name: security.OriginExtension}}}, "extensions[ambit-mesh.io/origin]"},
	}
	for name, tt := range tests {
		for _, action := range []security.Action{allow, deny} {
			t.Run(name+"/"+action.String(), func(t *testing.T) {
				tt.a.Name, tt.a.Namespace = "p", "shop"
				if tt.a.Action != 7 {
					tt.a.Action = action
				}
				p, err := authz.Compile(tt.a)
				if !errors.Is(err, authz.ErrMalformed) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "shop/p") {
					t.Errorf("error %v, want one with %q", err, tt.want)
				}
				d := authz.NewSet(p).For("shop", nil).Decide(from(web()))
				if d.Allowed || !strings.Contains(d.Reason, "cannot be enforced as written") || !strings.Contains(d.Reason, tt.want) {
					t.Errorf("decision %+v", d)
				}
			})
		}
	}
	if p, err := authz.Compile(nil); p != nil || err == nil {
		t.Errorf("nil compiles to %v, %v", p, err)
	}
}

// An unreadable dry run decides as little as a readable one.
func TestUnreadableDryRun(t *testing.T) {
	p, err := authz.Compile(&security.Authorization{Name: "p", Namespace: "shop", Action: deny, DryRun: true, Rules: []*security.Rule{
		{Clauses: []*security.Clause{{Matches: []*security.Match{{DestinationPorts: []uint32{65536}}}}}},
	}})
	if err == nil {
		t.Error("no error")
	}
	if d := authz.NewSet(p).For("shop", nil).Decide(from(web())); !d.Allowed {
		t.Errorf("decision %+v", d)
	}
}

// Reasons name so many policies and no more.
func TestReasonsAreBounded(t *testing.T) {
	var all []*security.Authorization
	var missing []string
	for _, n := range strings.Fields("a b c d e f g") {
		all = append(all, policy("allow-"+n, allow, namespace, "x/ns/y/sa/z"))
		missing = append(missing, "shop/lost-"+n)
	}
	set := authz.NewSet(compile(all)...)
	d := set.For("shop", nil).Decide(from(web()))
	if want := "considered policy shop/allow-a, policy shop/allow-b, policy shop/allow-c, policy shop/allow-d and 3 more"; !strings.Contains(d.Reason, want) {
		t.Errorf("reason %q, want %q", d.Reason, want)
	}
	d = set.For("shop", missing).Decide(from(web()))
	if want := "shop/lost-d and 3 more"; !strings.Contains(d.Reason, want) {
		t.Errorf("reason %q, want %q", d.Reason, want)
	}
}

// The evaluator of a workload stays the same object exactly as long as none of
// the workload's policies changes.
func TestEvaluatorsSurviveChangesElsewhere(t *testing.T) {
	set := authz.NewSet(compile([]*security.Authorization{
		policy("allow-web", allow, namespace, webID), policy("db", allow, listed, webID),
	})...)
	elsewhere := policy("x", deny, namespace, "")
	elsewhere.Namespace = "bank"
	strict := policy("istio_converted_static_strict", deny, listed, "")
	strict.Namespace = rootNS
	selected := []string{"shop/db", rootNS + "/istio_converted_static_strict"}
	changes := []struct {
		name    string
		updated *security.Authorization
		removed []authz.Key
		same    bool
	}{
		{"another namespace", elsewhere, nil, true},
		{"a policy that is listed arrives", strict, nil, false},
		{"a policy that is not listed", policy("other", deny, listed, ""), nil, true},
		{"a policy of the namespace", policy("allow-api", allow, namespace, webID), nil, false},
		{"a global policy", policy("mesh", allow, global, webID), nil, false},
		{"a listed policy goes", nil, []authz.Key{{Namespace: "shop", Name: "db"}}, false},
		{"an unknown policy goes", nil, []authz.Key{{Namespace: "shop", Name: "never"}}, true},
	}
	for _, c := range changes {
		before := set.For("shop", selected)
		var updated []*authz.Policy
		if c.updated != nil {
			updated = compile([]*security.Authorization{c.updated})
		}
		set = set.With(updated, c.removed)
		if after := set.For("shop", selected); (after == before) != c.same {
			t.Errorf("%s: same evaluator %v, want %v", c.name, after == before, c.same)
		}
	}
}

func TestAllowingDoesNotAllocate(t *testing.T) {
	set := authz.NewSet(compile([]*security.Authorization{
		policy("allow-web", allow, namespace, webID), policy("deny-api", deny, global, "x/ns/y/sa/z"),
		{Name: "blocks", Namespace: "shop", Action: deny, Rules: []*security.Rule{{Clauses: []*security.Clause{{Matches: []*security.Match{
			{SourceIps: []*security.Address{{Address: []byte{10, 0, 0, 0}, Length: 8}}, DestinationPorts: []uint32{1}},
		}}}}}},
	})...)
	e := set.For("shop", nil)
	c := from(web())
	if n := testing.AllocsPerRun(100, func() {
		if !e.Decide(c).Allowed {
			t.Error("denied")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { set.For("shop", nil) }); n > 1 {
		t.Errorf("%v allocations to find an evaluator", n)
	}
}
