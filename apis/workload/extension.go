// Package workload is the contract of the Workload Discovery Service.
package workload

// Names of the extensions of a Service or Workload, and with them what their config
// is.
const (
	// WaypointExtension holds WaypointOptions.
	WaypointExtension = "ambit-mesh.io/waypoint"
	// ServiceExtension, of a Service, holds ServiceOptions.
	ServiceExtension = "ambit-mesh.io/service"
	// WorkloadExtension, of a Workload, holds WorkloadOptions.
	WorkloadExtension = "ambit-mesh.io/workload"
	// TransportExtension, of a Workload, holds Transport.
	TransportExtension = "ambit-mesh.io/transport"
	// UDPPortsExtension holds UDPPorts.
	UDPPortsExtension = "ambit-mesh.io/udp-ports"
)
