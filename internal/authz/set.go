package authz

import (
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ambit-mesh/ambit/apis/security"
)

// Set is a snapshot of all policies that are known. It never changes; With
// gives another one. It is safe for concurrent use.
type Set struct {
	policies map[string]map[string]*Policy
	size     int
	global   *group
	scoped   map[string]*group

	// evaluators holds an *entry for each workload that was asked about, by
	// cacheKey.
	evaluators sync.Map
}

// group is the policies of one scope, in order of their keys.
type group struct {
	policies []*Policy
	indexed  sync.Once
	allow    *index
	deny     *index
	audit    *index
	// allowed are the enforced ALLOW policies that have the rest refused.
	allowed []*Policy
}

type entry struct {
	namespace string
	selected  []string
	evaluator *Evaluator
	// used says that the entry was asked for since the snapshot was made; an
	// entry that was not is not taken along into the next one.
	used atomic.Bool
}

// NewSet gives a snapshot of the policies. Of two with one key the later counts.
func NewSet(policies ...*Policy) *Set {
	return (&Set{}).With(policies, nil)
}

// With gives a snapshot in which the removed policies are gone and then the
// updated ones are there. What it costs depends on the namespaces that change,
// and not on the others. Evaluators of workloads that the change does not
// concern are kept: For gives the very same one, so that its user can tell that
// there is nothing to do.
func (s *Set) With(updated []*Policy, removed []Key) *Set {
	next := &Set{
		policies: maps.Clone(s.policies), size: s.size,
		global: s.global, scoped: maps.Clone(s.scoped),
	}
	if next.policies == nil {
		next.policies, next.scoped = map[string]map[string]*Policy{}, map[string]*group{}
	}
	c := change{set: next, cloned: map[string]bool{}, groups: map[string]bool{}}
	for _, key := range removed {
		c.replace(key, nil)
	}
	for _, p := range updated {
		if p != nil {
			c.replace(p.key, p)
		}
	}
	c.regroup()
	s.evaluators.Range(func(key, value any) bool {
		if e := value.(*entry); e.used.Load() && next.serves(e) {
			next.evaluators.Store(key, &entry{namespace: e.namespace, selected: e.selected, evaluator: e.evaluator})
		}
		return true
	})
	return next
}

// change is a snapshot in the making.
type change struct {
	set *Set
	// cloned are the namespaces whose policies are not shared with the snapshot
	// before.
	cloned map[string]bool
	// groups are the namespaces whose group is to be made again, and global
	// says the same of the global one.
	groups map[string]bool
	global bool
}

func (c *change) replace(key Key, p *Policy) {
	names := c.set.policies[key.Namespace]
	if !c.cloned[key.Namespace] {
		names = maps.Clone(names)
		if names == nil {
			names = map[string]*Policy{}
		}
		c.set.policies[key.Namespace], c.cloned[key.Namespace] = names, true
	}
	if before := names[key.Name]; before != nil {
		c.touch(before)
		delete(names, key.Name)
		c.set.size--
	}
	if p != nil {
		c.touch(p)
		names[key.Name] = p
		c.set.size++
	}
	if len(names) == 0 {
		delete(c.set.policies, key.Namespace)
		delete(c.cloned, key.Namespace)
	}
}

func (c *change) touch(p *Policy) {
	switch p.scope {
	case security.Scope_GLOBAL:
		c.global = true
	case security.Scope_NAMESPACE:
		c.groups[p.key.Namespace] = true
	}
}

func (c *change) regroup() {
	for namespace := range c.groups {
		delete(c.set.scoped, namespace)
		if g := newGroup(c.set.policies[namespace], security.Scope_NAMESPACE); g != nil {
			c.set.scoped[namespace] = g
		}
	}
	if !c.global {
		return
	}
	c.set.global = nil
	all := map[string]*Policy{}
	for _, names := range c.set.policies {
		for _, p := range names {
			if p.scope == security.Scope_GLOBAL {
				all[p.key.String()] = p
			}
		}
	}
	c.set.global = newGroup(all, security.Scope_GLOBAL)
}

// newGroup gives nil if there is no policy of that scope.
func newGroup(policies map[string]*Policy, scope security.Scope) *group {
	g := &group{}
	for _, p := range policies {
		if p.scope == scope {
			g.policies = append(g.policies, p)
		}
	}
	if len(g.policies) == 0 {
		return nil
	}
	slices.SortFunc(g.policies, func(a, b *Policy) int { return compareKeys(a.key, b.key) })
	return g
}

// Get finds a policy.
func (s *Set) Get(key Key) (*Policy, bool) {
	p, ok := s.policies[key.Namespace][key.Name]
	return p, ok
}

// Len gives the number of policies.
func (s *Set) Len() int { return s.size }

// All gives every policy, in no order.
func (s *Set) All() iter.Seq[*Policy] {
	return func(yield func(*Policy) bool) {
		for _, names := range s.policies {
			for _, p := range names {
				if !yield(p) {
					return
				}
			}
		}
	}
}
