package route

import (
	"fmt"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/controlplane/compile/traffic"
)

// grpcRules translates the rules of a GRPCRoute.
func (w *worker) grpcRules(o *gatewayv1.GRPCRoute) []*waypoint.Rule {
	var out []*waypoint.Rule
	for i := range o.Spec.Rules {
		if rule := w.grpcRule(i, &o.Spec.Rules[i]); rule != nil {
			out = append(out, rule)
		}
	}
	return out
}

func (w *worker) grpcRule(index int, r *gatewayv1.GRPCRouteRule) *waypoint.Rule {
	w.begin(index, r.Name)
	for i := range r.Matches {
		if m := w.grpcMatch(fmt.Sprintf("%s.matches[%d]", w.at, i), &r.Matches[i]); m != nil {
			w.rule.Matches = append(w.rule.Matches, m)
		}
	}
	if len(r.Matches) > 0 && len(w.rule.GetMatches()) == 0 {
		return nil
	}
	w.rule.Filters = w.httpFilters(w.at+".filters", asHTTP(r.Filters))
	for i := range r.BackendRefs {
		field := fmt.Sprintf("%s.backendRefs[%d]", w.at, i)
		b := w.backend(field, &r.BackendRefs[i].BackendRef, traffic.UseGRPC)
		b.Filters = w.backendFilters(field+".filters", asHTTP(r.BackendRefs[i].Filters))
	}
	w.session(r.SessionPersistence)
	return w.end(true)
}

// asHTTP gives filters of a GRPCRoute as those of an HTTPRoute, of which they are
// a part.
func asHTTP(filters []gatewayv1.GRPCRouteFilter) []gatewayv1.HTTPRouteFilter {
	out := make([]gatewayv1.HTTPRouteFilter, 0, len(filters))
	for i := range filters {
		f := &filters[i]
		out = append(out, gatewayv1.HTTPRouteFilter{
			Type: gatewayv1.HTTPRouteFilterType(f.Type), RequestHeaderModifier: f.RequestHeaderModifier,
			ResponseHeaderModifier: f.ResponseHeaderModifier, RequestMirror: f.RequestMirror, ExtensionRef: f.ExtensionRef,
		})
	}
	return out
}

// grpcMatch gives nil for a match that cannot be read.
func (w *worker) grpcMatch(field string, m *gatewayv1.GRPCRouteMatch) *waypoint.Match {
	before := len(w.problems)
	out := &waypoint.Match{}
	if m.Method != nil {
		out.Grpc = w.grpcMethod(field+".method", m.Method)
	}
	seen := make(map[string]bool)
	for i := range m.Headers {
		h := &m.Headers[i]
		name := strings.ToLower(string(h.Name))
		regex := h.Type != nil && *h.Type == gatewayv1.GRPCHeaderMatchRegularExpression
		if h.Type != nil && !regex && *h.Type != gatewayv1.GRPCHeaderMatchExact {
			w.dropped(fmt.Sprintf("%s.headers[%d].type", field, i), "%q is not a type; use Exact or RegularExpression", *h.Type)
		}
		if v := w.value(fmt.Sprintf("%s.headers[%d]", field, i), name, h.Value, regex); !seen[name] {
			out.Headers = append(out.Headers, v)
		}
		seen[name] = true
	}
	if len(w.problems) > before {
		return nil
	}
	return out
}

func (w *worker) grpcMethod(field string, m *gatewayv1.GRPCMethodMatch) *waypoint.GRPCMethodMatch {
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
			w.dropped(field, "a service and a method are written apart, without /")
		}
	case *m.Type == gatewayv1.GRPCMethodMatchRegularExpression:
		out.Regex = true
		for _, part := range [][2]string{{"service", out.GetService()}, {"method", out.GetMethod()}} {
			if err := traffic.CheckRegex(part[1]); err != nil {
				w.dropped(field+"."+part[0], "%v", err)
			}
		}
	default:
		w.dropped(field+".type", "%q is not a type; use Exact or RegularExpression", *m.Type)
	}
	return out
}
