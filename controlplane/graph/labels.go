package graph

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Labels and names that users write.
const (
	// LabelDataplaneMode enrolls a Namespace or a Pod (ModeAmbient), or leaves a
	// Pod out (ModeNone). The Pod wins.
	LabelDataplaneMode = "ambit-mesh.io/dataplane-mode"
	ModeAmbient        = "ambient"
	ModeNone           = "none"

	// LabelUseWaypoint binds a Namespace, a Service or a Pod to a waypoint, or to
	// none (WaypointNone). The nearest wins. LabelUseWaypointNamespace, beside it,
	// is the waypoint's namespace where that is another one.
	LabelUseWaypoint          = "ambit-mesh.io/use-waypoint"
	LabelUseWaypointNamespace = "ambit-mesh.io/use-waypoint-namespace"
	WaypointNone              = "none"

	// LabelWaypointFor, on a Gateway, says what it is a waypoint for.
	LabelWaypointFor = "ambit-mesh.io/waypoint-for"
	ForService       = "service" // what is addressed by a service; the default
	ForWorkload      = "workload"
	ForAll           = "all"
	ForNone          = "none"

	// AnnotationTransport, on a Pod or its Namespace, says by what tunnels the pod is
	// reached and reaches others: auto, h2 or h3.
	AnnotationTransport = "ambit-mesh.io/transport"
	// AnnotationFailOpen, on a Service, a Pod or their Namespace, lets traffic go
	// around a waypoint that is not ready. The nearest wins.
	AnnotationFailOpen = "ambit-mesh.io/waypoint-fail-open"
	// AnnotationRequireWaypoint, on a Service, has its workloads refuse what did
	// not come through its waypoint.
	AnnotationRequireWaypoint = "ambit-mesh.io/require-waypoint"

	// LabelOutbound, on a Namespace, says what its pods may connect to: anything, or
	// only what the mesh knows.
	LabelOutbound        = "ambit-mesh.io/outbound"
	OutboundAllowAny     = "allow-any"
	OutboundRegistryOnly = "registry-only"

	// AnnotationDNSCapture, "false" on a Pod or its Namespace, leaves DNS queries to
	// the pod's resolvers. The Pod wins.
	AnnotationDNSCapture = "ambit-mesh.io/dns-capture"

	// ConditionWaypointBound of a Namespace is True once the waypoint that its label
	// names has been bound, and as long as the label names it: what is bound stays
	// closed when the waypoint goes away, whichever replica is asked, restarted or not.
	ConditionWaypointBound corev1.NamespaceConditionType = "ambit-mesh.io/WaypointBound"

	// WaypointClass is the GatewayClass of waypoints.
	WaypointClass = "ambit-waypoint"

	// LabelGatewayName is on everything that is generated for a Gateway.
	LabelGatewayName = "gateway.networking.k8s.io/gateway-name"
)

// boundText is what the message of ConditionWaypointBound says before the name.
const boundText = "bound to waypoint "

// BoundMessage gives the message of ConditionWaypointBound.
func BoundMessage(waypoint string) string { return boundText + waypoint }

// BoundWaypoint gives the waypoint that a namespace's condition names; "" for none.
func BoundWaypoint(ns *corev1.Namespace) string {
	if ns == nil {
		return ""
	}
	for _, c := range ns.Status.Conditions {
		if name, ok := strings.CutPrefix(c.Message, boundText); ok && c.Type == ConditionWaypointBound && c.Status == corev1.ConditionTrue {
			return name
		}
	}
	return ""
}
