package policy_test

import (
	"net/netip"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/controlplane/compile/policy"
	"github.com/ambit-mesh/ambit/internal/authz"
	"github.com/ambit-mesh/ambit/internal/identity"
)

func peer(t *testing.T, who string) authz.Connection {
	t.Helper()
	id, address, _ := strings.Cut(who, "@")
	c := authz.Connection{SourceIP: netip.MustParseAddr("10.0.0.1"), DestIP: netip.MustParseAddr("10.9.9.9"), DestPort: 8080}
	if address != "" {
		c.SourceIP = netip.MustParseAddr(address)
	}
	if id != "anonymous" {
		var err error
		if c.Source, err = identity.ParsePrincipal(id); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// What a policy as written lets in, all the way to a node's decision. A peer is
// <principal or anonymous>[@<address>].
func TestWhatRulesMean(t *testing.T) {
	const (
		web      = "cluster.local/ns/shop/sa/web"
		api      = "cluster.local/ns/shop/sa/api"
		teller   = "cluster.local/ns/bank/sa/teller"
		stranger = "other.org/ns/shop/sa/web"
		nobody   = "anonymous"
	)
	tests := map[string]struct {
		rule    string
		matches []string
		others  []string
	}{
		"a service account is one of the mesh's own trust domain": {
			rule:    `{sources: [{type: ServiceAccount, serviceAccount: {name: web}}]}`,
			matches: []string{web}, others: []string{api, teller, stranger, nobody},
		},
		"all service accounts of a namespace": {
			rule:    `{sources: [{type: ServiceAccount, serviceAccount: {namespace: shop, name: "*"}}]}`,
			matches: []string{web, api}, others: []string{teller, stranger, nobody},
		},
		"a namespace is one of any trust domain": {
			rule:    `{sources: [{type: Namespace, namespace: shop}]}`,
			matches: []string{web, api, stranger}, others: []string{teller, nobody},
		},
		"anybody with an identity": {
			rule:    `{sources: [{type: SPIFFE, spiffe: "spiffe://*"}]}`,
			matches: []string{web, teller, stranger}, others: []string{nobody},
		},
		"a prefix": {
			rule:    `{sources: [{type: SPIFFE, spiffe: "spiffe://cluster.local/ns/shop/*"}]}`,
			matches: []string{web, api}, others: []string{teller, stranger, nobody},
		},
		"a suffix": {
			rule:    `{sources: [{type: SPIFFE, spiffe: "spiffe://*/sa/web"}]}`,
			matches: []string{web, stranger}, others: []string{api, teller, nobody},
		},
		"an address block needs no identity": {
			rule:    `{sources: [{type: AddressBlock, addressBlock: 192.0.2.0/24}]}`,
			matches: []string{nobody + "@192.0.2.9", web + "@192.0.2.9"}, others: []string{web, nobody},
		},
		"an identity from a block": {
			rule:    `{sources: [{type: Namespace, namespace: shop, addressBlock: 192.0.2.0/24}]}`,
			matches: []string{web + "@192.0.2.9"}, others: []string{web, teller + "@192.0.2.9", nobody + "@192.0.2.9"},
		},
		"sources are alternatives": {
			rule:    `{sources: [{type: ServiceAccount, serviceAccount: {name: api}}, {type: Namespace, namespace: bank}, {type: AddressBlock, addressBlock: 192.0.2.7}]}`,
			matches: []string{api, teller, nobody + "@192.0.2.7"}, others: []string{web, nobody},
		},
		"an empty list of sources": {
			rule:   `{sources: []}`,
			others: []string{web, nobody},
		},
		"no part at all": {
			rule:    `{}`,
			matches: []string{web, nobody},
		},
		"none of the excluded": {
			rule:    `{notSources: [{type: ServiceAccount, serviceAccount: {name: web}}, {type: Namespace, namespace: bank}]}`,
			matches: []string{api, stranger, nobody}, others: []string{web, teller},
		},
		"excluded only from a block": {
			rule:    `{notSources: [{type: ServiceAccount, serviceAccount: {name: web}, addressBlock: 192.0.2.0/24}]}`,
			matches: []string{web, api + "@192.0.2.9", nobody + "@192.0.2.9"}, others: []string{web + "@192.0.2.9"},
		},
		"from some but not from others": {
			rule:    `{sources: [{type: Namespace, namespace: shop}], notSources: [{type: SPIFFE, spiffe: "spiffe://*/sa/web"}]}`,
			matches: []string{api}, others: []string{web, stranger, teller, nobody},
		},
		"nobody without an identity": {
			rule:    `{notSources: [{type: SPIFFE, spiffe: "spiffe://*"}]}`,
			matches: []string{nobody}, others: []string{web},
		},
		"a port": {
			rule:    `{networkAttributes: {ports: [8080]}}`,
			matches: []string{web, nobody},
		},
		"another port": {
			rule:   `{networkAttributes: {ports: [80]}}`,
			others: []string{web, nobody},
		},
		"not that port": {
			rule:   `{sources: [{type: Namespace, namespace: shop}], networkAttributes: {notPorts: [8080]}}`,
			others: []string{web, nobody},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, action := range []v1alpha1.AuthorizationPolicyAction{v1alpha1.ActionAllow, v1alpha1.ActionDeny} {
				p := &v1alpha1.AuthorizationPolicy{}
				text := "metadata: {name: p, namespace: shop}\nspec: {targetRefs: [{kind: Namespace}], action: " + string(action) + ", rules: [" + tt.rule + "]}"
				if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
					t.Fatal(err)
				}
				tr := policy.Translate(p, nil, policy.Options{})
				if len(tr.Problems) > 0 {
					t.Fatal(tr.Problems)
				}
				compiled, err := authz.Compile(tr.Authorization)
				if err != nil {
					t.Fatal(err)
				}
				e := authz.NewSet(compiled).For("shop", nil)
				for i, who := range append(append([]string{}, tt.matches...), tt.others...) {
					want := (i < len(tt.matches)) == (action == v1alpha1.ActionAllow)
					if d := e.Decide(peer(t, who)); d.Allowed != want {
						t.Errorf("%s %s: allowed %v (%s)", action, who, d.Allowed, d.Reason)
					}
				}
			}
		})
	}
}

// Whatever stands in a source: it is refused, or node proxies can enforce it.
func FuzzSource(f *testing.F) {
	f.Add("spiffe://cluster.local/ns/shop/sa/web", "10.0.0.0/8", "web")
	f.Add("spiffe://*", "fd00::1", "*")
	f.Add("spiffe://td/*", "::ffff:10.0.0.1", "a.b")
	f.Add("spiffe://*/sa/web", "10.0.0.1%eth0", "")
	f.Add("spiffe://td*", "fe80::1%eth0/64", "A")
	f.Fuzz(func(t *testing.T, spiffe, block, account string) {
		sources := []v1alpha1.AuthorizationSource{
			{Type: v1alpha1.SourceSPIFFE, SPIFFE: spiffe},
			{Type: v1alpha1.SourceAddressBlock, AddressBlock: block},
			{Type: v1alpha1.SourceServiceAccount, ServiceAccount: &v1alpha1.AuthorizationSourceServiceAccount{Name: account}, AddressBlock: block},
		}
		for i := range sources {
			p := &v1alpha1.AuthorizationPolicy{}
			p.Name, p.Namespace = "p", "shop"
			p.Spec.TargetRefs = []v1alpha1.AuthorizationPolicyTargetReference{{Kind: v1alpha1.TargetNamespace}}
			p.Spec.Action = v1alpha1.ActionDeny
			p.Spec.Rules = []v1alpha1.AuthorizationRule{{Sources: sources[i : i+1], NotSources: sources[i : i+1]}, {NotSources: sources[i : i+1]}}
			tr := policy.Translate(p, nil, policy.Options{})
			if _, err := authz.Compile(tr.Authorization); err != nil {
				t.Errorf("%+v: %v", sources[i], err)
			}
			if len(tr.Problems) == 0 && len(tr.Authorization.Extensions) != 1 {
				t.Errorf("%+v: the policy does not say where it is from", sources[i])
			}
		}
	})
}

func TestTargetsSelect(t *testing.T) {
	get := func(namespace, target string) policy.Targets {
		p := &v1alpha1.AuthorizationPolicy{}
		text := "metadata: {name: p, namespace: " + namespace + "}\nspec: {targetRefs: [" + target + "], action: ALLOW}"
		if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
			t.Fatal(err)
		}
		in := read(t, []byte("kind: Service\nmetadata: {name: orders, namespace: shop}"))
		return policy.Translate(p, in, policy.Options{}).Targets
	}
	db := map[string]string{"app": "db"}
	tests := []struct {
		name                string
		targets             policy.Targets
		listed              bool
		shopDB, shop, other bool
		orders              bool
	}{
		{"mesh", get("ambit-system", "{kind: Namespace}"), false, true, true, true, false},
		{"namespace", get("shop", "{kind: Namespace}"), false, true, true, false, false},
		{"all pods", get("shop", "{kind: Pod, selector: {}}"), false, true, true, false, false},
		{"some pods", get("shop", "{kind: Pod, selector: {matchLabels: {app: db}}}"), true, true, false, false, false},
		{"a service", get("shop", "{kind: Service, name: orders}"), true, false, false, false, true},
		{"no service", get("shop", "{kind: Service, name: lost}"), false, false, false, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := []bool{
				tt.targets.Listed(), tt.targets.Selects("shop", db), tt.targets.Selects("shop", nil),
				tt.targets.Selects("bank", db), tt.targets.SelectsService("shop", "orders"),
			}
			for i, want := range []bool{tt.listed, tt.shopDB, tt.shop, tt.other, tt.orders} {
				if got[i] != want {
					t.Errorf("answer %d is %v, want %v", i, got[i], want)
				}
			}
			if tt.targets.SelectsService("bank", "orders") {
				t.Error("selects a Service of another namespace")
			}
		})
	}
}
