// Package workload is the contract of the Workload Discovery Service.
package workload

// WaypointExtension is the name of the extension of a Service or Workload that
// holds WaypointOptions.
const WaypointExtension = "ambit-mesh.io/waypoint"
