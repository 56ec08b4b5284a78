package workload

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/ambit-mesh/ambit/internal/manifest"
)

// Schedule picks a node for a pod: the one that it names, or among those that
// its nodeSelector allows the one with the fewest pods of the same owner, then
// with the fewest pods.
func Schedule(p *corev1.Pod, owner manifest.Key, nodes []*corev1.Node, existing []Existing) (string, error) {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.Name
	}
	if want := p.Spec.NodeName; want != "" {
		if !slices.Contains(names, want) {
			return "", fmt.Errorf("spec.nodeName: there is no node %q: want one of %s, or start with more --nodes", want, strings.Join(names, ", "))
		}
		return want, nil
	}
	selector := labels.SelectorFromSet(p.Spec.NodeSelector)
	kin, all := make(map[string]int), make(map[string]int)
	for _, e := range existing {
		all[e.Node]++
		if e.Owner == owner && !e.Terminating {
			kin[e.Node]++
		}
	}
	var fits []string
	for _, n := range nodes {
		if selector.Matches(labels.Set(n.Labels)) {
			fits = append(fits, n.Name)
		}
	}
	if len(fits) == 0 {
		return "", fmt.Errorf("spec.nodeSelector: no node has the labels %s: nodes are %s, each with the label %s", selector, strings.Join(names, ", "), corev1.LabelHostname)
	}
	return slices.MinFunc(fits, func(a, b string) int {
		return cmp.Or(cmp.Compare(kin[a], kin[b]), cmp.Compare(all[a], all[b]))
	}), nil
}
