// Package frontend holds the services that a waypoint serves, compiled, and finds
// them by the address or name that a client asked for.
package frontend

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/waypoint/internal/jwt"
	"github.com/ambit-mesh/ambit/waypoint/internal/spans"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// Entry is one service. It is immutable.
type Entry struct {
	// Key is <namespace>/<hostname>.
	Key string
	// Routes are its compiled routes.
	Routes *route.Frontend
	// Tokens verifies the tokens of requests; nil when the service wants none.
	Tokens *jwt.Verifier
	// Spans is where its spans go; nil when that is the waypoint's own collector.
	Spans *spans.Collector
	// Config is what the control plane sent.
	Config *waypoint.Frontend
	// leaves is when a service that is no longer bound is forgotten; zero while
	// it is bound.
	leaves time.Time
}

// Linger is for how long a service that is no longer bound is served on: the
// nodes of clients hear of it a moment earlier or later than the waypoint.
const Linger = 5 * time.Second

// Leaving reports whether the service is no longer bound.
func (e *Entry) Leaving() bool { return !e.leaves.IsZero() }

// present gives the entry unless it is to be forgotten.
func (e *Entry) present() *Entry {
	if e != nil && e.Leaving() && time.Now().After(e.leaves) {
		return nil
	}
	return e
}

// Table is all services. Lookups take no lock; Update is for one goroutine at a
// time.
type Table struct {
	tokens  *jwt.Manager  // may be nil in tests
	spans   *spans.Set    // so may this
	mu      sync.Mutex    // serialises updates
	changed chan struct{} // closed and replaced at each update; guarded by mu
	current atomic.Pointer[tables]
}

type tables struct {
	byKey  map[string]*Entry
	byAddr map[netip.Addr]*Entry
	byHost map[string]*Entry
}

// New makes an empty table whose services verify tokens with tokens, and send spans to
// collectors of set.
func New(tokens *jwt.Manager, set *spans.Set) *Table {
	t := &Table{tokens: tokens, spans: set, changed: make(chan struct{})}
	t.current.Store(&tables{byKey: map[string]*Entry{}, byAddr: map[netip.Addr]*Entry{}, byHost: map[string]*Entry{}})
	return t
}

// Key finds a service by its key; nil when there is none.
func (t *Table) Key(key string) *Entry { return t.current.Load().byKey[key].present() }

// Address finds a service by a virtual address.
func (t *Table) Address(a netip.Addr) *Entry { return t.current.Load().byAddr[a.Unmap()].present() }

// Host finds a service by its hostname. Of hosts outside that several namespaces know
// it is the one of the client's namespace; without one, nobody can say which is meant.
func (t *Table) Host(namespace, host string) *Entry {
	n := t.current.Load()
	if e := n.byKey[namespace+"/"+host].present(); e != nil {
		return e
	}
	return n.byHost[host].present()
}

// Changed gives a channel that is closed at the next update.
func (t *Table) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// All gives the services that are bound, sorted.
func (t *Table) All() []*Entry {
	all := slices.SortedFunc(maps.Values(t.current.Load().byKey), func(a, b *Entry) int { return strings.Compare(a.Key, b.Key) })
	return slices.DeleteFunc(all, (*Entry).Leaving)
}

// Update replaces and removes services at once, and gives what is wrong with
// each by its key. One that cannot be carried out as it was sent leaves the last
// good one in place; where there is none it is taken all the same, and what is
// wrong with it refuses requests.
func (t *Table) Update(updated map[string]*waypoint.Frontend, removed []string) map[string]error {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := &tables{byKey: maps.Clone(t.current.Load().byKey)}
	t.leave(next.byKey, removed)
	wrong := make(map[string]error)
	for key, pb := range updated {
		if want := pb.GetNamespace() + "/" + pb.GetHostname(); want != key {
			wrong[key] = fmt.Errorf("frontend %s: under the resource name %s", want, key)
			continue
		}
		last := next.byKey[key]
		e, err := t.entry(key, pb)
		if err != nil {
			wrong[key] = err
			if last != nil && !last.Leaving() {
				t.restore(last)
				continue
			}
		}
		e.Spans = t.spans.Use(key, e.Routes.Telemetry)
		next.byKey[key] = e
	}
	next.index()
	t.current.Store(next)
	close(t.changed)
	t.changed = make(chan struct{})
	return wrong
}

// leave forgets services that were removed a while ago, and lets those that are
// removed now linger.
func (t *Table) leave(all map[string]*Entry, removed []string) {
	for key, e := range all {
		if e.present() == nil {
			delete(all, key)
			if t.tokens != nil {
				t.tokens.Delete(key)
			}
		}
	}
	for _, key := range removed {
		if e := all[key]; e != nil && !e.Leaving() {
			last := *e
			last.leaves = time.Now().Add(Linger)
			all[key] = &last
			t.spans.Use(key, nil) // which lingers, too
		}
	}
}

// entry compiles a service.
func (t *Table) entry(key string, pb *waypoint.Frontend) (*Entry, error) {
	routes, problems := route.Compile(pb)
	e := &Entry{Key: key, Routes: routes, Config: pb}
	var errs []error
	if len(problems) > 0 {
		errs = append(errs, fmt.Errorf("frontend %s: %w", key, problems[0]))
	}
	if t.tokens != nil {
		tokens, wrong := t.tokens.Set(key, pb.GetJwtProviders())
		e.Tokens, errs = tokens, append(errs, wrong...)
	}
	return e, errors.Join(errs...)
}

// restore has the tokens of a service that stays verified as before.
func (t *Table) restore(e *Entry) {
	if t.tokens != nil {
		_, _ = t.tokens.Set(e.Key, e.Config.GetJwtProviders())
	}
}

func (n *tables) index() {
	n.byAddr = make(map[netip.Addr]*Entry, len(n.byKey))
	n.byHost = make(map[string]*Entry, len(n.byKey))
	var ambiguous []string
	for _, leaving := range []bool{true, false} { // what is bound has the last word
		for _, e := range n.byKey {
			if e.Leaving() != leaving {
				continue
			}
			host := e.Config.GetHostname()
			if other := n.byHost[host]; other != nil && !other.Leaving() && other.Key != e.Key {
				ambiguous = append(ambiguous, host)
			}
			n.byHost[host] = e
			for _, b := range e.Config.GetAddresses() {
				if a, ok := netip.AddrFromSlice(b); ok {
					n.byAddr[a.Unmap()] = e
				}
			}
		}
	}
	for _, host := range ambiguous {
		delete(n.byHost, host)
	}
}
