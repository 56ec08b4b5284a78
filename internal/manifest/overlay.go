package manifest

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
)

// Batch is what changed. Its parts are sorted.
type Batch struct {
	// Upserts are objects that are new or different, or were moved to another
	// line. An object that only moved is the same pointer as before.
	Upserts []Object
	Deletes []Key
	// Problems are all there are now, not only the new ones.
	Problems []Problem
}

// overlay merges layers and remembers what it gave out.
type overlay struct {
	layers []*layer
	// candidates are the definitions of each key, in the order of layers.
	candidates map[Key][]candidate
	current    map[Key]Object
	duplicates map[Key][]Problem
	problems   []Problem
}

// candidate is a definition of a key.
type candidate struct {
	layer  int
	object Object
}

func newOverlay(layers []*layer) *overlay {
	return &overlay{
		layers:     layers,
		candidates: make(map[Key][]candidate),
		current:    make(map[Key]Object),
		duplicates: make(map[Key][]Problem),
	}
}

// replace takes over what changed in the files of one layer and gives the keys
// concerned.
func (v *overlay) replace(index int, touched []touch) []Key {
	var keys []Key
	for _, t := range touched {
		concerned := make(map[Key]bool, len(t.keys))
		for _, k := range t.keys {
			concerned[k] = true
			v.candidates[k] = slices.DeleteFunc(v.candidates[k], func(c candidate) bool {
				return c.layer == index && c.object.Source.File == t.path
			})
		}
		if f := v.layers[index].files[t.path]; f != nil {
			for _, o := range slices.Concat(f.objects, f.kept) {
				if concerned[o.Key()] {
					v.candidates[o.Key()] = append(v.candidates[o.Key()], candidate{index, o})
				}
			}
		}
		keys = append(keys, t.keys...)
	}
	for _, k := range keys {
		if len(v.candidates[k]) > 1 {
			slices.SortFunc(v.candidates[k], func(a, b candidate) int {
				return cmp.Or(cmp.Compare(a.layer, b.layer), a.object.Source.Compare(b.object.Source))
			})
		}
	}
	return keys
}

// settle decides the touched keys and gives what changed, and whether anything
// did.
func (v *overlay) settle(touched []Key) (Batch, bool) {
	slices.SortFunc(touched, Key.Compare)
	var b Batch
	for _, k := range slices.Compact(touched) {
		winner, ok := v.winner(k)
		old, had := v.current[k]
		switch {
		case !ok && had:
			delete(v.current, k)
			b.Deletes = append(b.Deletes, k)
		case ok:
			if had && winner.Resource != old.Resource && equality.Semantic.DeepEqual(winner.Resource, old.Resource) {
				winner.Resource = old.Resource
			}
			if had && winner.definition != nil && old.definition != nil && *winner.definition == *old.definition {
				winner.definition = old.definition
			}
			if !had || winner != old {
				v.current[k] = winner
				b.Upserts = append(b.Upserts, winner)
			}
		}
	}
	b.Problems = v.collect()
	changed := len(b.Upserts)+len(b.Deletes) > 0 || !slices.Equal(b.Problems, v.problems)
	v.problems = b.Problems
	return b, changed
}

// winner gives the definition that counts: that of the last layer, and within it
// the first. It records the others of that layer as duplicates.
func (v *overlay) winner(k Key) (Object, bool) {
	delete(v.duplicates, k)
	all := v.candidates[k]
	if len(all) == 0 {
		delete(v.candidates, k)
		return Object{}, false
	}
	for i := 1; i < len(all); i++ {
		if first := firstOfLayer(all, all[i].layer); first != i {
			v.duplicates[k] = append(v.duplicates[k], Problem{
				Position: all[i].object.Source, Object: k.String(),
				Message: fmt.Sprintf("already defined at %s, which counts: remove one of the two", all[first].object.Source),
			})
		}
	}
	return all[firstOfLayer(all, all[len(all)-1].layer)].object, true
}

func firstOfLayer(all []candidate, layer int) int {
	return slices.IndexFunc(all, func(c candidate) bool { return c.layer == layer })
}

// collect gives all problems, sorted.
func (v *overlay) collect() []Problem {
	var all []Problem
	for _, l := range v.layers {
		if l.problem != nil {
			all = append(all, *l.problem)
		}
		for _, f := range l.files {
			all = append(all, f.problems...)
		}
	}
	for _, list := range v.duplicates {
		all = append(all, list...)
	}
	slices.SortFunc(all, Problem.compare)
	return all
}
