package workload

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/internal/manifest"
)

// Existing is a pod that exists, seen by its owner.
type Existing struct {
	UID         types.UID
	Name        string
	Owner       manifest.Key
	Hash        string
	Node        string
	Ready       bool
	Terminating bool
	// Finished pods ran to their end and are not replaced.
	Finished bool
	Created  time.Time
}

// Action is one pod to create or one to delete.
type Action struct {
	// Create names a pod of Owner to be made; for owners whose pods have
	// generated names Name is empty.
	Owner *Owner
	Name  string
	// Delete is set instead.
	Delete types.UID
}

// Plan gives what to do next. What depends on pods becoming ready or going away
// follows in later plans.
func Plan(owners []*Owner, existing []Existing) []Action {
	byOwner := make(map[manifest.Key][]Existing)
	for _, e := range existing {
		byOwner[e.Owner] = append(byOwner[e.Owner], e)
	}
	var actions []Action
	for _, o := range owners {
		pods := byOwner[o.Key]
		delete(byOwner, o.Key)
		slices.SortFunc(pods, func(a, b Existing) int {
			return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
		})
		if o.ordinal {
			actions = append(actions, o.planNumbered(pods)...)
		} else {
			actions = append(actions, o.planReplicas(pods)...)
		}
	}
	for _, orphans := range byOwner {
		for _, e := range orphans {
			if !e.Terminating {
				actions = append(actions, Action{Delete: e.UID})
			}
		}
	}
	return actions
}

// planReplicas replaces old pods by new ones within surge and unavailable.
func (o *Owner) planReplicas(pods []Existing) []Action {
	var fresh, old []Existing
	gone := 0
	for _, e := range pods {
		switch {
		case e.Terminating:
			gone++
		case e.Hash == o.Hash:
			fresh = append(fresh, e)
		default:
			old = append(old, e)
		}
	}
	var actions []Action
	create := min(o.Replicas-len(fresh), o.Replicas+o.surge-len(fresh)-len(old))
	if len(old) == 0 {
		create = o.Replicas - len(fresh)
	}
	if o.recreate && len(old)+gone > 0 {
		create = 0
	}
	for range create {
		actions = append(actions, Action{Owner: o})
	}
	// The least useful first: not ready, then the youngest.
	for i, e := range leastUseful(fresh) {
		if i < len(fresh)-o.Replicas {
			actions = append(actions, Action{Delete: e.UID})
		}
	}
	return append(actions, o.retire(old, fresh)...)
}

// retire deletes old pods as far as enough ready ones remain.
func (o *Owner) retire(old, fresh []Existing) []Action {
	ready := 0
	for _, e := range slices.Concat(old, fresh) {
		if e.Ready {
			ready++
		}
	}
	spare := ready - (o.Replicas - o.unavailable)
	var actions []Action
	for _, e := range leastUseful(old) {
		if !e.Ready || o.recreate {
			actions = append(actions, Action{Delete: e.UID})
		} else if spare > 0 {
			spare--
			actions = append(actions, Action{Delete: e.UID})
		}
	}
	return actions
}

func leastUseful(pods []Existing) []Existing {
	sorted := slices.Clone(pods)
	slices.SortStableFunc(sorted, func(a, b Existing) int {
		if a.Ready != b.Ready {
			if a.Ready {
				return 1
			}
			return -1
		}
		return b.Created.Compare(a.Created)
	})
	return sorted
}

// planNumbered keeps one pod for each name, and replaces one at a time.
func (o *Owner) planNumbered(pods []Existing) []Action {
	wanted := make(map[string]bool)
	byName := make(map[string]Existing)
	for _, e := range pods {
		byName[e.Name] = e
	}
	var actions []Action
	allReady := true
	for i := range o.Replicas {
		name := o.numberedName(i)
		wanted[name] = true
		e, ok := byName[name]
		if !ok && (allReady || o.parallel) {
			actions = append(actions, Action{Owner: o, Name: name})
		}
		allReady = allReady && ok && (e.Ready || e.Finished) && !e.Terminating
	}
	replaced := false
	for _, e := range slices.Backward(pods) {
		switch {
		case e.Terminating:
		case !wanted[e.Name]:
			actions = append(actions, Action{Delete: e.UID})
		case e.Hash != o.Hash && !replaced && (allReady || !e.Ready):
			replaced = true
			actions = append(actions, Action{Delete: e.UID})
		}
	}
	return actions
}
