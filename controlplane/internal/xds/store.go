package xds

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ambit-mesh/ambit/controlplane/compile"
)

// store holds the current resources and the change log of each type.
type store struct {
	maxTombstones int

	mu      sync.RWMutex
	version uint64              // guarded by mu; rises with every Apply that changes something
	logs    map[string]*typeLog // guarded by mu; by type URL
}

// typeLog is one type's resources, linked in the order of their last change.
type typeLog struct {
	entries map[string]*entry
	aliases map[string][]*entry // live entries only
	oldest  entry               // sentinel: oldest.next changed longest ago, oldest.prev last
	live    int
	tombs   []tombstone // in the order of the log
	// floor is the version of the newest tombstone that was given up. Who is
	// not past it may have missed a removal.
	floor uint64
}

// entry is a name and its present state.
type entry struct {
	*state
	version    uint64 // of the store, at the last change
	prev, next *entry
}

// state is what a name stands for, shared by all clients. It is immutable.
type state struct {
	name string
	// wire and res are nil when the resource is gone.
	wire *discovery.Resource
	res  *compile.Resource
	// viewer restricts who may see it, "" nobody; former are the viewers that
	// could see it earlier and have to be told that it is gone.
	viewer string
	former []string
}

// tombstone marks that entry was gone at a version; stale if it came back.
type tombstone struct {
	entry   *entry
	version uint64
}

func (st *state) gone() bool { return st.res == nil }

// liveFor says whether a viewer may see the resource.
func (st *state) liveFor(viewer string) bool {
	return !st.gone() && (st.viewer == "" || st.viewer == viewer)
}

// goneFor says whether a viewer may have seen it, and no more does.
func (st *state) goneFor(viewer string) bool {
	return !st.liveFor(viewer) && (st.viewer == "" || st.viewer == viewer || slices.Contains(st.former, viewer))
}

func newStore(maxTombstones int) *store {
	return &store{maxTombstones: maxTombstones, logs: make(map[string]*typeLog)}
}

func newTypeLog() *typeLog {
	l := &typeLog{entries: make(map[string]*entry), aliases: make(map[string][]*entry)}
	l.oldest.prev, l.oldest.next = &l.oldest, &l.oldest
	return l
}

// apply takes a delta and gives the version that contains it. A resource that
// cannot be encoded keeps its former state.
func (s *store) apply(d compile.Delta) (version uint64, err error) {
	wires := make([]*discovery.Resource, len(d.Updated))
	var errs []error
	for i, r := range d.Updated {
		if wires[i], err = encode(r); err != nil {
			errs = append(errs, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.version + 1
	for i, r := range d.Updated {
		if wires[i] != nil && s.log(r.Type).update(r, wires[i], next) {
			s.version = next
		}
	}
	for _, k := range d.Removed {
		if s.log(k.Type).remove(k.Name, next) {
			s.version = next
		}
	}
	return s.version, errors.Join(errs...)
}

func encode(r *compile.Resource) (*discovery.Resource, error) {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(r.Body)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", r.Type, r.Name, err)
	}
	return &discovery.Resource{Name: r.Name, Version: r.Version, Resource: &anypb.Any{TypeUrl: r.Type, Value: body}}, nil
}

// log gives the log of a type, made if need be. Called with mu held for writing.
func (s *store) log(typeURL string) *typeLog {
	l, ok := s.logs[typeURL]
	if !ok {
		l = newTypeLog()
		s.logs[typeURL] = l
	}
	return l
}

// update reports whether clients have to be told.
func (l *typeLog) update(r *compile.Resource, wire *discovery.Resource, version uint64) bool {
	e, ok := l.entries[r.Name]
	if !ok {
		e = &entry{state: &state{name: r.Name}}
		l.entries[r.Name] = e
	}
	viewer := viewerOf(r)
	if !e.gone() && e.res.Version == r.Version && e.viewer == viewer && slices.Equal(e.res.Aliases, r.Aliases) {
		same := *e.state
		same.res = r
		e.state = &same
		return false
	}
	if e.gone() {
		l.live++
	} else {
		l.unalias(e)
	}
	former := e.former
	if e.viewer != "" && e.viewer != viewer && !slices.Contains(former, e.viewer) {
		former = append(slices.Clone(former), e.viewer)
	}
	e.state = &state{name: r.Name, wire: wire, res: r, viewer: viewer, former: former}
	for _, a := range r.Aliases {
		l.aliases[a] = append(l.aliases[a], e)
	}
	l.touch(e, version)
	return true
}

func (l *typeLog) remove(name string, version uint64) bool {
	e, ok := l.entries[name]
	if !ok || e.gone() {
		return false
	}
	l.unalias(e)
	l.live--
	e.state = &state{name: name, viewer: e.viewer, former: e.former}
	l.touch(e, version)
	l.tombs = append(l.tombs, tombstone{e, version})
	return true
}

func (l *typeLog) unalias(e *entry) {
	for _, a := range e.res.Aliases {
		rest := slices.DeleteFunc(l.aliases[a], func(other *entry) bool { return other == e })
		if len(rest) == 0 {
			delete(l.aliases, a)
		} else {
			l.aliases[a] = rest
		}
	}
}

// touch makes e the newest of the log.
func (l *typeLog) touch(e *entry, version uint64) {
	l.unlink(e)
	e.version = version
	e.prev, e.next = l.oldest.prev, &l.oldest
	e.prev.next, e.next.prev = e, e
}

func (l *typeLog) unlink(e *entry) {
	if e.prev != nil {
		e.prev.next, e.next.prev = e.next, e.prev
		e.prev, e.next = nil, nil
	}
}

// trim forgets tombstones that every client is past, position being that of the
// last one, and gives up the oldest if there are too many all the same.
func (s *store) trim(typeURL string, position uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.logs[typeURL]
	if !ok {
		return
	}
	n := 0
	for n < len(l.tombs) && (l.tombs[n].version <= position || len(l.tombs)-n > s.maxTombstones) {
		t := l.tombs[n]
		l.floor = t.version
		if t.entry.gone() && t.entry.version == t.version {
			l.unlink(t.entry)
			delete(l.entries, t.entry.name)
		}
		n++
	}
	l.tombs = slices.Delete(l.tombs, 0, n)
}

// tombstones counts what trim could forget.
func (s *store) tombstones(typeURL string) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if l, ok := s.logs[typeURL]; ok {
		return len(l.tombs)
	}
	return 0
}

// since gives every name that changed after a position, and the position after
// them. It reports false if removals after the position have been forgotten.
func (s *store) since(typeURL string, position uint64) (changed []*state, now uint64, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l, known := s.logs[typeURL]
	if !known {
		return nil, s.version, true
	}
	if position < l.floor {
		return nil, s.version, false
	}
	for e := l.oldest.prev; e != &l.oldest && e.version > position; e = e.prev {
		changed = append(changed, e.state)
	}
	return changed, s.version, true
}

// all gives the live resources of a type, and the position after them.
func (s *store) all(typeURL string) (live []*state, now uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l, ok := s.logs[typeURL]
	if !ok {
		return nil, s.version
	}
	live = make([]*state, 0, l.live)
	for _, e := range l.entries {
		if !e.gone() {
			live = append(live, e.state)
		}
	}
	return live, s.version
}

// lookup resolves a name or an alias to live resources.
func (s *store) lookup(typeURL, name string) []*state {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l, ok := s.logs[typeURL]
	if !ok {
		return nil
	}
	if e, ok := l.entries[name]; ok && !e.gone() {
		return []*state{e.state}
	}
	var found []*state
	for _, e := range l.aliases[name] {
		found = append(found, e.state)
	}
	return found
}

// counts gives the number of live resources by type.
func (s *store) counts() map[string]int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := make(map[string]int, len(s.logs))
	for t, l := range s.logs {
		n[t] = l.live
	}
	return n
}

func (s *store) current() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.version
}
