package xds

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/internal/nodes"
	"github.com/ambit-mesh/ambit/internal/revocation"
)

// A viewer is who a resource is for: a node by its name or, in a form that no
// name has, a waypoint.

func waypointViewer(gateway types.NamespacedName) string { return "waypoint " + gateway.String() }

// viewerOf gives the viewer that a resource is restricted to, "" for none. A
// frontend is always somebody's; one that names no waypoint is nobody's.
func viewerOf(r *compile.Resource) string {
	if r.Type == compile.TypeFrontend || r.Waypoint.Name != "" {
		return waypointViewer(r.Waypoint)
	}
	return r.Node
}

// viewer gives what a caller is as a viewer.
func viewer(c nodes.Caller) string {
	if w := c.Workload; w != nil {
		return waypointViewer(types.NamespacedName{Namespace: w.Namespace, Name: w.Gateway})
	}
	return c.Node
}

// serves says whether a caller may subscribe to a type. A waypoint has its list;
// what is for waypoints alone is for nobody else.
func serves(c nodes.Caller, typeURL string) bool {
	forWaypoints := []string{compile.TypeFrontend, compile.TypeBackend}
	if c.Workload == nil {
		return !slices.Contains(forWaypoints, typeURL)
	}
	return slices.Contains(forWaypoints, typeURL) || typeURL == compile.TypeAddress || typeURL == compile.TypeAuthorization || typeURL == revocation.TypeURL
}
