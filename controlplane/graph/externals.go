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
	if _, _, changed := swap(g.externals, n, item); !changed {
		return
	}
	if item == nil {
		g.externalsByNamespace.remove(n.Namespace, n)
	} else {
		g.externalsByNamespace.add(n.Namespace, n)
	}
	// Another one may have wanted the same host.
	d.ExternalServices[n] = struct{}{}
	maps.Copy(d.ExternalServices, g.externalsByNamespace[n.Namespace])
}

// ExternalService finds an ExternalService.
func (g *Graph) ExternalService(n types.NamespacedName) (Item[*meshv1alpha1.ExternalService], bool) {
	item, ok := g.externals[n]
	return item, ok
}

// ExternalServicesIn gives those of a namespace, the oldest first: of two that want
// the same host it has it.
func (g *Graph) ExternalServicesIn(namespace string) []*meshv1alpha1.ExternalService {
	var out []*meshv1alpha1.ExternalService
	for n := range g.externalsByNamespace[namespace] {
		out = append(out, g.externals[n].Object)
	}
	slices.SortFunc(out, func(a, b *meshv1alpha1.ExternalService) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
	return out
}
