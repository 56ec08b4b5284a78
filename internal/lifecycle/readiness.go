package lifecycle

import (
	"slices"
	"sync"
)

// Readiness collects what has to happen before a component may serve. The zero
// Readiness has nothing pending.
type Readiness struct {
	mu      sync.Mutex
	pending map[string]int // guarded by mu
}

// Task is one thing to wait for.
type Task struct {
	r    *Readiness
	name string
	once sync.Once
}

// Task registers something pending under a name that a person can act on.
func (r *Readiness) Task(name string) *Task {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending == nil {
		r.pending = make(map[string]int)
	}
	r.pending[name]++
	return &Task{r: r, name: name}
}

// Done says that the task is no longer pending. Further calls do nothing.
func (t *Task) Done() {
	t.once.Do(func() {
		t.r.mu.Lock()
		defer t.r.mu.Unlock()
		if t.r.pending[t.name]--; t.r.pending[t.name] == 0 {
			delete(t.r.pending, t.name)
		}
	})
}

// Pending gives the sorted names of what is pending; empty means ready.
func (r *Readiness) Pending() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make([]string, 0, len(r.pending))
	for n := range r.pending {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
