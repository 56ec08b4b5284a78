package graph

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
)

func (g *Graph) setExternal(n name, item *Item[*meshv1alpha1.ExternalService], d *Dirty) {
	old, had, changed := swap(g.externals, n, item)
	if !changed {
		return
	}
	if had {
		if wp, ok := ownWaypoint(n.Namespace, old.Object.Labels); ok {
			g.externalsByWaypoint.remove(wp, n)
		}
	}
	if item != nil {
		if wp, ok := ownWaypoint(n.Namespace, item.Object.Labels); ok {
			g.externalsByWaypoint.add(wp, n)
		}
	}
	if item == nil {
		g.externalsByNamespace.remove(n.Namespace, n)
	} else {
		g.externalsByNamespace.add(n.Namespace, n)
	}
	// Another one may have wanted the same host.
	g.dirtyExternal(n, d)
	maps.Copy(d.ExternalServices, g.externalsByNamespace[n.Namespace])
}

// ExternalService finds an ExternalService.
func (g *Graph) ExternalService(n types.NamespacedName) (Item[*meshv1alpha1.ExternalService], bool) {
	item, ok := g.externals[n]
	return item, ok
}

// ExternalsOfWaypoint gives the ExternalServices whose own labels, or whose
// namespace's, name a waypoint, in no order. Some of them may be opted out.
func (g *Graph) ExternalsOfWaypoint(n types.NamespacedName) []types.NamespacedName {
	out := unsorted(g.externalsByWaypoint[n])
	for ns := range g.namespacesByWaypoint[n] {
		for es := range g.externalsByNamespace[ns] {
			if _, own := g.externalsByWaypoint[n][es]; !own {
				out = append(out, es)
			}
		}
	}
	return out
}

// ExternalServicesIn gives those of a namespace, the oldest first: of two that want
// the same host it has it.
func (g *Graph) ExternalServicesIn(namespace string) []*meshv1alpha1.ExternalService {
	var out []*meshv1alpha1.ExternalService
	for n := range g.externalsByNamespace[namespace] {
		out = append(out, g.externals[n].Object)
	}
	slices.SortFunc(out, byAge)
	return out
}

// OlderExternal says whether of two of a namespace the first comes before the other.
func OlderExternal(a, b *meshv1alpha1.ExternalService) bool { return byAge(a, b) < 0 }

func byAge(a, b *meshv1alpha1.ExternalService) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
}
