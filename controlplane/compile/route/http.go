package route

import (
	"fmt"
	"slices"
	"strings"

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

// httpMatch gives nil for a match that cannot be read.
func (w *worker) httpMatch(field string, m *gatewayv1.HTTPRouteMatch) *waypoint.Match {
	before := len(w.problems)
	out := &waypoint.Match{Path: w.path(field+".path", m.Path)}
	if m.Method != nil {
		out.Method = string(*m.Method)
		if !token(out.GetMethod()) {
			w.dropped(field+".method", "%q is not a method", out.GetMethod())
		}
	}
	seen := make(map[string]bool)
	for i := range m.Headers {
		h := &m.Headers[i]
		name := strings.ToLower(string(h.Name))
		regex := h.Type != nil && *h.Type == gatewayv1.HeaderMatchRegularExpression
		if h.Type != nil && !regex && *h.Type != gatewayv1.HeaderMatchExact {
			w.dropped(fmt.Sprintf("%s.headers[%d].type", field, i), "%q is not a type; use Exact or RegularExpression", *h.Type)
		}
		// Of several entries for one header only the first counts, by the API.
		if v := w.value(fmt.Sprintf("%s.headers[%d]", field, i), name, h.Value, regex); !seen[name] {
			out.Headers = append(out.Headers, v)
		}
		seen[name] = true
	}
	clear(seen)
	for i := range m.QueryParams {
		q := &m.QueryParams[i]
		regex := q.Type != nil && *q.Type == gatewayv1.QueryParamMatchRegularExpression
		if q.Type != nil && !regex && *q.Type != gatewayv1.QueryParamMatchExact {
			w.dropped(fmt.Sprintf("%s.queryParams[%d].type", field, i), "%q is not a type; use Exact or RegularExpression", *q.Type)
		}
		if v := w.value(fmt.Sprintf("%s.queryParams[%d]", field, i), string(q.Name), q.Value, regex); !seen[string(q.Name)] {
			out.QueryParams = append(out.QueryParams, v)
		}
		seen[string(q.Name)] = true
	}
	if len(w.problems) > before {
		return nil
	}
	return out
}

// dropped notes a match that cannot be read.
func (w *worker) dropped(field, format string, args ...any) {
	w.note(field, false, gatewayv1.RouteReasonUnsupportedValue, fmt.Sprintf(format, args...))
}

func (w *worker) path(field string, m *gatewayv1.HTTPPathMatch) *waypoint.PathMatch {
	kind, value := gatewayv1.PathMatchPathPrefix, "/"
	if m != nil && m.Type != nil {
		kind = *m.Type
	}
	if m != nil && m.Value != nil {
		value = *m.Value
	}
	switch kind {
	case gatewayv1.PathMatchRegularExpression:
		if err := traffic.CheckRegex(value); err != nil {
			w.dropped(field+".value", "%v", err)
		}
		return &waypoint.PathMatch{Type: &waypoint.PathMatch_Regex{Regex: value}}
	case gatewayv1.PathMatchExact, gatewayv1.PathMatchPathPrefix:
		if why := badPath(value); why != "" {
			w.dropped(field+".value", "%q %s", value, why)
		}
	default:
		w.dropped(field+".type", "%q is not a type; use Exact, PathPrefix or RegularExpression", kind)
	}
	if kind == gatewayv1.PathMatchExact {
		return &waypoint.PathMatch{Type: &waypoint.PathMatch_Exact{Exact: value}}
	}
	// A trailing / of a prefix is ignored, by the API.
	if trimmed := strings.TrimRight(value, "/"); trimmed != "" {
		value = trimmed
	} else {
		value = "/"
	}
	return &waypoint.PathMatch{Type: &waypoint.PathMatch_Prefix{Prefix: value}}
}

// badPath says what the CRD of HTTPRoute would say: such a path is never the one
// that a request has after it was normalised.
func badPath(p string) string {
	switch {
	case !strings.HasPrefix(p, "/"):
		return "must begin with /"
	case strings.ContainsAny(p, "#?"):
		return "must not contain # or ?"
	case strings.Contains(p, "//"), strings.Contains(p, "/./"), strings.Contains(p, "/../"),
		strings.HasSuffix(p, "/."), strings.HasSuffix(p, "/.."), strings.Contains(strings.ToLower(p), "%2f"):
		return "must not contain //, /./, /../ or an encoded /"
	}
	return ""
}

func (w *worker) value(field, name, value string, regex bool) *waypoint.ValueMatch {
	if name == "" {
		w.dropped(field+".name", "a name is needed")
	}
	if !regex {
		return &waypoint.ValueMatch{Name: name, Type: &waypoint.ValueMatch_Exact{Exact: value}}
	}
	if err := traffic.CheckRegex(value); err != nil {
		w.dropped(field+".value", "%v", err)
	}
	return &waypoint.ValueMatch{Name: name, Type: &waypoint.ValueMatch_Regex{Regex: value}}
}

// token says whether s is a token of RFC 9110, section 5.6.2: a header name or a
// method.
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		return !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}
