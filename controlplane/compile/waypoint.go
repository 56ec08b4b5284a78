package compile

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// waypointOf gives the waypoint that an object of a namespace is bound to, by
// its own label or else by that of the namespace; the zero name is none. What
// is generated for a waypoint has none itself.
func (c *Compiler) waypointOf(namespace string, labels map[string]string) types.NamespacedName {
	if c.graph.IsWaypoint(namespace, labels) {
		return types.NamespacedName{}
	}
	value := labels[graph.LabelUseWaypoint]
	if value == "" {
		if ns, ok := c.graph.Namespace(namespace); ok {
			value = ns.Object.Labels[graph.LabelUseWaypoint]
		}
	}
	if value == "" || value == graph.WaypointNone {
		return types.NamespacedName{}
	}
	return types.NamespacedName{Namespace: namespace, Name: value}
}

// gatewayAddress names a waypoint by the hostname of its service. It is given
// whether or not the waypoint exists: a proxy that cannot resolve it refuses
// the connection, and what the waypoint should enforce is never skipped.
func (c *Compiler) gatewayAddress(waypoint types.NamespacedName) *workload.GatewayAddress {
	if waypoint.Name == "" {
		return nil
	}
	return &workload.GatewayAddress{
		Destination: &workload.GatewayAddress_Hostname{Hostname: &workload.NamespacedHostname{
			Namespace: waypoint.Namespace, Hostname: c.hostname(waypoint),
		}},
		HboneMtlsPort: hbonePort,
	}
}

// waypointFindings says that an object's own label names a waypoint which is
// not there.
func (c *Compiler) waypointFindings(owner graph.Key, namespace string, labels map[string]string) []Finding {
	value, bound := labels[graph.LabelUseWaypoint]
	field := "metadata.labels[" + graph.LabelUseWaypoint + "]"
	if bound && value == "" {
		return []Finding{{Object: owner, Field: field,
			Message: "the label is empty and has no effect: name a waypoint, or write none"}}
	}
	if !bound || value == graph.WaypointNone {
		return nil
	}
	gateway, ok := c.graph.Gateway(types.NamespacedName{Namespace: namespace, Name: value})
	switch {
	case !ok:
		return []Finding{{Object: owner, Field: field,
			Message: "there is no Gateway " + namespace + "/" + value +
				": connections that need this waypoint are refused; create it, or remove the label"}}
	case gateway.Object.Spec.GatewayClassName != graph.WaypointClass:
		return []Finding{{Object: owner, Field: field,
			Message: "Gateway " + namespace + "/" + value + " is of class " + string(gateway.Object.Spec.GatewayClassName) +
				": connections that need this waypoint are refused unless it accepts tunnels; use class " + graph.WaypointClass}}
	}
	return nil
}

// closure gives the resources that a client needs to follow a binding.
func (c *Compiler) closure(waypoint types.NamespacedName) []Key {
	if waypoint.Name == "" {
		return nil
	}
	if _, ok := c.graph.Service(waypoint); !ok {
		return nil
	}
	return append(c.workloadKeys(waypoint), Key{TypeAddress, c.serviceName(waypoint)})
}

// workloadKeys gives the workloads behind a service that are distributed.
func (c *Compiler) workloadKeys(svc types.NamespacedName) []Key {
	var keys []Key
	for _, pod := range c.graph.PodsOf(svc) {
		k := Key{TypeAddress, c.workloadName(pod)}
		if _, ok := c.store.slots[k]; ok {
			keys = append(keys, k)
		}
	}
	for _, slice := range c.graph.EndpointSlicesOf(svc) {
		keys = append(keys, c.store.owned[sliceKey(slice)]...)
	}
	return keys
}
