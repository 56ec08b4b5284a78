package traffic

import (
	"fmt"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/controlplane/compile/policy"
)

// Report collects problems. Its methods take the path of the offending field.
type Report struct{ Problems []policy.Problem }

// Add notes a problem.
func (r *Report) Add(field, format string, args ...any) {
	r.Problems = append(r.Problems, policy.Problem{Field: field, Message: fmt.Sprintf(format, args...)})
}

// HTTPMatch reads a match of an HTTPRoute.
func (r *Report) HTTPMatch(field string, m *gatewayv1.HTTPRouteMatch) *waypoint.Match {
	out := &waypoint.Match{Path: r.path(field+".path", m.Path)}
	if m.Method != nil {
		out.Method = string(*m.Method)
		if !Token(out.GetMethod()) {
			r.Add(field+".method", "%q is not a method", out.GetMethod())
		}
	}
	seen := make(map[string]bool)
	for i := range m.Headers {
		h := &m.Headers[i]
		name := strings.ToLower(string(h.Name))
		regex := h.Type != nil && *h.Type == gatewayv1.HeaderMatchRegularExpression
		if h.Type != nil && !regex && *h.Type != gatewayv1.HeaderMatchExact {
			r.Add(fmt.Sprintf("%s.headers[%d].type", field, i), "%q is not a type; use Exact or RegularExpression", *h.Type)
		}
		// Of several entries for one header only the first counts, by the API.
		if v := r.value(fmt.Sprintf("%s.headers[%d]", field, i), name, h.Value, regex); !seen[name] {
			out.Headers = append(out.Headers, v)
		}
		seen[name] = true
	}
	clear(seen)
	for i := range m.QueryParams {
		q := &m.QueryParams[i]
		regex := q.Type != nil && *q.Type == gatewayv1.QueryParamMatchRegularExpression
		if q.Type != nil && !regex && *q.Type != gatewayv1.QueryParamMatchExact {
			r.Add(fmt.Sprintf("%s.queryParams[%d].type", field, i), "%q is not a type; use Exact or RegularExpression", *q.Type)
		}
		if v := r.value(fmt.Sprintf("%s.queryParams[%d]", field, i), string(q.Name), q.Value, regex); !seen[string(q.Name)] {
			out.QueryParams = append(out.QueryParams, v)
		}
		seen[string(q.Name)] = true
	}
	return out
}

func (r *Report) path(field string, m *gatewayv1.HTTPPathMatch) *waypoint.PathMatch {
	kind, value := gatewayv1.PathMatchPathPrefix, "/"
	if m != nil && m.Type != nil {
		kind = *m.Type
	}
	if m != nil && m.Value != nil {
		value = *m.Value
	}
	switch kind {
	case gatewayv1.PathMatchRegularExpression:
		if err := CheckRegex(value); err != nil {
			r.Add(field+".value", "%v", err)
		}
		return &waypoint.PathMatch{Type: &waypoint.PathMatch_Regex{Regex: value}}
	case gatewayv1.PathMatchExact, gatewayv1.PathMatchPathPrefix:
		if why := badPath(value); why != "" {
			r.Add(field+".value", "%q %s", value, why)
		}
	default:
		r.Add(field+".type", "%q is not a type; use Exact, PathPrefix or RegularExpression", kind)
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

func (r *Report) value(field, name, value string, regex bool) *waypoint.ValueMatch {
	if name == "" {
		r.Add(field+".name", "a name is needed")
	}
	if !regex {
		return &waypoint.ValueMatch{Name: name, Type: &waypoint.ValueMatch_Exact{Exact: value}}
	}
	if err := CheckRegex(value); err != nil {
		r.Add(field+".value", "%v", err)
	}
	return &waypoint.ValueMatch{Name: name, Type: &waypoint.ValueMatch_Regex{Regex: value}}
}

// Token says whether s is a token of RFC 9110, section 5.6.2: a header name or a
// method.
func Token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		return !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}

// GRPCMatch reads a match of a GRPCRoute.
func (r *Report) GRPCMatch(field string, m *gatewayv1.GRPCRouteMatch) *waypoint.Match {
	out := &waypoint.Match{}
	if m.Method != nil {
		out.Grpc = r.grpcMethod(field+".method", m.Method)
	}
	seen := make(map[string]bool)
	for i := range m.Headers {
		h := &m.Headers[i]
		name := strings.ToLower(string(h.Name))
		regex := h.Type != nil && *h.Type == gatewayv1.GRPCHeaderMatchRegularExpression
		if h.Type != nil && !regex && *h.Type != gatewayv1.GRPCHeaderMatchExact {
			r.Add(fmt.Sprintf("%s.headers[%d].type", field, i), "%q is not a type; use Exact or RegularExpression", *h.Type)
		}
		if v := r.value(fmt.Sprintf("%s.headers[%d]", field, i), name, h.Value, regex); !seen[name] {
			out.Headers = append(out.Headers, v)
		}
		seen[name] = true
	}
	return out
}

func (r *Report) grpcMethod(field string, m *gatewayv1.GRPCMethodMatch) *waypoint.GRPCMethodMatch {
	out := &waypoint.GRPCMethodMatch{}
	if m.Service != nil {
		out.Service = *m.Service
	}
	if m.Method != nil {
		out.Method = *m.Method
	}
	switch {
	case m.Type == nil || *m.Type == gatewayv1.GRPCMethodMatchExact:
		if strings.Contains(out.GetService()+out.GetMethod(), "/") {
			r.Add(field, "a service and a method are written apart, without /")
		}
	case *m.Type == gatewayv1.GRPCMethodMatchRegularExpression:
		out.Regex = true
		for _, part := range [][2]string{{"service", out.GetService()}, {"method", out.GetMethod()}} {
			if err := CheckRegex(part[1]); err != nil {
				r.Add(field+"."+part[0], "%v", err)
			}
		}
	default:
		r.Add(field+".type", "%q is not a type; use Exact or RegularExpression", *m.Type)
	}
	return out
}
