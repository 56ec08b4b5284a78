package xds

import (
	"maps"
	"slices"

	"github.com/ambit-mesh/ambit/controlplane/compile"
)

const wildcard = "*"

// subscription is what one stream wants of one type, and what it has. It
// belongs to the stream's goroutine.
type subscription struct {
	typeURL string
	all     bool
	// names are subscribed to one by one; aliases and unknown names included.
	names map[string]struct{}
	// held is what an on-demand client has been sent and has to be kept up to
	// date with: name → version. Nil for wildcard clients, whose names are the
	// log's.
	held map[string]string

	// fresh: the first answer is owed.
	fresh bool
	// initial is what the client had when it connected; until the first answer.
	initial map[string]string
	// asked are names to answer for though nothing about them may have changed.
	asked []string
	// dropped are related resources to withdraw after an unsubscription.
	dropped []string
	// withdrawn are removals that wait for the type that refers to them: name →
	// version of the removal.
	withdrawn map[string]uint64

	// position in the log: everything up to it has been sent.
	position uint64
	// refused: the last push was, so the client lacks something.
	refused bool
	// acked is the position up to which the client has everything.
	acked uint64
}

func newSubscription(typeURL string) *subscription {
	return &subscription{typeURL: typeURL, names: make(map[string]struct{}), fresh: true, withdrawn: make(map[string]uint64)}
}

// change takes the names of a request in. The first request of a type without
// names subscribes to all.
func (sub *subscription) change(first bool, subscribe, unsubscribe []string, initial map[string]string, s *store) {
	if first {
		sub.initial = initial
		sub.all = len(subscribe) == 0 && len(unsubscribe) == 0
	}
	for _, n := range subscribe {
		if n == wildcard {
			sub.subscribeAll()
			continue
		}
		sub.names[n] = struct{}{}
		sub.asked = append(sub.asked, n)
	}
	var left []string
	for _, n := range unsubscribe {
		if n == wildcard {
			sub.all = false
			continue
		}
		if _, ok := sub.names[n]; ok {
			delete(sub.names, n)
			left = append(left, n)
		}
	}
	if !sub.all && sub.held == nil {
		sub.held = make(map[string]string)
		// What an on-demand client subscribed to must be known to be held.
		sub.asked = slices.AppendSeq(sub.asked[:0], maps.Keys(sub.names))
	}
	if len(left) > 0 && !sub.all {
		sub.release(left, s)
	}
}

// subscribeAll answers as to a first request: the client is told everything
// that it is not known to have.
func (sub *subscription) subscribeAll() {
	if sub.all {
		return
	}
	if !sub.fresh {
		sub.fresh, sub.initial = true, sub.held
	}
	sub.all, sub.held = true, nil
}

// release forgets what only the names in left had brought. The client forgets
// those names by itself; of what came with them it has to be told.
func (sub *subscription) release(left []string, s *store) {
	keep := make(map[string]struct{}, len(sub.held))
	for _, st := range s.closure(sub.typeURL, slices.Collect(maps.Keys(sub.names))) {
		keep[st.name] = struct{}{}
	}
	for name := range sub.held {
		if _, ok := keep[name]; ok {
			continue
		}
		delete(sub.held, name)
		if !slices.Contains(left, name) {
			sub.dropped = append(sub.dropped, name)
		}
	}
}

// advance notes that the client has everything up to a position, unless
// something is still withheld from it.
func (sub *subscription) advance(position uint64) {
	if len(sub.withdrawn) == 0 {
		sub.acked = position
	}
}

// closure gives the live resources that names stand for and all that is related
// to them.
func (s *store) closure(typeURL string, names []string) []*state {
	seen := make(map[string]struct{})
	var found []*state
	for len(names) > 0 {
		name := names[len(names)-1]
		names = names[:len(names)-1]
		for _, st := range s.lookup(typeURL, name) {
			if _, ok := seen[st.name]; ok {
				continue
			}
			seen[st.name] = struct{}{}
			found = append(found, st)
			names = append(names, related(st.res)...)
		}
	}
	return found
}

func related(r *compile.Resource) []string {
	if r.Related == nil {
		return nil
	}
	var names []string
	for _, k := range r.Related() {
		if k.Type == r.Type {
			names = append(names, k.Name)
		}
	}
	return names
}
