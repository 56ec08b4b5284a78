package lifecycle

import (
	"slices"
	"sync"
)

// Readiness collects what has to happen before a component may serve. The zero
// Readiness has nothing pending.
type Readiness struct {
	mu      sync.Mutex
	pending map[string]int  // guarded by mu
	notes   []func() string // guarded by mu
}

// Note has something told beside readiness that does not keep from being ready, such
// as that what is known may be out of date; "" for nothing.
func (r *Readiness) Note(note func() string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, note)
}

// Notes gives what there is to tell.
func (r *Readiness) Notes() []string {
	r.mu.Lock()
	notes := slices.Clone(r.notes)
	r.mu.Unlock()
	var out []string
	for _, note := range notes {
		if text := note(); text != "" {
			out = append(out, text)
		}
	}
	return out
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
