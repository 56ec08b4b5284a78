package route

import (
	"fmt"

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
		w.dead[index] = true
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

func (w *worker) grpcMatch(field string, m *gatewayv1.GRPCRouteMatch) *waypoint.Match {
	var r traffic.Report
	out := r.GRPCMatch(field, m)
	return w.read(out, r)
}
