package graph

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
)

// Namespace finds a namespace.
func (g *Graph) Namespace(n string) (Item[*corev1.Namespace], bool) {
	item, ok := g.namespaces[n]
	return item, ok
}

// Node finds a node.
func (g *Graph) Node(n string) (Item[*corev1.Node], bool) {
	item, ok := g.nodes[n]
	return item, ok
}

// Pod finds a pod.
func (g *Graph) Pod(n types.NamespacedName) (Item[*corev1.Pod], bool) {
	item, ok := g.pods[n]
	return item, ok
}

// Pods gives the names of all pods.
func (g *Graph) Pods() map[types.NamespacedName]struct{} {
	out := make(set[name], len(g.pods))
	for n := range g.pods {
		out[n] = struct{}{}
	}
	return out
}

// PodByUID finds the name of a pod. If several claim a uid, it is that of the one
// whose name sorts first.
func (g *Graph) PodByUID(uid types.UID) (types.NamespacedName, bool) {
	names := sorted(g.podsByUID[uid])
	if len(names) == 0 {
		return name{}, false
	}
	return names[0], true
}

// PodsAt gives the live pods that have an address of their own, sorted.
func (g *Graph) PodsAt(a netip.Addr) []types.NamespacedName { return sorted(g.podsByAddress[a]) }

// PodsIn gives the pods of a namespace, in no order.
func (g *Graph) PodsIn(namespace string) []types.NamespacedName {
	return unsorted(g.podsByNamespace[namespace])
}

// PodsSelected gives the pods of a namespace that a selector chooses, in no
// order.
func (g *Graph) PodsSelected(namespace string, sel labels.Selector) []types.NamespacedName {
	var out []name
	g.selected(namespace, sel, func(n name) { out = append(out, n) })
	return out
}

// PodsRunningAs gives the pods that run as a service account and have not
// finished, sorted; on any node when node is "".
func (g *Graph) PodsRunningAs(node, namespace, serviceAccount string) []types.NamespacedName {
	return sorted(g.podsByAccount[account{node, namespace, serviceAccount}])
}

// Service finds a service.
func (g *Graph) Service(n types.NamespacedName) (Item[*corev1.Service], bool) {
	item, ok := g.services[n]
	return item, ok
}

// Services gives the names of all services.
func (g *Graph) Services() map[types.NamespacedName]struct{} {
	out := make(set[name], len(g.services))
	for n := range g.services {
		out[n] = struct{}{}
	}
	return out
}

// ServicesIn gives the services of a namespace, in no order.
func (g *Graph) ServicesIn(namespace string) []types.NamespacedName {
	return unsorted(g.servicesByNamespace[namespace])
}

// ServicesAt gives the services that have a virtual address, sorted.
func (g *Graph) ServicesAt(a netip.Addr) []types.NamespacedName {
	return sorted(g.servicesByAddress[a])
}

// ServicesOf gives the services that a pod is behind, sorted.
func (g *Graph) ServicesOf(n types.NamespacedName) []types.NamespacedName {
	item, ok := g.pods[n]
	if !ok {
		return nil
	}
	return g.servicesOf(n, item.Object)
}

func (g *Graph) servicesOf(n name, p *corev1.Pod) []types.NamespacedName {
	found := make(set[name])
	g.serviceSelectors.Matching(n.Namespace, p.Labels, func(s name) { found[s] = struct{}{} })
	for _, a := range Addresses(p) {
		for slice := range g.slicesByAddress[a] {
			if svc, ok := g.listedBy(slice, n); ok {
				found[svc] = struct{}{}
			}
		}
	}
	return sorted(found)
}

// listedBy gives the service without a selector that a pod is behind because an
// endpoint slice lists it.
func (g *Graph) listedBy(slice, pod name) (name, bool) {
	s := g.slices[slice].Object
	svc, ok := ServiceOf(s)
	if !ok {
		return name{}, false
	}
	item, exists := g.services[svc]
	if !exists || len(item.Object.Spec.Selector) > 0 {
		return name{}, false
	}
	listed := false
	g.podsOfSlice(s, func(p name) { listed = listed || p == pod })
	return svc, listed
}

// PodsOf gives the pods behind a service, sorted, finished ones included.
func (g *Graph) PodsOf(svc types.NamespacedName) []types.NamespacedName {
	item, ok := g.services[svc]
	if !ok {
		return nil
	}
	found := make(set[name])
	g.behind(svc, item.Object, func(n name) { found[n] = struct{}{} })
	return sorted(found)
}

// EndpointSlice finds an endpoint slice.
func (g *Graph) EndpointSlice(n types.NamespacedName) (Item[*discoveryv1.EndpointSlice], bool) {
	item, ok := g.slices[n]
	return item, ok
}

// EndpointSlicesOf gives the endpoint slices of a service, sorted.
func (g *Graph) EndpointSlicesOf(svc types.NamespacedName) []types.NamespacedName {
	return sorted(g.slicesByService[svc])
}

// IsPod says whether an endpoint address is that of a pod. One that is said to be
// a pod's is, though the pod is not known yet, or no more: it has no workload but
// the pod's.
func (g *Graph) IsPod(s *discoveryv1.EndpointSlice, ep *discoveryv1.Endpoint, a netip.Addr) bool {
	found := ep.TargetRef != nil && ep.TargetRef.Kind == "Pod"
	g.podsAt(s.Namespace, a, ep.TargetRef, func(name) { found = true })
	return found
}

// Gateway finds a Gateway.
func (g *Graph) Gateway(n types.NamespacedName) (Item[*gatewayv1.Gateway], bool) {
	item, ok := g.gateways[n]
	return item, ok
}

// AuthorizationPolicy finds a policy.
func (g *Graph) AuthorizationPolicy(n types.NamespacedName) (Item[*meshv1alpha1.AuthorizationPolicy], bool) {
	item, ok := g.authz[n]
	return item, ok
}

// PeerAuthentication finds a policy.
func (g *Graph) PeerAuthentication(n types.NamespacedName) (Item[*meshv1alpha1.PeerAuthentication], bool) {
	item, ok := g.peerAuthn[n]
	return item, ok
}

// PeerAuthentications gives all of them, sorted by name.
func (g *Graph) PeerAuthentications() []*meshv1alpha1.PeerAuthentication {
	out := make([]*meshv1alpha1.PeerAuthentication, 0, len(g.peerAuthn))
	for _, item := range g.peerAuthn {
		out = append(out, item.Object)
	}
	slices.SortFunc(out, func(a, b *meshv1alpha1.PeerAuthentication) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return out
}

func sorted(s set[name]) []name {
	out := unsorted(s)
	slices.SortFunc(out, func(a, b name) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return out
}

func unsorted(s set[name]) []name {
	out := make([]name, 0, len(s))
	for n := range s {
		out = append(out, n)
	}
	return out
}

// PodsOn gives the pods that are bound to a node, in no order.
func (g *Graph) PodsOn(node string) []types.NamespacedName { return unsorted(g.podsByNode[node]) }

// Origin gives where a field of an object is defined, "" the object itself; "" if
// that is not known.
func (g *Graph) Origin(k Key, field string) string {
	if at := g.origin(k); at != nil {
		return at(field)
	}
	return ""
}

func (g *Graph) origin(k Key) Origin {
	n := k.NamespacedName()
	switch k.Kind {
	case "Namespace":
		return g.namespaces[k.Name].Origin
	case "Node":
		return g.nodes[k.Name].Origin
	case "Pod":
		return g.pods[n].Origin
	case "Service":
		return g.services[n].Origin
	case "EndpointSlice":
		return g.slices[n].Origin
	case "Gateway":
		return g.gateways[n].Origin
	case meshv1alpha1.KindAuthorizationPolicy:
		return g.authz[n].Origin
	case meshv1alpha1.KindPeerAuthentication:
		return g.peerAuthn[n].Origin
	case meshv1alpha1.KindExternalService:
		return g.externals[n].Origin
	}
	return g.traffic.objects[k].Origin
}

// Namespaces gives the names of all, sorted.
func (g *Graph) Namespaces() []string { return slices.Sorted(maps.Keys(g.namespaces)) }
