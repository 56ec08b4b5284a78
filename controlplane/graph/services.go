package graph

import (
	"maps"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// VirtualAddresses gives the valid cluster addresses of a service, in order. A
// headless one has none, nor has one that was not given any yet.
func VirtualAddresses(s *corev1.Service) []netip.Addr {
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	ips := s.Spec.ClusterIPs
	if len(ips) == 0 {
		ips = []string{s.Spec.ClusterIP}
	}
	var out []netip.Addr
	for _, ip := range ips {
		if a, err := netip.ParseAddr(ip); err == nil && !a.IsUnspecified() && !a.IsLoopback() {
			out = append(out, a.Unmap())
		}
	}
	return out
}

func (g *Graph) setService(n name, item *Item[*corev1.Service], d *Dirty) {
	old, had, changed := swap(g.services, n, item)
	if !changed {
		return
	}
	d.Services[n] = struct{}{}
	g.dirtyTraffic(n, d)
	if had {
		g.dirtyBehind(n, old.Object, d)
		g.servicesByNamespace.remove(n.Namespace, n)
		if wp, ok := ownWaypoint(n.Namespace, old.Object.Labels); ok {
			g.servicesByWaypoint.remove(wp, n)
		}
		g.serviceSelectors.Remove(n)
		for _, a := range VirtualAddresses(old.Object) {
			g.servicesByAddress.remove(a, n)
			maps.Copy(d.Services, g.servicesByAddress[a])
		}
	}
	if item != nil {
		g.servicesByNamespace.add(n.Namespace, n)
		if wp, ok := ownWaypoint(n.Namespace, item.Object.Labels); ok {
			g.servicesByWaypoint.add(wp, n)
		}
		if len(item.Object.Spec.Selector) > 0 {
			g.serviceSelectors.Set(n, labels.SelectorFromSet(item.Object.Spec.Selector))
		}
		for _, a := range VirtualAddresses(item.Object) {
			g.servicesByAddress.add(a, n)
			maps.Copy(d.Services, g.servicesByAddress[a])
		}
		g.dirtyBehind(n, item.Object, d)
	}
	maps.Copy(d.EndpointSlices, g.slicesByService[n])
	maps.Copy(d.AuthorizationPolicies, g.authzByService[n])
	// It may be the service of a waypoint.
	d.Gateways[n] = struct{}{}
}

func hasNamedPort(s *corev1.Service) bool {
	for i := range s.Spec.Ports {
		if s.Spec.Ports[i].TargetPort.Type == intstr.String {
			return true
		}
	}
	return false
}

// dirtyBehind marks the pods of a service.
func (g *Graph) dirtyBehind(n name, s *corev1.Service, d *Dirty) {
	g.behind(n, s, func(p name) { d.Pods[p] = struct{}{} })
}

// behind calls yield for each pod of a service, finished ones included: those
// that its selector chooses or, if it has none, those that its endpoint slices
// list. It may call it more than once for a pod.
func (g *Graph) behind(n name, s *corev1.Service, yield func(name)) {
	if len(s.Spec.Selector) > 0 {
		g.selected(n.Namespace, labels.SelectorFromSet(s.Spec.Selector), yield)
		return
	}
	for slice := range g.slicesByService[n] {
		g.podsOfSlice(g.slices[slice].Object, yield)
	}
}

// selected calls yield for each pod of a namespace that a selector chooses,
// looking at those only that have the rarest label that it demands.
func (g *Graph) selected(namespace string, sel labels.Selector, yield func(name)) {
	smallest, found := set[name](nil), false
	for k, v := range demanded(sel) {
		if s := g.podsByLabel[pair{namespace, k, v}]; !found || len(s) < len(smallest) {
			smallest, found = s, true
		}
	}
	if !found {
		smallest = g.podsByNamespace[namespace]
	}
	for n := range smallest {
		if sel.Matches(labels.Set(g.pods[n].Object.Labels)) {
			yield(n)
		}
	}
}

// ServiceOf names the service that an endpoint slice belongs to.
func ServiceOf(s *discoveryv1.EndpointSlice) (name, bool) {
	svc := s.Labels[discoveryv1.LabelServiceName]
	return name{Namespace: s.Namespace, Name: svc}, svc != ""
}

func (g *Graph) setSlice(n name, item *Item[*discoveryv1.EndpointSlice], d *Dirty) {
	old, had, changed := swap(g.slices, n, item)
	if !changed {
		return
	}
	d.EndpointSlices[n] = struct{}{}
	if had {
		g.dirtyListed(old.Object, d)
		if svc, ok := ServiceOf(old.Object); ok {
			g.slicesByService.remove(svc, n)
		}
		eachAddress(old.Object, func(a netip.Addr) { g.slicesByAddress.remove(a, n) })
	}
	if item != nil {
		if svc, ok := ServiceOf(item.Object); ok {
			g.slicesByService.add(svc, n)
		}
		eachAddress(item.Object, func(a netip.Addr) { g.slicesByAddress.add(a, n) })
		g.dirtyListed(item.Object, d)
	}
}

// dirtyListed marks the pods that are behind a service by way of this slice.
func (g *Graph) dirtyListed(s *discoveryv1.EndpointSlice, d *Dirty) {
	svc, ok := ServiceOf(s)
	if !ok || g.hasSelector(svc) {
		return
	}
	d.Services[svc] = struct{}{}
	g.podsOfSlice(s, func(p name) { d.Pods[p] = struct{}{} })
}

func (g *Graph) podsOfSlice(s *discoveryv1.EndpointSlice, yield func(name)) {
	if s == nil || s.AddressType == discoveryv1.AddressTypeFQDN {
		return
	}
	for i := range s.Endpoints {
		for _, a := range s.Endpoints[i].Addresses {
			if addr, err := netip.ParseAddr(a); err == nil {
				g.podsAt(s.Namespace, addr.Unmap(), s.Endpoints[i].TargetRef, yield)
			}
		}
	}
}

// podsAt calls yield for the pods that an endpoint address stands for: the one
// that it names, if that has the address, else those that have it alone.
func (g *Graph) podsAt(namespace string, a netip.Addr, ref *corev1.ObjectReference, yield func(name)) {
	if ref != nil && ref.Kind == "Pod" {
		n := name{Namespace: ref.Namespace, Name: ref.Name}
		if n.Namespace == "" {
			n.Namespace = namespace
		}
		if p, ok := g.pods[n]; ok && !Finished(p.Object) && has(Addresses(p.Object), a) {
			yield(n)
			return
		}
	}
	for n := range g.podsByAddress[a] {
		yield(n)
	}
}

func has(addrs []netip.Addr, a netip.Addr) bool {
	for _, x := range addrs {
		if x == a {
			return true
		}
	}
	return false
}

func eachAddress(s *discoveryv1.EndpointSlice, yield func(netip.Addr)) {
	if s.AddressType == discoveryv1.AddressTypeFQDN {
		return
	}
	for i := range s.Endpoints {
		for _, a := range s.Endpoints[i].Addresses {
			if addr, err := netip.ParseAddr(a); err == nil {
				yield(addr.Unmap())
			}
		}
	}
}

func (g *Graph) hasSelector(svc name) bool {
	item, ok := g.services[svc]
	return ok && len(item.Object.Spec.Selector) > 0
}
