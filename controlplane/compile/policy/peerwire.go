package policy

import (
	"fmt"
	"maps"
	"slices"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/security"
)

// StaticStrict is the name, in the root namespace, of the policy that a STRICT
// workload lists. The name belongs to the wire format.
const StaticStrict = "istio_converted_static_strict"

// convertedPrefix and the name of a PeerAuthentication make the name of the
// policy that enforces its port modes. No object can have a name with _ in it.
const convertedPrefix = "converted_peer_authentication_"

// ruleNotMutualTLS is the rule that refuses a peer without an identity.
const ruleNotMutualTLS = "not-mutual-tls"

func staticStrict(opts Options) *security.Authorization {
	d := draft{
		auth: &security.Authorization{
			Name: StaticStrict, Namespace: opts.RootNamespace,
			Scope: security.Scope_WORKLOAD_SELECTOR, Action: security.Action_DENY,
			Rules: []*security.Rule{{Clauses: []*security.Clause{noIdentity()}}},
		},
		origin: &security.Origin{Kind: v1alpha1.KindPeerAuthentication, RuleNames: []string{ruleNotMutualTLS}},
	}
	return d.finish()
}

// converted gives the policy of a workload whose ports differ in mode: a peer
// without an identity is denied on the STRICT ports.
func converted(p *peer, e Effective) *security.Authorization {
	where := &security.Match{}
	for _, port := range slices.Sorted(maps.Keys(e.Ports)) {
		if e.Mode == v1alpha1.ModeStrict {
			where.NotDestinationPorts = append(where.NotDestinationPorts, uint32(port))
		} else {
			where.DestinationPorts = append(where.DestinationPorts, uint32(port))
		}
	}
	d := draft{
		auth: &security.Authorization{
			Name: convertedPrefix + p.object.Name, Namespace: p.object.Namespace,
			Scope: security.Scope_WORKLOAD_SELECTOR, Action: security.Action_DENY,
			Rules: []*security.Rule{{Clauses: []*security.Clause{
				noIdentity(), {Matches: []*security.Match{where}},
			}}},
		},
		origin: &security.Origin{
			Kind: v1alpha1.KindPeerAuthentication, Namespace: p.object.Namespace, Name: p.object.Name,
			RuleNames: []string{ruleNotMutualTLS},
		},
	}
	return d.finish()
}

func noIdentity() *security.Clause {
	return &security.Clause{Matches: []*security.Match{{NotPrincipals: []*security.StringMatch{
		{MatchType: &security.StringMatch_Presence{Presence: &security.Empty{}}},
	}}}}
}

// ValidatePeer checks what the CRD of PeerAuthentication checks, for objects
// that did not come through an API server. It gives nil for a sound policy.
func ValidatePeer(p *v1alpha1.PeerAuthentication) []Problem {
	r := &report{}
	r.metadata(p.Name, p.Namespace)
	spec := &p.Spec
	r.problems = append(r.problems, validatePeerTargets(spec.TargetRefs)...)
	if spec.MTLS == nil && len(spec.PortLevel) == 0 {
		r.add("spec", "needs mtls or portLevel; without either it would do nothing")
	}
	if spec.MTLS != nil && spec.MTLS.Mode != "" {
		r.mode("spec.mtls.mode", spec.MTLS.Mode)
	}
	r.atMost("spec.portLevel", len(spec.PortLevel), maxPorts)
	if len(spec.PortLevel) > 0 && len(spec.TargetRefs) == 1 && spec.TargetRefs[0].Kind != v1alpha1.TargetPod {
		r.add("spec.portLevel", "needs a Pod target; selector {} chooses every pod of the namespace")
	}
	seen := map[int32]bool{}
	for i, port := range spec.PortLevel {
		path := fmt.Sprintf("spec.portLevel[%d]", i)
		r.port(path+".port", port.Port)
		r.mode(path+".mode", port.Mode)
		if seen[int32(port.Port)] {
			r.add(path+".port", "port %d is named twice", port.Port)
		}
		seen[int32(port.Port)] = true
	}
	return r.problems
}

func validatePeerTargets(refs []v1alpha1.PeerAuthenticationTargetReference) []Problem {
	r := &report{}
	if len(refs) != 1 {
		r.add("spec.targetRefs", "a PeerAuthentication has one target, a Pod with a selector or a Namespace; this one has %d", len(refs))
		return r.problems
	}
	path, ref := "spec.targetRefs[0]", &refs[0]
	r.coreGroup(path, ref.Group)
	switch {
	case ref.Kind == v1alpha1.TargetPod:
		r.selector(path+".selector", ref.Selector)
	case ref.Kind != v1alpha1.TargetNamespace:
		r.add(path+".kind", "%q cannot be targeted; use Pod or Namespace", ref.Kind)
	case ref.Selector != nil:
		r.add(path+".selector", "only a Pod target may have a selector")
	}
	return r.problems
}

func (r *report) mode(path string, m v1alpha1.MTLSMode) {
	if m != v1alpha1.ModePermissive && m != v1alpha1.ModeStrict {
		r.add(path, "%q is not a mode; use PERMISSIVE or STRICT", m)
	}
}
