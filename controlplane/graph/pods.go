package graph

import (
	"maps"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// Finished says that a pod will not run again: its addresses may belong to
// another already.
func Finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// Addresses gives the valid addresses of a pod, in order.
func Addresses(p *corev1.Pod) []netip.Addr {
	ips := p.Status.PodIPs
	if len(ips) == 0 && p.Status.PodIP != "" {
		ips = []corev1.PodIP{{IP: p.Status.PodIP}}
	}
	out := make([]netip.Addr, 0, len(ips))
	for _, ip := range ips {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// ServiceAccount gives the name of a pod's service account.
func ServiceAccount(p *corev1.Pod) string {
	if p.Spec.ServiceAccountName == "" {
		return "default"
	}
	return p.Spec.ServiceAccountName
}

func (g *Graph) setPod(n name, item *Item[*corev1.Pod], d *Dirty) {
	old, had, changed := swap(g.pods, n, item)
	if !changed {
		return
	}
	d.Pods[n] = struct{}{}
	if had {
		g.dirtyNeighbours(old.Object, d)
		g.dirtyServed(n, old.Object, d)
		g.unlinkPod(n, old.Object)
	}
	if item != nil {
		g.linkPod(n, item.Object)
		g.dirtyNeighbours(item.Object, d)
		g.dirtyServed(n, item.Object, d)
	}
}

// dirtyServed marks what else is told of what a pod serves: services that have
// named ports, because only their pods know the numbers, and the Gateway that it
// was made for.
func (g *Graph) dirtyServed(n name, p *corev1.Pod, d *Dirty) {
	for _, svc := range g.servicesOf(n, p) {
		if hasNamedPort(g.services[svc].Object) {
			d.Services[svc] = struct{}{}
		}
	}
	if gw := p.Labels[LabelGatewayName]; gw != "" {
		d.Gateways[name{Namespace: n.Namespace, Name: gw}] = struct{}{}
	}
}

// dirtyNeighbours marks what else is told of a pod's addresses and uid: endpoint
// slices that list one, and pods that claim the same.
func (g *Graph) dirtyNeighbours(p *corev1.Pod, d *Dirty) {
	maps.Copy(d.Pods, g.podsByUID[p.UID])
	for _, a := range Addresses(p) {
		for s := range g.slicesByAddress[a] {
			d.EndpointSlices[s] = struct{}{}
		}
		maps.Copy(d.Pods, g.podsByAddress[a])
	}
}

func (g *Graph) linkPod(n name, p *corev1.Pod) {
	g.podsByNamespace.add(n.Namespace, n)
	for k, v := range p.Labels {
		g.podsByLabel.add(pair{n.Namespace, k, v}, n)
	}
	if wp, ok := ownWaypoint(n.Namespace, p.Labels); ok {
		g.podsByWaypoint.add(wp, n)
	}
	if p.UID != "" {
		g.podsByUID.add(p.UID, n)
	}
	if p.Spec.NodeName != "" {
		g.podsByNode.add(p.Spec.NodeName, n)
	}
	if Finished(p) {
		return
	}
	if p.Spec.NodeName != "" {
		sa := ServiceAccount(p)
		g.podsByAccount.add(account{p.Spec.NodeName, n.Namespace, sa}, n)
		g.podsByAccount.add(account{"", n.Namespace, sa}, n)
	}
	if !p.Spec.HostNetwork {
		for _, a := range Addresses(p) {
			g.podsByAddress.add(a, n)
		}
	}
}

func (g *Graph) unlinkPod(n name, p *corev1.Pod) {
	g.podsByNamespace.remove(n.Namespace, n)
	for k, v := range p.Labels {
		g.podsByLabel.remove(pair{n.Namespace, k, v}, n)
	}
	if wp, ok := ownWaypoint(n.Namespace, p.Labels); ok {
		g.podsByWaypoint.remove(wp, n)
	}
	g.podsByUID.remove(p.UID, n)
	g.podsByNode.remove(p.Spec.NodeName, n)
	sa := ServiceAccount(p)
	g.podsByAccount.remove(account{p.Spec.NodeName, n.Namespace, sa}, n)
	g.podsByAccount.remove(account{"", n.Namespace, sa}, n)
	for _, a := range Addresses(p) {
		g.podsByAddress.remove(a, n)
	}
}

func (g *Graph) setNode(n string, item *Item[*corev1.Node], d *Dirty) {
	old, had, changed := swap(g.nodes, n, item)
	if !changed {
		return
	}
	// Heartbeats change nodes all the time; only their place matters.
	if had && item != nil && LocalityOf(old.Object) == LocalityOf(item.Object) {
		return
	}
	maps.Copy(d.Pods, g.podsByNode[n])
}

// Locality is where a node is, from its well-known labels.
type Locality struct{ Region, Zone string }

// LocalityOf reads the locality of a node.
func LocalityOf(n *corev1.Node) Locality {
	return Locality{n.Labels[corev1.LabelTopologyRegion], n.Labels[corev1.LabelTopologyZone]}
}
