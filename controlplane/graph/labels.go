package graph

// Labels and names that users write.
const (
	// LabelDataplaneMode enrolls a Namespace or a Pod (ModeAmbient), or leaves a
	// Pod out (ModeNone). The Pod wins.
	LabelDataplaneMode = "ambit-mesh.io/dataplane-mode"
	ModeAmbient        = "ambient"
	ModeNone           = "none"

	// LabelUseWaypoint binds a Namespace, a Service or a Pod to a waypoint of its
	// namespace, or to none (WaypointNone). The nearest wins.
	LabelUseWaypoint = "ambit-mesh.io/use-waypoint"
	WaypointNone     = "none"

	// WaypointClass is the GatewayClass of waypoints.
	WaypointClass = "ambit-waypoint"

	// LabelGatewayName is on everything that is generated for a Gateway.
	LabelGatewayName = "gateway.networking.k8s.io/gateway-name"
)
