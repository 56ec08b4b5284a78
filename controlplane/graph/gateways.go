package graph

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// A waypoint's listener.
const (
	WaypointPort     = 15008
	ProtocolHBONE    = gatewayv1.ProtocolType("HBONE")
	waypointListener = gatewayv1.SectionName("mesh")
)

// ownWaypoint gives the waypoint that the labels of an object of a namespace
// name; false if they name none or opt out.
func ownWaypoint(namespace string, labels map[string]string) (types.NamespacedName, bool) {
	value := labels[LabelUseWaypoint]
	if value == "" || value == WaypointNone {
		return name{}, false
	}
	if other := labels[LabelUseWaypointNamespace]; other != "" {
		namespace = other
	}
	return name{Namespace: namespace, Name: value}, true
}

// Use is what an object's labels say about waypoints.
type Use struct {
	// Waypoint that is to be used; zero for none.
	Waypoint types.NamespacedName
	// OfNamespace: it is the namespace's label that says so.
	OfNamespace bool
	// OptedOut: the object's own label says none.
	OptedOut bool
}

// WaypointUse gives the waypoint that an object of a namespace is to use, by its
// own labels or else by those of the namespace. What is generated for a waypoint
// uses none.
func (g *Graph) WaypointUse(namespace string, labels map[string]string) Use {
	if g.IsWaypoint(namespace, labels) {
		return Use{}
	}
	if own, ok := ownWaypoint(namespace, labels); ok {
		return Use{Waypoint: own}
	}
	if labels[LabelUseWaypoint] == WaypointNone {
		return Use{OptedOut: true}
	}
	if ns, ok := g.namespaces[namespace]; ok {
		if wp, ok := ownWaypoint(namespace, ns.Object.Labels); ok {
			return Use{Waypoint: wp, OfNamespace: true}
		}
	}
	return Use{}
}

// impliedGateway gives the Gateway that a namespace's label asks for, or nil if
// no Gateway can have that name, or if it would be another namespace's.
func impliedGateway(namespace string, n name) *gatewayv1.Gateway {
	if n.Namespace != namespace || len(validation.IsDNS1035Label(n.Name)) > 0 {
		return nil
	}
	return &gatewayv1.Gateway{
		TypeMeta:   metav1.TypeMeta{APIVersion: gatewayv1.GroupVersion.String(), Kind: "Gateway"},
		ObjectMeta: metav1.ObjectMeta{Namespace: n.Namespace, Name: n.Name},
		Spec: gatewayv1.GatewaySpec{
			GatewayClassName: WaypointClass,
			Listeners:        []gatewayv1.Listener{{Name: waypointListener, Port: WaypointPort, Protocol: ProtocolHBONE}},
		},
	}
}

// Implies says whether the label of a Namespace asks for a waypoint that is there by
// that alone.
func Implies(ns *corev1.Namespace) bool {
	n, ok := ownWaypoint(ns.Name, ns.Labels)
	return ok && impliedGateway(ns.Name, n) != nil
}

// Waypoint finds the Gateway of a name or, if there is none and the namespace's
// label asks for it, what stands in for it. Whether it is of the class of
// waypoints is for the caller to see.
func (g *Graph) Waypoint(n types.NamespacedName) (*gatewayv1.Gateway, bool) {
	if item, ok := g.gateways[n]; ok {
		return item.Object, true
	}
	gw, ok := g.implied[n]
	return gw, ok
}

// Waypoints gives all Gateways of the class, implied ones included, sorted.
func (g *Graph) Waypoints() []types.NamespacedName {
	found := make(set[name])
	for n := range g.gateways {
		found[n] = struct{}{}
	}
	for n := range g.implied {
		found[n] = struct{}{}
	}
	for n := range found {
		if gw, _ := g.Waypoint(n); gw.Spec.GatewayClassName != WaypointClass {
			delete(found, n)
		}
	}
	return sorted(found)
}

// IsWaypoint says whether an object of a namespace was generated for a waypoint,
// by its labels and the Gateway that they name.
func (g *Graph) IsWaypoint(namespace string, objectLabels map[string]string) bool {
	_, ok := g.WaypointFor(namespace, objectLabels)
	return ok
}

// WaypointFor gives the waypoint that an object of a namespace was generated for.
func (g *Graph) WaypointFor(namespace string, objectLabels map[string]string) (types.NamespacedName, bool) {
	value := objectLabels[LabelGatewayName]
	if value == "" {
		return name{}, false
	}
	n := name{Namespace: namespace, Name: value}
	gw, ok := g.Waypoint(n)
	return n, ok && gw.Spec.GatewayClassName == WaypointClass
}

func (g *Graph) setGateway(n name, item *Item[*gatewayv1.Gateway], d *Dirty) {
	if _, _, changed := swap(g.gateways, n, item); !changed {
		return
	}
	delete(g.selecting, n)
	if item != nil && selects(item.Object) {
		g.selecting[n] = struct{}{}
	}
	g.dirtyGateway(n, d)
}

func selects(gw *gatewayv1.Gateway) bool {
	for _, l := range gw.Spec.Listeners {
		if l.AllowedRoutes != nil && l.AllowedRoutes.Namespaces != nil && l.AllowedRoutes.Namespaces.Selector != nil {
			return true
		}
	}
	return false
}

// dirtyGateway marks a Gateway, what is generated for it, which must have no
// waypoint itself, and what is bound to it.
func (g *Graph) dirtyGateway(n name, d *Dirty) {
	d.Gateways[n] = struct{}{}
	for attached := range g.traffic.targets[GatewayKey(n)] {
		d.Traffic[attached] = struct{}{}
	}
	maps.Copy(d.Pods, g.podsByLabel[pair{n.Namespace, LabelGatewayName, n.Name}])
	for svc := range g.servicesByNamespace[n.Namespace] {
		g.dirtyService(svc, d)
	}
	maps.Copy(d.Pods, g.podsByWaypoint[n])
	for svc := range g.servicesByWaypoint[n] {
		g.dirtyService(svc, d)
	}
	for es := range g.externalsByWaypoint[n] {
		g.dirtyExternal(es, d)
	}
	for ns := range g.namespacesByWaypoint[n] {
		d.Namespaces[ns] = struct{}{}
		g.dirtyNamespace(ns, d)
	}
}

// dirtyService marks a service, the policies about it, and what waypoints are told
// of it.
func (g *Graph) dirtyService(n name, d *Dirty) {
	d.Services[n] = struct{}{}
	maps.Copy(d.AuthorizationPolicies, g.authzByService[n])
	g.dirtyTraffic(n, d)
}

// UsersOfWaypoint gives the services whose own labels, or whose namespace's, name
// a waypoint, in no order. Some of them may be opted out.
func (g *Graph) UsersOfWaypoint(n types.NamespacedName) []types.NamespacedName {
	out := unsorted(g.servicesByWaypoint[n])
	for ns := range g.namespacesByWaypoint[n] {
		for svc := range g.servicesByNamespace[ns] {
			if _, own := g.servicesByWaypoint[n][svc]; !own {
				out = append(out, svc)
			}
		}
	}
	return out
}
