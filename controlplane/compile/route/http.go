package route

import (
	"fmt"
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/controlplane/compile/traffic"
)

// httpRules translates the rules of an HTTPRoute. Without rules it has one that
// matches everything, as the API server would fill in.
func (w *worker) httpRules(o *gatewayv1.HTTPRoute) []*waypoint.Rule {
	rules := o.Spec.Rules
	if len(rules) == 0 {
		rules = []gatewayv1.HTTPRouteRule{{}}
	}
	var out []*waypoint.Rule
	for i := range rules {
		if rule := w.httpRule(i, &rules[i]); rule != nil {
			out = append(out, rule)
		}
	}
	return out
}

// httpRule gives nil for a rule none of whose matches can be read: nobody knows
// which requests it is about.
func (w *worker) httpRule(index int, r *gatewayv1.HTTPRouteRule) *waypoint.Rule {
	w.begin(index, r.Name)
	for i := range r.Matches {
		if m := w.httpMatch(fmt.Sprintf("%s.matches[%d]", w.at, i), &r.Matches[i]); m != nil {
			w.rule.Matches = append(w.rule.Matches, m)
		}
	}
	if len(r.Matches) > 0 && len(w.rule.GetMatches()) == 0 {
		w.dead[index] = true
		return nil
	}
	w.rule.Filters = w.httpFilters(w.at+".filters", r.Filters)
	for i := range r.BackendRefs {
		field := fmt.Sprintf("%s.backendRefs[%d]", w.at, i)
		ref := &r.BackendRefs[i]
		b := w.backend(field, &ref.BackendRef, traffic.UseHTTP)
		b.Filters = w.backendFilters(field+".filters", ref.Filters)
	}
	w.httpShape(r)
	w.timeouts(r.Timeouts)
	w.retry(r.Retry)
	w.session(r.SessionPersistence)
	return w.end(true)
}

// httpShape checks how the parts of a rule go together.
func (w *worker) httpShape(r *gatewayv1.HTTPRouteRule) {
	redirects := slices.ContainsFunc(r.Filters, func(f gatewayv1.HTTPRouteFilter) bool { return f.RequestRedirect != nil })
	if redirects && len(r.BackendRefs) > 0 {
		w.unsupported(w.at+".backendRefs", "a rule that redirects sends nothing to backends; remove one of the two")
	}
	onePrefix := len(w.rule.GetMatches()) == 1 && isPrefix(w.rule.GetMatches()[0]) || len(r.Matches) == 0
	if !onePrefix && replacesPrefix(w.rule) {
		w.unsupported(w.at+".filters", "replacePrefixMatch needs exactly one match, of a PathPrefix, to know what to replace")
	}
}

func isPrefix(m *waypoint.Match) bool {
	_, ok := m.GetPath().GetType().(*waypoint.PathMatch_Prefix)
	return ok
}

func replacesPrefix(r *waypoint.Rule) bool {
	all := r.GetFilters()
	for _, b := range r.GetBackends() {
		all = slices.Concat(all, b.GetFilters())
	}
	return slices.ContainsFunc(all, func(f *waypoint.Filter) bool {
		for _, m := range []*waypoint.PathModifier{f.GetRedirect().GetPath(), f.GetRewrite().GetPath()} {
			if _, ok := m.GetType().(*waypoint.PathModifier_Prefix); ok {
				return true
			}
		}
		return false
	})
}

// read takes what was read of a match, or nothing if there is something wrong
// with it.
func (w *worker) read(m *waypoint.Match, r traffic.Report) *waypoint.Match {
	for _, p := range r.Problems {
		w.note(p.Field, false, gatewayv1.RouteReasonUnsupportedValue, p.Message)
	}
	if len(r.Problems) > 0 {
		return nil
	}
	return m
}

func (w *worker) httpMatch(field string, m *gatewayv1.HTTPRouteMatch) *waypoint.Match {
	var r traffic.Report
	out := r.HTTPMatch(field, m)
	return w.read(out, r)
}
