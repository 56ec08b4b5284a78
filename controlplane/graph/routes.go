package graph

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/ambit-mesh/ambit/apis/gatewayx"
	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
)

// Kinds of routes, all of the group of Gateway API.
const (
	KindHTTPRoute = "HTTPRoute"
	KindGRPCRoute = "GRPCRoute"
	KindTLSRoute  = "TLSRoute"
	KindTCPRoute  = "TCPRoute"
	KindUDPRoute  = "UDPRoute"
)

// KindXBackendTrafficPolicy is the kind of GEP-3388, of the experimental group.
const KindXBackendTrafficPolicy = "XBackendTrafficPolicy"

// KindBackendTLSPolicy is of Gateway API, KindConfigMap holds its certificates.
const (
	KindBackendTLSPolicy = "BackendTLSPolicy"
	KindConfigMap        = "ConfigMap"
)

// traffic holds routes and the policies that are attached to services and
// routes. Both are linked by name, whether or not what they name exists.
type traffic struct {
	objects map[Key]Item[Object]
	// parents has the routes by the Services and ExternalServices that they are
	// parts of.
	parents index[Key, Key]
	// targets has the policies by what they are attached to.
	targets index[Key, Key]
	// users has the routes and policies by what else they refer to: Services
	// that requests are sent to, policies used as filters.
	users index[Key, Key]
}

func newTraffic() traffic {
	return traffic{
		objects: make(map[Key]Item[Object]), parents: make(index[Key, Key]),
		targets: make(index[Key, Key]), users: make(index[Key, Key]),
	}
}

// ServiceKey names a Service.
func ServiceKey(n name) Key { return Key{Kind: "Service", Namespace: n.Namespace, Name: n.Name} }

// ExternalKey names an ExternalService.
func ExternalKey(n name) Key {
	return Key{Group: meshv1alpha1.GroupName, Kind: meshv1alpha1.KindExternalService, Namespace: n.Namespace, Name: n.Name}
}

// NamespaceKey names a Namespace.
func NamespaceKey(n string) Key { return Key{Kind: "Namespace", Name: n} }

// GatewayKey names a Gateway.
func GatewayKey(n name) Key {
	return Key{Group: gatewayv1.GroupName, Kind: "Gateway", Namespace: n.Namespace, Name: n.Name}
}

// RouteKey names a route.
func RouteKey(kind, namespace, name string) Key {
	return Key{Group: gatewayv1.GroupName, Kind: kind, Namespace: namespace, Name: name}
}

// routeKey names an object that is a route.
func routeKey(obj Object) (Key, bool) {
	kind := ""
	switch obj.(type) {
	case *gatewayv1.HTTPRoute:
		kind = KindHTTPRoute
	case *gatewayv1.GRPCRoute:
		kind = KindGRPCRoute
	case *gatewayv1.TLSRoute:
		kind = KindTLSRoute
	case *gatewayv1.TCPRoute:
		kind = KindTCPRoute
	case *gatewayv1.UDPRoute:
		kind = KindUDPRoute
	default:
		return Key{}, false
	}
	return RouteKey(kind, obj.GetNamespace(), obj.GetName()), true
}

// trafficKey names a route or a policy that is attached to services, routes or waypoints.
func trafficKey(obj Object) (Key, bool) {
	if k, ok := routeKey(obj); ok {
		return k, true
	}
	if _, ok := obj.(*gatewayxv1alpha1.XBackendTrafficPolicy); ok {
		return Key{Group: gatewayxv1alpha1.GroupName, Kind: KindXBackendTrafficPolicy, Namespace: obj.GetNamespace(), Name: obj.GetName()}, true
	}
	switch obj.(type) {
	case *gatewayx.XTelemetryPolicy:
		return Key{Group: gatewayx.GroupName, Kind: gatewayx.KindTelemetryPolicy, Namespace: obj.GetNamespace(), Name: obj.GetName()}, true
	case *gatewayv1.BackendTLSPolicy:
		return Key{Group: gatewayv1.GroupName, Kind: KindBackendTLSPolicy, Namespace: obj.GetNamespace(), Name: obj.GetName()}, true
	case *corev1.ConfigMap:
		return Key{Kind: KindConfigMap, Namespace: obj.GetNamespace(), Name: obj.GetName()}, true
	}
	if p, ok := obj.(meshv1alpha1.TrafficPolicy); ok {
		return Key{Group: meshv1alpha1.GroupName, Kind: p.PolicyKind(), Namespace: obj.GetNamespace(), Name: obj.GetName()}, true
	}
	return Key{}, false
}

// IsRoute says whether a key is one of a route.
func IsRoute(k Key) bool { return k.Group == gatewayv1.GroupName && strings.HasSuffix(k.Kind, "Route") }

func (g *Graph) setTraffic(k Key, item *Item[Object], d *Dirty) {
	old, had, changed := swap(g.traffic.objects, k, item)
	if !changed {
		return
	}
	if k.Kind == KindConfigMap && k.Group == "" {
		// It has no status: what it is used for has.
		for user := range g.traffic.users[k] {
			g.dirtyDependents(user, g.traffic.objects[user].Object, d)
		}
		return
	}
	d.Traffic[k] = struct{}{}
	if had {
		g.traffic.unlink(k, old.Object)
		g.dirtyAround(k, old.Object, d)
	}
	if item != nil {
		g.traffic.link(k, item.Object)
		g.dirtyAround(k, item.Object, d)
	}
}

func (t *traffic) link(k Key, obj Object) {
	for _, p := range Parents(obj) {
		t.parents.add(p, k)
	}
	for _, target := range Targets(obj) {
		t.targets.add(target, k)
	}
	for _, used := range References(obj) {
		t.users.add(used, k)
	}
}

func (t *traffic) unlink(k Key, obj Object) {
	for _, p := range Parents(obj) {
		t.parents.remove(p, k)
	}
	for _, target := range Targets(obj) {
		t.targets.remove(target, k)
	}
	for _, used := range References(obj) {
		t.users.remove(used, k)
	}
}

// dirtyAround marks what depends on a route or policy that has changed, as obj
// says (or said) it is linked.
func (g *Graph) dirtyAround(k Key, obj Object, d *Dirty) {
	g.dirtyDependents(k, obj, d)
	for _, used := range References(obj) {
		if used.Kind == "Service" {
			g.dirtyVersion(used, d)
		}
	}
	for _, target := range Targets(obj) {
		for sibling := range g.traffic.targets[target] {
			d.Traffic[sibling] = struct{}{}
		}
	}
}

// dirtyVersion marks what is told of a service because routes of other services
// send requests to it.
func (g *Graph) dirtyVersion(svc Key, d *Dirty) {
	d.Backends[svc.NamespacedName()] = struct{}{}
	for attached := range g.traffic.targets[svc] {
		d.Traffic[attached] = struct{}{}
	}
}

// dirtyDependents marks what is compiled from a route or a policy.
func (g *Graph) dirtyDependents(k Key, obj Object, d *Dirty) {
	d.Traffic[k] = struct{}{}
	for _, p := range Parents(obj) {
		g.dirtyParent(p, d)
	}
	for attached := range g.traffic.targets[k] {
		d.Traffic[attached] = struct{}{}
	}
	for user := range g.traffic.users[k] {
		g.dirtyFrontendsOf(user, d)
	}
	for _, target := range Targets(obj) {
		if target.Kind == "Namespace" {
			maps.Copy(d.Frontends, g.servicesByNamespace[target.Name])
			maps.Copy(d.ExternalServices, g.externalsByNamespace[target.Name])
			continue
		}
		if target.Kind == "Service" {
			d.Frontends[target.NamespacedName()] = struct{}{}
			d.Backends[target.NamespacedName()] = struct{}{}
			// A rate limit that is refused closes the rules that lead there.
			for user := range g.traffic.users[target] {
				g.dirtyFrontendsOf(user, d)
			}
			continue
		}
		if target.Kind == meshv1alpha1.KindExternalService {
			g.dirtyParent(target, d)
			continue
		}
		if target == GatewayKey(target.NamespacedName()) {
			g.dirtyServedBy(target.NamespacedName(), d)
			continue
		}
		g.dirtyFrontendsOf(target, d)
	}
}

// dirtyServedBy marks what a waypoint is told of all that it serves.
func (g *Graph) dirtyServedBy(waypoint name, d *Dirty) {
	for _, svc := range g.UsersOfWaypoint(waypoint) {
		d.Frontends[svc] = struct{}{}
	}
	maps.Copy(d.ExternalServices, g.externalsByWaypoint[waypoint])
	for ns := range g.namespacesByWaypoint[waypoint] {
		maps.Copy(d.ExternalServices, g.externalsByNamespace[ns])
	}
}

// dirtyParent marks what waypoints are told of a Service or an ExternalService.
func (g *Graph) dirtyParent(k Key, d *Dirty) {
	if k.Kind == meshv1alpha1.KindExternalService {
		d.ExternalServices[k.NamespacedName()] = struct{}{}
		return
	}
	d.Frontends[k.NamespacedName()] = struct{}{}
}

// dirtyExternal marks an ExternalService, the policies about it, and what depends on
// its routes.
func (g *Graph) dirtyExternal(n name, d *Dirty) {
	k := ExternalKey(n)
	d.ExternalServices[n] = struct{}{}
	maps.Copy(d.AuthorizationPolicies, g.authzByExternal[n])
	for _, target := range []Key{k, NamespaceKey(n.Namespace)} {
		for attached := range g.traffic.targets[target] {
			d.Traffic[attached] = struct{}{}
		}
	}
	g.dirtyRoutesOf(k, d)
}

func (g *Graph) dirtyFrontendsOf(route Key, d *Dirty) {
	if item, ok := g.traffic.objects[route]; ok {
		for _, p := range Parents(item.Object) {
			g.dirtyParent(p, d)
		}
	}
}

// dirtyTraffic marks what depends on a service that has changed, or its binding.
func (g *Graph) dirtyTraffic(svc name, d *Dirty) {
	d.Frontends[svc], d.Backends[svc] = struct{}{}, struct{}{}
	k := ServiceKey(svc)
	for user := range g.traffic.users[k] {
		g.dirtyDependents(user, g.traffic.objects[user].Object, d)
	}
	for _, target := range []Key{k, NamespaceKey(svc.Namespace)} {
		for attached := range g.traffic.targets[target] {
			d.Traffic[attached] = struct{}{}
		}
	}
	g.dirtyRoutesOf(k, d)
}

// dirtyRoutesOf marks what depends on whether a waypoint serves a parent of routes: the
// policies of these, and the services that they send requests to.
func (g *Graph) dirtyRoutesOf(parent Key, d *Dirty) {
	for route := range g.traffic.parents[parent] {
		for attached := range g.traffic.targets[route] {
			d.Traffic[attached] = struct{}{}
		}
		for _, used := range References(g.traffic.objects[route].Object) {
			if used.Kind == "Service" {
				g.dirtyVersion(used, d)
			}
		}
	}
}

// Routes gives the routes that are parts of a Service or an ExternalService, sorted.
func (g *Graph) Routes(parent Key) []Object { return g.sortedObjects(g.traffic.parents[parent]) }

// Attached gives the policies of a kind that are attached to a service or a
// route, sorted by key.
func (g *Graph) Attached(kind string, target Key) []Object {
	if len(g.traffic.targets[target]) == 0 {
		return nil // as it is for most rules of most routes
	}
	found := make(set[Key])
	for k := range g.traffic.targets[target] {
		if k.Kind == kind {
			found[k] = struct{}{}
		}
	}
	return g.sortedObjects(found)
}

// UsersOf gives the routes and policies that refer to something, sorted.
func (g *Graph) UsersOf(k Key) []Object { return g.sortedObjects(g.traffic.users[k]) }

// Traffic finds a route or a policy that is attached to services or routes.
func (g *Graph) Traffic(k Key) (Item[Object], bool) {
	item, ok := g.traffic.objects[k]
	return item, ok
}

// TrafficKeys gives the keys of all routes and attached policies, sorted.
func (g *Graph) TrafficKeys() []Key {
	out := make([]Key, 0, len(g.traffic.objects))
	for k := range g.traffic.objects {
		out = append(out, k)
	}
	slices.SortFunc(out, compareKeys)
	return out
}

func (g *Graph) sortedObjects(keys set[Key]) []Object {
	all := make([]Key, 0, len(keys))
	for k := range keys {
		all = append(all, k)
	}
	slices.SortFunc(all, compareKeys)
	out := make([]Object, 0, len(all))
	for _, k := range all {
		out = append(out, g.traffic.objects[k].Object)
	}
	return out
}

func compareKeys(a, b Key) int {
	for _, c := range []int{strings.Compare(a.Kind, b.Kind), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name), strings.Compare(a.Group, b.Group)} {
		if c != 0 {
			return c
		}
	}
	return 0
}

var _ Object = (*corev1.Service)(nil)
