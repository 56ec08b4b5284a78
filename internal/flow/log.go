package flow

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// DefaultSize is how many records a Log keeps.
const DefaultSize = 4096

// chunkSize is how many slots are made at a time, so that a process without
// traffic has none.
const chunkSize = 64

// Log keeps the newest records of a process. A nil Log keeps none.
type Log struct {
	chunks []atomic.Pointer[chunk]
	mask   uint64
	next   atomic.Uint64 // number of the record to come

	observers atomic.Pointer[[]chan struct{}] // replaced, never changed
	mu        sync.Mutex                      // held to replace observers
}

type chunk [chunkSize]slot

// slot holds one record. Its lock is held to copy the record only.
type slot struct {
	mu     sync.Mutex
	number uint64 // of the record, plus 1; 0 is none; guarded by mu
	record packed // guarded by mu
}

// NewLog gives a log of at least size records; DefaultSize for 0.
func NewLog(size int) *Log {
	if size <= 0 {
		size = DefaultSize
	}
	n := chunkSize
	for n < size {
		n *= 2
	}
	return &Log{chunks: make([]atomic.Pointer[chunk], n/chunkSize), mask: uint64(n - 1)}
}

// slot gives the slot of record n.
func (l *Log) slot(n uint64) *slot {
	at := n & l.mask
	p := &l.chunks[at/chunkSize]
	c := p.Load()
	if c == nil {
		p.CompareAndSwap(nil, new(chunk))
		c = p.Load()
	}
	return &c[at%chunkSize]
}

// Append keeps a copy of the record.
func (l *Log) Append(r *Record) {
	if l == nil {
		return
	}
	r.HTTP.clip()
	n := l.next.Add(1) - 1
	s := l.slot(n)
	s.mu.Lock()
	// Not if one who came later was here first.
	if s.number <= n {
		s.number = n + 1
		s.record.pack(r)
	}
	s.mu.Unlock()
	if o := l.observers.Load(); o != nil {
		for _, wake := range *o {
			select {
			case wake <- struct{}{}:
			default:
			}
		}
	}
}

// Observed reports whether anybody follows, so that what only observers want need
// not be made for nobody.
func (l *Log) Observed() bool { return l != nil && l.observers.Load() != nil }

// attach gives a channel that holds a token whenever records have come.
func (l *Log) attach() chan struct{} {
	wake := make(chan struct{}, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []chan struct{}
	if o := l.observers.Load(); o != nil {
		all = slices.Clone(*o)
	}
	all = append(all, wake)
	l.observers.Store(&all)
	return wake
}

func (l *Log) detach(wake chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := slices.DeleteFunc(slices.Clone(*l.observers.Load()), func(c chan struct{}) bool { return c == wake })
	if len(all) == 0 {
		l.observers.Store(nil)
		return
	}
	l.observers.Store(&all)
}

// oldest is the number of the oldest record that may still be kept.
func (l *Log) oldest() uint64 {
	next := l.next.Load()
	return next - min(next, l.mask+1)
}

// state of a record.
type state uint8

const (
	kept    state = iota
	missing       // overwritten, or its writer was overtaken
	pending       // not written yet; its writer wakes observers
)

// read copies record n.
func (l *Log) read(n uint64, into *Record) state {
	if n >= l.next.Load() {
		return pending
	}
	s := l.slot(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.number == n+1:
		s.record.unpack(into)
		return kept
	case s.number > n+1:
		return missing
	}
	return pending
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.Clone(strings.ToValidUTF8(s[:n], "")) + "..."
}
