// Package workload is the contract of the Workload Discovery Service.
package workload

// WaypointExtension is the name of the extension of a Service or Workload that
// holds WaypointOptions.
const WaypointExtension = "ambit-mesh.io/waypoint"

// TransportExtension is the name of the extension of a Workload that holds
// Transport, UDPPortsExtension that of a Service or Workload with UDPPorts.
const (
	TransportExtension = "ambit-mesh.io/transport"
	UDPPortsExtension  = "ambit-mesh.io/udp-ports"
)
