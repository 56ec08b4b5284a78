package compile

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/controlplane/compile/route"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/controlplane/provision"
)

// touchedBy gives the objects whose status a batch may have changed, sorted. It
// is called when the batch is compiled, with the routes that were told something
// before.
func (c *Compiler) touchedBy(d *graph.Dirty) []graph.Key {
	touched := make(map[graph.Key]struct{})
	for n := range d.AuthorizationPolicies {
		touched[authzKey(n)] = struct{}{}
	}
	for n := range d.PeerAuthentications {
		touched[peerKey(n.Namespace, n.Name)] = struct{}{}
	}
	if len(d.PeerAuthentications) > 0 { // they inherit from each other
		for _, s := range c.policies.peers.Statuses() {
			touched[peerKey(s.Namespace, s.Name)] = struct{}{}
		}
	}
	for k := range d.Traffic {
		touched[k] = struct{}{}
	}
	for n := range d.Services {
		touched[serviceKey(n)] = struct{}{}
		c.touchGateway(n, touched) // it may be the waypoint's own
	}
	for n := range d.Gateways {
		// Whether its pods are ready is told of what is bound to it, too.
		touched[graph.GatewayKey(n)] = struct{}{}
		touched[graph.NamespaceKey(n.Namespace)] = struct{}{}
		for _, svc := range c.graph.UsersOfWaypoint(n) {
			touched[serviceKey(svc)] = struct{}{}
		}
		for _, es := range c.graph.ExternalsOfWaypoint(n) {
			touched[externalKey(es)] = struct{}{}
		}
	}
	for n := range d.Namespaces {
		touched[graph.NamespaceKey(n)] = struct{}{}
	}
	for n := range d.ExternalServices {
		touched[externalKey(n)] = struct{}{}
	}
	maps.Copy(touched, c.retold)
	clear(c.retold)
	return slices.SortedFunc(maps.Keys(touched), compareObjects)
}

func (c *Compiler) touchGateway(n types.NamespacedName, touched map[graph.Key]struct{}) {
	if _, ok := c.graph.Waypoint(n); ok {
		touched[graph.GatewayKey(n)] = struct{}{}
	}
}

// retell notes that routes are told something else about a parent, and that its
// waypoint may carry out another number of them.
func (c *Compiler) retell(svc graph.Key, now []route.Parent, waypoint types.NamespacedName) {
	for _, list := range [][]route.Parent{c.parents[svc], now} {
		for _, p := range list {
			c.retold[p.Route] = struct{}{}
		}
	}
	for _, n := range []types.NamespacedName{c.served[svc], waypoint} {
		c.touchGateway(n, c.retold)
	}
	if waypoint.Name == "" {
		delete(c.served, svc)
	} else {
		c.served[svc] = waypoint
	}
	if now == nil {
		delete(c.parents, svc)
	} else {
		c.parents[svc] = now
	}
}

// ObjectStatus is what the status of one object should say. What does not apply
// to its kind is empty.
type ObjectStatus struct {
	// Policy is that of a policy, or has the conditions of a Service.
	Policy meshv1alpha1.PolicyStatus
	// Parents are of a route.
	Parents []gatewayv1.RouteParentStatus
	// Gateway is of a waypoint.
	Gateway *gatewayv1.GatewayStatus
	// External is of an ExternalService.
	External *meshv1alpha1.ExternalServiceStatus
}

// StatusOf gives the status of one object; false if the object is not there or
// nothing is to be said of it.
func (c *Compiler) StatusOf(k graph.Key) (ObjectStatus, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	n := k.NamespacedName()
	switch {
	case k == serviceKey(n):
		return c.serviceStatus(n)
	case k == graph.GatewayKey(n):
		w, ok := c.waypoint(n)
		if !ok || w.Implied {
			return ObjectStatus{}, false
		}
		return ObjectStatus{Gateway: &w.Status}, true
	case graph.IsRoute(k):
		return c.routeStatus(k)
	case k == graph.NamespaceKey(k.Name):
		return c.namespaceStatus(k.Name)
	case k == externalKey(n):
		s, ok := c.externalStatus(n)
		return ObjectStatus{External: &s}, ok
	case k == authzKey(n):
		t, ok := c.policies.translations[n]
		return ObjectStatus{Policy: t.Status}, ok
	case k == peerKey(n.Namespace, n.Name):
		for _, s := range c.policies.peers.Statuses() {
			if s.Namespace == n.Namespace && s.Name == n.Name {
				return ObjectStatus{Policy: s.Status}, true
			}
		}
		return ObjectStatus{}, false
	}
	s, ok := c.attached[k]
	return ObjectStatus{Policy: s}, ok
}

func (c *Compiler) serviceStatus(n types.NamespacedName) (ObjectStatus, bool) {
	b := c.serviceBinding(n)
	if !b.bound() {
		return ObjectStatus{}, false
	}
	item, _ := c.graph.Service(n)
	return ObjectStatus{Policy: meshv1alpha1.PolicyStatus{Conditions: conditions(c.boundCondition(item.Object.Generation, b))}}, true
}

// routeStatus gathers what is said of each parent of a route, in their order.
func (c *Compiler) routeStatus(k graph.Key) (ObjectStatus, bool) {
	item, ok := c.graph.Traffic(k)
	if !ok {
		return ObjectStatus{}, false
	}
	var parents []route.Parent
	for _, svc := range graph.Parents(item.Object) {
		for _, p := range c.parents[svc] {
			if p.Route == k {
				parents = append(parents, p)
			}
		}
	}
	slices.SortFunc(parents, func(a, b route.Parent) int { return a.Index - b.Index })
	var out ObjectStatus
	for _, p := range parents {
		out.Parents = append(out.Parents, p.Status)
	}
	return out, len(out.Parents) > 0
}

// Waypoint finds a waypoint, as Waypoints gives it.
func (c *Compiler) Waypoint(n types.NamespacedName) (Waypoint, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.waypoint(n)
}

func (c *Compiler) waypoint(n types.NamespacedName) (Waypoint, bool) {
	gw, ok := c.graph.Waypoint(n)
	if !ok || gw.Spec.GatewayClassName != graph.WaypointClass {
		return Waypoint{}, false
	}
	_, written := c.graph.Gateway(n)
	v, f := provision.Check(gw), c.facts(n)
	return Waypoint{Gateway: gw, Implied: !written, Verdict: v, Facts: f, Status: provision.Status(gw, v, f)}, true
}

// attachedRoutes counts the routes that a waypoint carries out, each once.
func (c *Compiler) attachedRoutes(n types.NamespacedName) int32 {
	found := make(map[graph.Key]struct{})
	count := func(parent graph.Key) {
		if c.served[parent] != n {
			return
		}
		for _, p := range c.parents[parent] {
			if accepted(p.Status.Conditions) {
				found[p.Route] = struct{}{}
			}
		}
	}
	for _, svc := range c.graph.UsersOfWaypoint(n) {
		count(serviceKey(svc))
	}
	for _, es := range c.graph.ExternalsOfWaypoint(n) {
		count(externalKey(es))
	}
	return int32(len(found))
}
