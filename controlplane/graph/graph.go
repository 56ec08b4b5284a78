package graph

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
)

// Item is an object of a known type with its origin.
type Item[T any] struct {
	Object T
	Origin Origin
}

// account is a service account on a node; node "" is for any.
type account struct{ node, namespace, name string }

// Graph holds the objects of a mesh and their links. It is not safe for
// concurrent use while Apply runs.
type Graph struct {
	namespaces map[string]Item[*corev1.Namespace]
	nodes      map[string]Item[*corev1.Node]
	pods       map[name]Item[*corev1.Pod]
	services   map[name]Item[*corev1.Service]
	slices     map[name]Item[*discoveryv1.EndpointSlice]
	gateways   map[name]Item[*gatewayv1.Gateway]
	authz      map[name]Item[*meshv1alpha1.AuthorizationPolicy]
	peerAuthn  map[name]Item[*meshv1alpha1.PeerAuthentication]
	externals  map[name]Item[*meshv1alpha1.ExternalService]

	podsByNamespace index[string, name]
	podsByNode      index[string, name]
	podsByLabel     index[pair, name]
	// podsByAddress has live pods only, and none that share the node's address.
	podsByAddress index[netip.Addr, name]
	podsByUID     index[types.UID, name]
	// podsByAccount has pods that have not finished and are bound to a node.
	podsByAccount index[account, name]

	servicesByNamespace  index[string, name]
	externalsByNamespace index[string, name]
	serviceSelectors     Selectors
	servicesByAddress    index[netip.Addr, name]

	slicesByService index[name, name]
	slicesByAddress index[netip.Addr, name]

	// authzByService has the policies that name a service, existing or not.
	authzByService index[name, name]
	// authzByExternal has those that name an ExternalService.
	authzByExternal index[name, name]

	// implied are the waypoints that a namespace's label asks for. A Gateway of
	// that name takes precedence.
	implied map[name]*gatewayv1.Gateway
	// By the waypoint that their own labels name, existing or not.
	namespacesByWaypoint index[name, string]
	servicesByWaypoint   index[name, name]
	podsByWaypoint       index[name, name]
	externalsByWaypoint  index[name, name]
	// selecting are the Gateways that admit namespaces by label.
	selecting set[name]

	traffic traffic
}

// New gives an empty graph.
func New() *Graph {
	return &Graph{
		namespaces: make(map[string]Item[*corev1.Namespace]),
		nodes:      make(map[string]Item[*corev1.Node]),
		pods:       make(map[name]Item[*corev1.Pod]),
		services:   make(map[name]Item[*corev1.Service]),
		slices:     make(map[name]Item[*discoveryv1.EndpointSlice]),
		gateways:   make(map[name]Item[*gatewayv1.Gateway]),
		authz:      make(map[name]Item[*meshv1alpha1.AuthorizationPolicy]),
		peerAuthn:  make(map[name]Item[*meshv1alpha1.PeerAuthentication]),
		externals:  make(map[name]Item[*meshv1alpha1.ExternalService]),

		podsByNamespace: make(index[string, name]),
		podsByNode:      make(index[string, name]),
		podsByLabel:     make(index[pair, name]),
		podsByAddress:   make(index[netip.Addr, name]),
		podsByUID:       make(index[types.UID, name]),
		podsByAccount:   make(index[account, name]),

		servicesByNamespace:  make(index[string, name]),
		externalsByNamespace: make(index[string, name]),
		serviceSelectors:     NewSelectors(),
		servicesByAddress:    make(index[netip.Addr, name]),

		slicesByService: make(index[name, name]),
		slicesByAddress: make(index[netip.Addr, name]),

		authzByService:  make(index[name, name]),
		authzByExternal: make(index[name, name]),

		implied:              make(map[name]*gatewayv1.Gateway),
		namespacesByWaypoint: make(index[name, string]),
		servicesByWaypoint:   make(index[name, name]),
		podsByWaypoint:       make(index[name, name]),
		externalsByWaypoint:  make(index[name, name]),
		selecting:            make(set[name]),

		traffic: newTraffic(),
	}
}

// Dirty names everything whose contents or links a batch may have changed. A
// name may be that of an object that no longer exists.
type Dirty struct {
	Namespaces            map[string]struct{}
	Pods                  map[types.NamespacedName]struct{}
	Services              map[types.NamespacedName]struct{}
	EndpointSlices        map[types.NamespacedName]struct{}
	Gateways              map[types.NamespacedName]struct{}
	AuthorizationPolicies map[types.NamespacedName]struct{}
	PeerAuthentications   map[types.NamespacedName]struct{}
	ExternalServices      map[types.NamespacedName]struct{}

	// Frontends and Backends are Services whose waypoint resources are to be
	// compiled.
	Frontends map[types.NamespacedName]struct{}
	Backends  map[types.NamespacedName]struct{}
	// Traffic are routes and attached policies whose status may be another.
	Traffic map[Key]struct{}
}

func newDirty() *Dirty {
	return &Dirty{
		Namespaces:            make(map[string]struct{}),
		Pods:                  make(map[name]struct{}),
		Services:              make(map[name]struct{}),
		EndpointSlices:        make(map[name]struct{}),
		Gateways:              make(map[name]struct{}),
		AuthorizationPolicies: make(map[name]struct{}),
		PeerAuthentications:   make(map[name]struct{}),
		ExternalServices:      make(map[name]struct{}),
		Frontends:             make(map[name]struct{}),
		Backends:              make(map[name]struct{}),
		Traffic:               make(map[Key]struct{}),
	}
}

// Apply takes a batch of changes, first the deletes, and gives what they made
// dirty. Objects of kinds that the graph does not link are disregarded.
func (g *Graph) Apply(ch Changes) *Dirty {
	d := newDirty()
	for _, k := range ch.Deletes {
		g.remove(k, d)
	}
	for _, e := range ch.Upserts {
		g.upsert(e, d)
	}
	return d
}

func (g *Graph) upsert(e Entry, d *Dirty) {
	n := name{Namespace: e.Object.GetNamespace(), Name: e.Object.GetName()}
	switch o := e.Object.(type) {
	case *corev1.Namespace:
		g.setNamespace(o.Name, &Item[*corev1.Namespace]{o, e.Origin}, d)
	case *corev1.Node:
		g.setNode(o.Name, &Item[*corev1.Node]{o, e.Origin}, d)
	case *corev1.Pod:
		g.setPod(n, &Item[*corev1.Pod]{o, e.Origin}, d)
	case *corev1.Service:
		g.setService(n, &Item[*corev1.Service]{o, e.Origin}, d)
	case *discoveryv1.EndpointSlice:
		g.setSlice(n, &Item[*discoveryv1.EndpointSlice]{o, e.Origin}, d)
	case *gatewayv1.Gateway:
		g.setGateway(n, &Item[*gatewayv1.Gateway]{o, e.Origin}, d)
	case *meshv1alpha1.AuthorizationPolicy:
		g.setAuthz(n, &Item[*meshv1alpha1.AuthorizationPolicy]{o, e.Origin}, d)
	case *meshv1alpha1.PeerAuthentication:
		g.setPeerAuthn(n, &Item[*meshv1alpha1.PeerAuthentication]{o, e.Origin}, d)
	case *meshv1alpha1.ExternalService:
		g.setExternal(n, &Item[*meshv1alpha1.ExternalService]{o, e.Origin}, d)
	default:
		if k, ok := trafficKey(e.Object); ok {
			g.setTraffic(k, &Item[Object]{e.Object, e.Origin}, d)
		}
	}
}

func (g *Graph) remove(k Key, d *Dirty) {
	n := k.NamespacedName()
	switch k.Group + "/" + k.Kind {
	case "/Namespace":
		g.setNamespace(k.Name, nil, d)
	case "/Node":
		g.setNode(k.Name, nil, d)
	case "/Pod":
		g.setPod(n, nil, d)
	case "/Service":
		g.setService(n, nil, d)
	case discoveryv1.GroupName + "/EndpointSlice":
		g.setSlice(n, nil, d)
	case gatewayv1.GroupName + "/Gateway":
		g.setGateway(n, nil, d)
	case meshv1alpha1.GroupName + "/" + meshv1alpha1.KindAuthorizationPolicy:
		g.setAuthz(n, nil, d)
	case meshv1alpha1.GroupName + "/" + meshv1alpha1.KindPeerAuthentication:
		g.setPeerAuthn(n, nil, d)
	case meshv1alpha1.GroupName + "/" + meshv1alpha1.KindExternalService:
		g.setExternal(n, nil, d)
	default:
		g.setTraffic(k, nil, d)
	}
}

// swap stores or deletes an item and gives the one before. changed is false if
// the very same object is stored again, which updates its origin only.
func swap[K comparable, T comparable](table map[K]Item[T], k K, item *Item[T]) (old Item[T], had, changed bool) {
	old, had = table[k]
	if item == nil {
		delete(table, k)
		return old, had, had
	}
	table[k] = *item
	return old, had, !had || old.Object != item.Object
}
