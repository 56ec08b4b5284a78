package graph

import (
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
)

// name is what every namespaced table is keyed by.
type name = types.NamespacedName

// set is a set of comparable values.
type set[V comparable] map[V]struct{}

// index is a multi-valued map without empty values.
type index[K, V comparable] map[K]set[V]

func (x index[K, V]) add(k K, v V) {
	s := x[k]
	if s == nil {
		s = make(set[V], 1)
		x[k] = s
	}
	s[v] = struct{}{}
}

func (x index[K, V]) remove(k K, v V) {
	if s := x[k]; s != nil {
		delete(s, v)
		if len(s) == 0 {
			delete(x, k)
		}
	}
}

// pair is one label in one namespace.
type pair struct{ namespace, key, value string }

// Selectors finds the objects of a namespace whose selector chooses a set of
// labels, without looking at those that share no label with it.
type Selectors struct {
	selectors map[name]labels.Selector
	// byPair files each selector under one label that it demands; chosen says
	// which. Selectors that demand none (only expressions, or empty) are in rest.
	byPair index[pair, name]
	chosen map[name]pair
	rest   index[string, name]
}

// NewSelectors gives an empty index.
func NewSelectors() Selectors {
	return Selectors{
		selectors: make(map[name]labels.Selector),
		byPair:    make(index[pair, name]),
		chosen:    make(map[name]pair),
		rest:      make(index[string, name]),
	}
}

// Set files an object under a selector, in place of the one before.
func (x *Selectors) Set(n types.NamespacedName, sel labels.Selector) {
	x.Remove(n)
	x.selectors[n] = sel
	best, fewest := pair{}, -1
	for k, v := range demanded(sel) {
		p := pair{n.Namespace, k, v}
		// The rarest label keeps buckets short where a label is on everything.
		if count := len(x.byPair[p]); fewest < 0 || count < fewest {
			best, fewest = p, count
		}
	}
	if fewest < 0 {
		x.rest.add(n.Namespace, n)
		return
	}
	x.byPair.add(best, n)
	x.chosen[n] = best
}

// Remove forgets an object.
func (x *Selectors) Remove(n types.NamespacedName) {
	if p, ok := x.chosen[n]; ok {
		x.byPair.remove(p, n)
		delete(x.chosen, n)
	}
	x.rest.remove(n.Namespace, n)
	delete(x.selectors, n)
}

// demanded gives the labels without which a selector chooses nothing.
func demanded(sel labels.Selector) map[string]string {
	requirements, _ := sel.Requirements()
	out := make(map[string]string, len(requirements))
	for _, r := range requirements {
		switch r.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
			if values := r.ValuesUnsorted(); len(values) == 1 {
				out[r.Key()] = values[0]
			}
		}
	}
	return out
}

// Matching calls yield for each object of the namespace whose selector chooses
// the labels.
func (x *Selectors) Matching(namespace string, set labels.Set, yield func(types.NamespacedName)) {
	for k, v := range set {
		for n := range x.byPair[pair{namespace, k, v}] {
			if x.selectors[n].Matches(set) {
				yield(n)
			}
		}
	}
	for n := range x.rest[namespace] {
		if x.selectors[n].Matches(set) {
			yield(n)
		}
	}
}
