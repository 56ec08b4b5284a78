package provision

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// routeKinds are the kinds of routes that a waypoint carries out.
func routeKinds() []gatewayv1.RouteGroupKind {
	var out []gatewayv1.RouteGroupKind
	for _, kind := range []string{graph.KindHTTPRoute, graph.KindGRPCRoute, graph.KindTLSRoute, graph.KindTCPRoute, graph.KindUDPRoute} {
		out = append(out, gatewayv1.RouteGroupKind{Group: new(gatewayv1.Group(gatewayv1.GroupName)), Kind: gatewayv1.Kind(kind)})
	}
	return out
}

// listeners gives the status of each listener. Routes reach a waypoint by way of
// the Services that they are attached to; those are counted at the listener for
// tunnels.
func listeners(gw *gatewayv1.Gateway, v Verdict, f Facts, programmed metav1.Condition) []gatewayv1.ListenerStatus {
	var out []gatewayv1.ListenerStatus
	for i, l := range gw.Spec.Listeners {
		s := gatewayv1.ListenerStatus{Name: l.Name, SupportedKinds: []gatewayv1.RouteGroupKind{}}
		if i != v.Listener {
			message := fmt.Sprintf("a waypoint has one listener, with protocol: HBONE and port: %d; this one is not used: remove it", graph.WaypointPort)
			s.Conditions = []metav1.Condition{
				listenerCondition(gw, gatewayv1.ListenerConditionAccepted, false, gatewayv1.ListenerReasonUnsupportedProtocol, message),
				listenerCondition(gw, gatewayv1.ListenerConditionProgrammed, false, gatewayv1.ListenerReasonInvalid, message),
				listenerCondition(gw, gatewayv1.ListenerConditionResolvedRefs, true, gatewayv1.ListenerReasonResolvedRefs, "it refers to nothing"),
			}
			out = append(out, s)
			continue
		}
		var unknown []string
		s.SupportedKinds, unknown = supported(l)
		s.AttachedRoutes = f.AttachedRoutes
		resolved := listenerCondition(gw, gatewayv1.ListenerConditionResolvedRefs, true, gatewayv1.ListenerReasonResolvedRefs, "the kinds of routes are known")
		if len(unknown) > 0 {
			resolved = listenerCondition(gw, gatewayv1.ListenerConditionResolvedRefs, false, gatewayv1.ListenerReasonInvalidRouteKinds,
				fmt.Sprintf("allowedRoutes.kinds: a waypoint carries out no %q", unknown))
		}
		holds, reason, message := true, gatewayv1.ListenerReasonAccepted, "tunnels are accepted"
		if len(v.Problems) > 0 {
			holds, reason, message = false, gatewayv1.ListenerReasonPending, joined(v.Problems)
		}
		state := listenerCondition(gw, gatewayv1.ListenerConditionProgrammed, programmed.Status == metav1.ConditionTrue, gatewayv1.ListenerReasonProgrammed, programmed.Message)
		switch {
		case state.Status == metav1.ConditionTrue:
		case programmed.Reason == string(gatewayv1.GatewayReasonInvalid):
			state.Reason = string(gatewayv1.ListenerReasonInvalid)
		default:
			state.Reason = string(gatewayv1.ListenerReasonPending)
		}
		s.Conditions = []metav1.Condition{listenerCondition(gw, gatewayv1.ListenerConditionAccepted, holds, reason, message), state, resolved}
		out = append(out, s)
	}
	return out
}

// supported gives the kinds that a listener allows, as far as there are such.
func supported(l gatewayv1.Listener) (kinds []gatewayv1.RouteGroupKind, unknown []string) {
	all := routeKinds()
	if l.AllowedRoutes == nil || len(l.AllowedRoutes.Kinds) == 0 {
		return all, nil
	}
	kinds = []gatewayv1.RouteGroupKind{}
	for _, k := range l.AllowedRoutes.Kinds {
		i := slices.IndexFunc(all, func(have gatewayv1.RouteGroupKind) bool {
			return have.Kind == k.Kind && (k.Group == nil || *k.Group == *have.Group)
		})
		if i < 0 {
			unknown = append(unknown, string(k.Kind))
		} else if !slices.ContainsFunc(kinds, func(have gatewayv1.RouteGroupKind) bool { return have.Kind == k.Kind }) {
			kinds = append(kinds, all[i])
		}
	}
	return kinds, unknown
}

func listenerCondition(gw *gatewayv1.Gateway, kind gatewayv1.ListenerConditionType, holds bool, reason gatewayv1.ListenerConditionReason, message string) metav1.Condition {
	return condition(gw, string(kind), holds, string(reason), message)
}
