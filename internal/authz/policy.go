package authz

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/ambit-mesh/ambit/apis/security"
)

// Policy is a compiled Authorization. It is immutable.
type Policy struct {
	key    Key
	scope  security.Scope
	action Action
	dryRun bool
	// subject is what people call the policy: kind and name of the object that
	// it was made from.
	subject string
	// refusal says why the policy stands in for one that cannot be enforced.
	refusal string
	// reason of a denial, in place of the name of a rule.
	reason string
	// optional: an ALLOW policy that is no reason to refuse what it does not match.
	optional bool
	rules    []rule
}

type rule struct {
	name string
	// clauses must all hold.
	clauses []clause
	// requests: it is about requests.
	requests bool
}

// clause holds when one of its matches does, or when it has none.
type clause []match

// Key names the policy.
func (p *Policy) Key() Key { return p.key }

// Scope says which workloads the policy is for.
func (p *Policy) Scope() security.Scope { return p.scope }

// Action says what the policy does.
func (p *Policy) Action() Action { return p.action }

// DryRun says that the policy decides nothing.
func (p *Policy) DryRun() bool { return p.dryRun }

// Refusal says why the policy stands in for one that could not be enforced as
// written; "" if it is the one that was written.
func (p *Policy) Refusal() string { return p.refusal }

// Rules gives the number of rules.
func (p *Policy) Rules() int { return len(p.rules) }

// Compile reads a policy. With an error, which wraps ErrMalformed and is to be
// reported, it still gives a policy to enforce: one that opens nothing that the
// policy could have meant to close. Only a nil Authorization gives a nil Policy.
func Compile(a *security.Authorization) (*Policy, error) {
	if a == nil {
		return nil, fmt.Errorf("%w: nil", ErrMalformed)
	}
	p := &Policy{
		key:    Key{Namespace: a.GetNamespace(), Name: a.GetName()},
		scope:  a.GetScope(),
		dryRun: a.GetDryRun(),
	}
	var problems []error
	switch a.GetAction() {
	case security.Action_ALLOW:
		p.action = Allow
	case security.Action_DENY:
		p.action = Deny
	default:
		p.action = Deny
		problems = append(problems, fmt.Errorf("action: %d is not known", a.GetAction()))
	}
	if _, known := security.Scope_name[int32(p.scope)]; !known {
		problems = append(problems, fmt.Errorf("scope: %d is not known", p.scope))
		p.scope = security.Scope_GLOBAL
	}
	origin, err := originOf(a)
	if err != nil {
		problems = append(problems, err)
	}
	p.describe(origin)
	if p.rules, err = compileRules(a.GetRules(), origin.GetRuleNames(), p.action); err != nil {
		problems = append(problems, err)
	}
	if len(problems) == 0 {
		return p, nil
	}
	err = fmt.Errorf("%w %s: %w", ErrMalformed, p.key, errors.Join(problems...))
	p.failClosed(errors.Join(problems...))
	return p, err
}

// originOf finds the extension that names the object behind the policy.
// Extensions that are not known say nothing about what to enforce.
func originOf(a *security.Authorization) (*security.Origin, error) {
	for _, e := range a.GetExtensions() {
		if e.GetName() != security.OriginExtension {
			continue
		}
		origin := &security.Origin{}
		if err := e.GetConfig().UnmarshalTo(origin); err != nil {
			return nil, fmt.Errorf("extensions[%s]: %w", security.OriginExtension, err)
		}
		return origin, nil
	}
	return nil, nil
}

func (p *Policy) describe(origin *security.Origin) {
	if origin.GetAudit() {
		p.action, p.dryRun = Audit, true
	}
	p.refusal, p.reason = origin.GetRefusal(), origin.GetReason()
	p.optional = origin.GetOptional() && p.action == Allow
	object := Key{Namespace: origin.GetNamespace(), Name: origin.GetName()}
	switch {
	case origin.GetKind() == "":
		p.subject = "policy " + p.key.String()
	case object == p.key:
		p.subject = origin.GetKind() + " " + p.key.String()
	case object.Name == "":
		p.subject = origin.GetKind() + " policy " + p.key.String()
	default:
		p.subject = origin.GetKind() + " " + object.String() + " (policy " + p.key.String() + ")"
	}
}

func (p *Policy) failClosed(why error) {
	p.refusal = why.Error()
	p.rules = nil
	if p.action == Deny && !p.dryRun {
		p.rules = []rule{{}}
	}
}

func compileRules(rules []*security.Rule, names []string, action Action) ([]rule, error) {
	out := make([]rule, len(rules))
	for i, r := range rules {
		if i < len(names) {
			out[i].name = names[i]
		}
		for j, c := range r.GetClauses() {
			compiled := make(clause, len(c.GetMatches()))
			for k, m := range c.GetMatches() {
				if err := compiled[k].compile(m, action); err != nil {
					return nil, fmt.Errorf("rules[%d].clauses[%d].matches[%d].%w", i, j, k, err)
				}
				out[i].requests = out[i].requests || compiled[k].request != nil
			}
			out[i].clauses = append(out[i].clauses, compiled)
		}
	}
	return out, nil
}

func (r *rule) matches(c *facts) bool {
	for i := range r.clauses {
		if !r.clauses[i].matches(c) {
			return false
		}
	}
	return true
}

func (c clause) matches(conn *facts) bool {
	for i := range c {
		if c[i].matches(conn) {
			return true
		}
	}
	return len(c) == 0
}

// ruleLabel gives a rule's name in quotes, or its position.
func (p *Policy) ruleLabel(i int) string {
	if name := p.rules[i].name; name != "" {
		return strconv.Quote(name)
	}
	return strconv.Itoa(i)
}

// denial says why rule i refuses a connection or a request.
func (p *Policy) denial(i int, asked bool) string {
	switch {
	case p.refusal != "":
		return p.subject + " denies everything, because it cannot be enforced as written: " + p.refusal
	case p.reason != "":
		return p.subject + " denies it: " + p.reason
	case p.rules[i].requests && !asked:
		return p.subject + " denies it by rule " + p.ruleLabel(i) + ", which is about requests, and this is a connection without any"
	}
	return p.subject + " denies it by rule " + p.ruleLabel(i)
}
