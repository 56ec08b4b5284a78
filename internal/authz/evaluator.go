package authz

import (
	"fmt"
	"slices"
	"strings"
)

// Evaluator decides for one workload, or for all that have the same policies.
// It is immutable and safe for concurrent use.
type Evaluator struct {
	// groups are the workload's policies: global, of its namespace, listed.
	// Those that have none are nil.
	groups [3]*group
	// listed are the policies of the last group.
	listed []*Policy
	// missing are policies that the workload lists and that are not known.
	missing []string
	// bound says that there is a policy; hasAllow and hasAudit, that there is
	// one of that sort.
	bound, hasAllow, hasAudit bool
	// unmatched is the reason of a denial that no rule made.
	unmatched string
}

// For gives the evaluator of a workload by its namespace and the policies that
// it lists, each as <namespace>/<name>. The order of the list does not matter.
func (s *Set) For(namespace string, selected []string) *Evaluator {
	key := cacheKey(namespace, selected)
	if value, ok := s.evaluators.Load(key); ok {
		e := value.(*entry)
		if !e.used.Load() {
			e.used.Store(true)
		}
		return e.evaluator
	}
	fresh := &entry{namespace: namespace, selected: slices.Clone(selected), evaluator: s.evaluator(namespace, selected)}
	fresh.used.Store(true)
	value, _ := s.evaluators.LoadOrStore(key, fresh)
	return value.(*entry).evaluator
}

func cacheKey(namespace string, selected []string) string {
	if len(selected) == 0 {
		return namespace
	}
	return namespace + "\x00" + strings.Join(selected, "\x00")
}

func (s *Set) evaluator(namespace string, selected []string) *Evaluator {
	e := &Evaluator{groups: [3]*group{s.global, s.scoped[namespace]}}
	e.listed, e.missing = s.resolve(namespace, selected)
	if len(e.listed) > 0 {
		e.groups[2] = &group{policies: e.listed}
	}
	var allowed []*Policy
	for _, g := range e.groups {
		if g == nil {
			continue
		}
		g.index()
		e.bound = true
		e.hasAllow = e.hasAllow || len(g.allowed) > 0
		e.hasAudit = e.hasAudit || g.audit != nil
		// One more than are named, to know that there are more.
		allowed = append(allowed, g.allowed[:min(len(g.allowed), maxNamed+1)]...)
	}
	e.unmatched = unmatched(allowed, e.allowCount())
	return e
}

// resolve finds the policies that a workload lists, in order, without those
// that apply to it anyway.
func (s *Set) resolve(namespace string, selected []string) (listed []*Policy, missing []string) {
	for _, name := range selected {
		key, ok := ParseKey(name)
		p, known := s.Get(key)
		switch {
		case !ok || !known:
			missing = append(missing, name)
		case p == s.find(s.global, key) || p == s.find(s.scoped[namespace], key):
		default:
			listed = append(listed, p)
		}
	}
	slices.Sort(missing)
	slices.SortFunc(listed, func(a, b *Policy) int { return compareKeys(a.key, b.key) })
	return slices.Compact(listed), slices.Compact(missing)
}

func (s *Set) find(g *group, key Key) *Policy {
	if g == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(g.policies, key, func(p *Policy, k Key) int { return compareKeys(p.key, k) })
	if !ok {
		return nil
	}
	return g.policies[i]
}

// serves says whether an evaluator of an earlier snapshot is right in this one.
func (s *Set) serves(e *entry) bool {
	if e.evaluator.groups[0] != s.global || e.evaluator.groups[1] != s.scoped[e.namespace] {
		return false
	}
	listed, missing := s.resolve(e.namespace, e.selected)
	return slices.Equal(listed, e.evaluator.listed) && slices.Equal(missing, e.evaluator.missing)
}

// index makes the group's tables, once.
func (g *group) index() {
	g.indexed.Do(func() {
		var allow, deny, audit []*Policy
		for _, p := range g.policies {
			switch {
			case p.dryRun:
				audit = append(audit, p)
			case p.action == Deny:
				deny = append(deny, p)
			default:
				allow = append(allow, p)
				if !p.optional {
					g.allowed = append(g.allowed, p)
				}
			}
		}
		g.allow, g.deny, g.audit = newIndex(allow), newIndex(deny), newIndex(audit)
	})
}

func (e *Evaluator) allowCount() int {
	n := 0
	for _, g := range e.groups {
		if g != nil {
			n += len(g.allowed)
		}
	}
	return n
}

// Decide gives the verdict on a connection, before anything is known of requests
// on it. It does not allocate memory when it allows and nothing is audited.
func (e *Evaluator) Decide(c Connection) Decision {
	return e.decide(facts{Connection: c})
}

// DecideRequest gives the verdict on a request, by the rules about connections
// and those about requests together. A path that applications read in two ways
// must be allowed in both. It does not allocate memory when it allows and nothing
// is audited, for a host in lower case and a path with one reading.
func (e *Evaluator) DecideRequest(c Connection, r *Request) Decision {
	f := facts{Connection: c, request: r.normal(), asked: true}
	d := e.decide(f)
	if !d.Allowed || !twofold(f.request.Path) {
		return d
	}
	f.request.Path = lenient(f.request.Path)
	if other := e.decide(f); !other.Allowed {
		other.Audits = d.Audits
		return other
	}
	return d
}

func (e *Evaluator) decide(c facts) Decision {
	c.SourceIP, c.DestIP = c.SourceIP.Unmap().WithZone(""), c.DestIP.Unmap().WithZone("")
	d := Decision{Rule: NoRule}
	if e.hasAudit {
		d.Audits = e.audits(&c)
	}
	if len(e.missing) > 0 {
		d.Reason = missingReason(e.missing)
		d.Policy, _ = ParseKey(e.missing[0])
		return d
	}
	if e.bound && (!c.SourceIP.IsValid() || !c.DestIP.IsValid()) {
		d.Reason = "the addresses of the connection are not known, and there are policies that may ask for them"
		return d
	}
	for _, g := range e.groups {
		if g == nil {
			continue
		}
		if ref, ok := g.deny.first(&c); ok {
			d.decide(ref)
			d.Reason = ref.policy.denial(int(ref.rule), c.asked)
			return d
		}
	}
	if !e.hasAllow {
		d.Allowed = true
		return d
	}
	for _, g := range e.groups {
		if g == nil {
			continue
		}
		if ref, ok := g.allow.first(&c); ok {
			d.decide(ref)
			d.Allowed = true
			return d
		}
	}
	d.Reason = e.unmatched
	return d
}

func (d *Decision) decide(ref ruleRef) {
	d.Policy, d.Rule, d.RuleName = ref.policy.key, int(ref.rule), ref.policy.rules[ref.rule].name
}

// audits names the first rule that matches of each policy that decides nothing.
func (e *Evaluator) audits(c *facts) []AuditMatch {
	var out []AuditMatch
	for _, g := range e.groups {
		if g == nil || g.audit == nil {
			continue
		}
		first := map[*Policy]ruleRef{}
		for ref := range g.audit.matching(c) {
			if seen, ok := first[ref.policy]; !ok || ref.rule < seen.rule {
				first[ref.policy] = ref
			}
		}
		for _, p := range sortedPolicies(first) {
			if len(out) == MaxAudits {
				return out
			}
			rule := int(first[p].rule)
			out = append(out, AuditMatch{Policy: p.key, Action: p.action, Rule: rule, RuleName: p.rules[rule].name})
		}
	}
	return out
}

func sortedPolicies(m map[*Policy]ruleRef) []*Policy {
	out := make([]*Policy, 0, len(m))
	for p := range m {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *Policy) int { return compareKeys(a.key, b.key) })
	return out
}

// maxNamed bounds how many policies a reason names.
const maxNamed = 4

func missingReason(missing []string) string {
	shown := missing[:min(len(missing), maxNamed)]
	reason := "the workload lists policy " + strings.Join(shown, ", ")
	if more := len(missing) - len(shown); more > 0 {
		reason += fmt.Sprintf(" and %d more", more)
	}
	return reason + ", which has not been received; nothing is let in without it"
}

// unmatched names the ALLOW policies that were considered, of which there are
// total.
func unmatched(policies []*Policy, total int) string {
	shown := policies[:min(len(policies), maxNamed)]
	names := make([]string, len(shown))
	for i, p := range shown {
		names[i] = p.subject
		if p.refusal != "" {
			names[i] += " (allows nothing, because it cannot be enforced as written: " + p.refusal + ")"
		}
	}
	reason := "no rule allowed it: considered " + strings.Join(names, ", ")
	if more := total - len(shown); more > 0 {
		reason += fmt.Sprintf(" and %d more", more)
	}
	return reason
}
