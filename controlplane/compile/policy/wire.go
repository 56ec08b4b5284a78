package policy

import (
	"net/netip"
	"strings"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/security"
)

// draft is an Authorization before its origin is packed into it.
type draft struct {
	auth   *security.Authorization
	origin *security.Origin
}

// finish packs the origin.
func (d *draft) finish() *security.Authorization {
	// Packing a message of our own cannot fail: it has no required fields and
	// its strings are valid UTF-8 by way of JSON.
	if config, err := anypb.New(d.origin); err == nil {
		d.auth.Extensions = []*security.Extension{{Name: security.OriginExtension, Config: config}}
	}
	return d.auth
}

func (t *translator) skeleton() *draft {
	p := t.policy
	return &draft{
		auth: &security.Authorization{Name: p.Name, Namespace: p.Namespace, Scope: t.targets.scope()},
		origin: &security.Origin{
			Kind: v1alpha1.KindAuthorizationPolicy, Namespace: p.Namespace, Name: p.Name,
		},
	}
}

// wire gives the resource of a policy that has passed Validate.
func (t *translator) wire() *security.Authorization {
	d := t.skeleton()
	switch t.policy.Spec.Action {
	case v1alpha1.ActionDeny:
		d.auth.Action = security.Action_DENY
	case v1alpha1.ActionAudit:
		// A peer that does not know Origin.audit logs a match of this policy as
		// a denial that was not enforced, which is the nearest it can do.
		d.auth.Action = security.Action_DENY
		d.auth.DryRun = true
		d.origin.Audit = true
	}
	named := false
	for i := range t.policy.Spec.Rules {
		rule := &t.policy.Spec.Rules[i]
		d.auth.Rules = append(d.auth.Rules, t.rule(rule))
		d.origin.RuleNames = append(d.origin.RuleNames, rule.Name)
		named = named || rule.Name != ""
	}
	if !named {
		d.origin.RuleNames = nil
	}
	return d.finish()
}

func (t *translator) rule(r *v1alpha1.AuthorizationRule) *security.Rule {
	out := &security.Rule{}
	if r.Sources != nil {
		out.Clauses = append(out.Clauses, t.from(r.Sources))
	}
	where := &security.Match{}
	for i := range r.NotSources {
		if clause := t.exclude(&r.NotSources[i], where); clause != nil {
			out.Clauses = append(out.Clauses, clause)
		}
	}
	if n := r.NetworkAttributes; n != nil {
		where.DestinationPorts = ports(n.Ports)
		where.NotDestinationPorts = ports(n.NotPorts)
	}
	if len(r.NotSources) > 0 || r.NetworkAttributes != nil {
		if !isEmpty(where) {
			out.Clauses = append(out.Clauses, &security.Clause{Matches: []*security.Match{where}})
		}
	}
	if r.Application != nil {
		out.Clauses = append(out.Clauses, requestClause(r.Application))
	}
	return out
}

// from gives a clause that holds when one of the sources matches. Without
// sources it holds an empty match, which matches nothing.
func (t *translator) from(sources []v1alpha1.AuthorizationSource) *security.Clause {
	clause := &security.Clause{}
	peers, namespaces, blocks := &security.Match{}, &security.Match{}, &security.Match{}
	for i := range sources {
		s := &sources[i]
		m := peers
		switch {
		case s.Type == v1alpha1.SourceAddressBlock:
			blocks.SourceIps = append(blocks.SourceIps, block(s.AddressBlock))
			continue
		case s.AddressBlock != "":
			m = &security.Match{SourceIps: []*security.Address{block(s.AddressBlock)}}
			clause.Matches = append(clause.Matches, m)
		case s.Type == v1alpha1.SourceNamespace:
			m = namespaces
		}
		if s.Type == v1alpha1.SourceNamespace {
			m.Namespaces = append(m.Namespaces, exact(s.Namespace))
		} else {
			m.Principals = append(m.Principals, t.principal(s))
		}
	}
	for _, m := range []*security.Match{peers, namespaces, blocks} {
		if !isEmpty(m) {
			clause.Matches = append(clause.Matches, m)
		}
	}
	if len(clause.Matches) == 0 {
		clause.Matches = []*security.Match{{}}
	}
	return clause
}

// exclude adds a source to the not_ fields of where or, if it is narrowed by an
// address block, gives a clause of its own.
func (t *translator) exclude(s *v1alpha1.AuthorizationSource, where *security.Match) *security.Clause {
	m := where
	var clause *security.Clause
	if s.Type != v1alpha1.SourceAddressBlock && s.AddressBlock != "" {
		m = &security.Match{}
		clause = &security.Clause{Matches: []*security.Match{m, {NotSourceIps: []*security.Address{block(s.AddressBlock)}}}}
	}
	switch s.Type {
	case v1alpha1.SourceAddressBlock:
		m.NotSourceIps = append(m.NotSourceIps, block(s.AddressBlock))
	case v1alpha1.SourceNamespace:
		m.NotNamespaces = append(m.NotNamespaces, exact(s.Namespace))
	default:
		m.NotPrincipals = append(m.NotPrincipals, t.principal(s))
	}
	return clause
}

// principal gives the match of a ServiceAccount or SPIFFE source. Service
// accounts are sent as principals, because they mean those of the mesh's own
// trust domain and because every peer knows that field.
func (t *translator) principal(s *v1alpha1.AuthorizationSource) *security.StringMatch {
	if s.Type == v1alpha1.SourceSPIFFE {
		return spiffeMatch(s.SPIFFE)
	}
	namespace := s.ServiceAccount.Namespace
	if namespace == "" {
		namespace = t.policy.Namespace
	}
	all := t.opts.TrustDomain + "/ns/" + namespace + "/sa/"
	if s.ServiceAccount.Name == "*" {
		return &security.StringMatch{MatchType: &security.StringMatch_Prefix{Prefix: all}}
	}
	return exact(all + s.ServiceAccount.Name)
}

func spiffeMatch(id string) *security.StringMatch {
	id = strings.TrimPrefix(id, "spiffe://")
	if id == "*" {
		return &security.StringMatch{MatchType: &security.StringMatch_Presence{Presence: &security.Empty{}}}
	}
	if prefix, ok := strings.CutSuffix(id, "*"); ok {
		return &security.StringMatch{MatchType: &security.StringMatch_Prefix{Prefix: prefix}}
	}
	if suffix, ok := strings.CutPrefix(id, "*"); ok {
		return &security.StringMatch{MatchType: &security.StringMatch_Suffix{Suffix: suffix}}
	}
	return exact(id)
}

func exact(s string) *security.StringMatch {
	return &security.StringMatch{MatchType: &security.StringMatch_Exact{Exact: s}}
}

// block expects a string that parseBlock accepts.
func block(s string) *security.Address {
	prefix, err := parseBlock(s)
	if err != nil {
		prefix = netip.Prefix{}
	}
	return &security.Address{Address: prefix.Addr().AsSlice(), Length: uint32(max(prefix.Bits(), 0))}
}

func ports(in []v1alpha1.PortNumber) []uint32 {
	var out []uint32
	for _, p := range in {
		out = append(out, uint32(p))
	}
	return out
}

func isEmpty(m *security.Match) bool {
	return len(m.Principals)+len(m.NotPrincipals)+len(m.Namespaces)+len(m.NotNamespaces)+
		len(m.SourceIps)+len(m.NotSourceIps)+len(m.DestinationPorts)+len(m.NotDestinationPorts) == 0
}
