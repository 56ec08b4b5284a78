package graph

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

func (g *Graph) setNamespace(n string, item *Item[*corev1.Namespace], d *Dirty) {
	old, had, changed := swap(g.namespaces, n, item)
	if !changed {
		return
	}
	d.Namespaces[n] = struct{}{}
	var before, after *corev1.Namespace
	if had {
		before = old.Object
	}
	if item != nil {
		after = item.Object
	}
	g.implyWaypoint(n, before, after, d)
	was, is := labelsOf(before), labelsOf(after)
	if differ(was, is, LabelUseWaypoint) || differ(was, is, LabelUseWaypointNamespace) || annotation(before) != annotation(after) ||
		BoundWaypoint(before) != BoundWaypoint(after) {
		g.dirtyNamespace(n, d)
	}
	if differ(was, is, LabelDataplaneMode) || differ(was, is, LabelOutbound) || dnsCapture(before) != dnsCapture(after) {
		maps.Copy(d.Pods, g.podsByNamespace[n])
	}
	if !maps.Equal(was, is) {
		g.dirtyAdmitted(n, d)
	}
}

func differ(a, b map[string]string, label string) bool { return a[label] != b[label] }

// dirtyNamespace marks everything that may inherit from a namespace.
func (g *Graph) dirtyNamespace(n string, d *Dirty) {
	maps.Copy(d.Pods, g.podsByNamespace[n])
	for svc := range g.servicesByNamespace[n] {
		g.dirtyService(svc, d)
	}
	for es := range g.externalsByNamespace[n] {
		g.dirtyExternal(es, d)
	}
}

// dirtyAdmitted marks what of a namespace is bound to a waypoint that admits
// namespaces by their labels.
func (g *Graph) dirtyAdmitted(n string, d *Dirty) {
	for gw := range g.selecting {
		if _, ok := g.namespacesByWaypoint[gw][n]; ok {
			d.Namespaces[n] = struct{}{}
			g.dirtyNamespace(n, d)
			continue
		}
		for svc := range g.servicesByWaypoint[gw] {
			if svc.Namespace == n {
				g.dirtyService(svc, d)
			}
		}
		for es := range g.externalsByWaypoint[gw] {
			if es.Namespace == n {
				g.dirtyExternal(es, d)
			}
		}
		for pod := range g.podsByWaypoint[gw] {
			if pod.Namespace == n {
				d.Pods[pod] = struct{}{}
			}
		}
	}
}

func labelsOf(ns *corev1.Namespace) map[string]string {
	if ns == nil {
		return nil
	}
	return ns.Labels
}

func dnsCapture(ns *corev1.Namespace) string {
	if ns == nil {
		return ""
	}
	return ns.Annotations[AnnotationDNSCapture]
}

func annotation(ns *corev1.Namespace) string {
	if ns == nil {
		return ""
	}
	return ns.Annotations[AnnotationFailOpen] + " " + ns.Annotations[AnnotationTransport]
}

// implyWaypoint keeps account of the waypoint that a namespace's label names. One
// of the namespace itself exists by that alone.
func (g *Graph) implyWaypoint(n string, before, after *corev1.Namespace, d *Dirty) {
	was, had := ownWaypoint(n, labelsOf(before))
	is, has := ownWaypoint(n, labelsOf(after))
	if had {
		g.namespacesByWaypoint.remove(was, n)
	}
	if has {
		g.namespacesByWaypoint.add(is, n)
	}
	if had && has && was == is {
		return
	}
	if had && was.Namespace == n {
		delete(g.implied, was)
		g.dirtyGateway(was, d)
	}
	if gw := impliedGateway(n, is); has && gw != nil {
		g.implied[is] = gw
		g.dirtyGateway(is, d)
	}
}

// Asks gives the waypoint of a namespace that its own label names.
func (g *Graph) Asks(namespace string) (types.NamespacedName, bool) {
	ns, ok := g.namespaces[namespace]
	if !ok {
		return name{}, false
	}
	n, ok := ownWaypoint(namespace, ns.Object.Labels)
	return n, ok && n.Namespace == namespace
}

// AskedFor says whether the label of a waypoint's own namespace names it.
func (g *Graph) AskedFor(n types.NamespacedName) bool {
	asked, ok := g.Asks(n.Namespace)
	return ok && asked == n
}

// MarkNamespace marks everything that may inherit from a namespace.
func (g *Graph) MarkNamespace(n string, d *Dirty) { g.dirtyNamespace(n, d) }
