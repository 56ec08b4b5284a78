package hbone3

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

const (
	// spreadAt is how many streams share a connection before there is another one,
	// up to one a core: a connection is served by one goroutine at each end.
	spreadAt = 3
	// maxConns bounds the connections of a key. Beyond one a core they are opened
	// only when the others have all the streams that they may have.
	maxConns = 16
	// spreadPause is for how long no further connection is tried after one that
	// came to nothing.
	spreadPause = 5 * time.Second
)

// Pool shares connections among streams of equal key, set up without holding up
// other keys.
type Pool[K comparable] struct {
	dial func(ctx context.Context, key K) (*ClientConn, error)

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool          // guarded by mu
	keys   map[K]*bundle // guarded by mu
}

// bundle are the connections of a key. Guarded by Pool.mu.
type bundle struct {
	entries []*entry
	pause   time.Time // no further ones before
}

// entry is a connection, or the attempt to have one.
type entry struct {
	done chan struct{}
	conn *ClientConn // and
	err  error       // are written before done is closed
}

// ready reports whether the attempt has ended.
func (e *entry) ready() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

// NewPool makes a pool that opens connections with dial. Drain ends it.
func NewPool[K comparable](dial func(ctx context.Context, key K) (*ClientConn, error)) *Pool[K] {
	ctx, cancel := context.WithCancel(context.Background())
	return &Pool[K]{dial: dial, ctx: ctx, cancel: cancel, keys: make(map[K]*bundle)}
}

// Open opens a stream on a connection of the key, setting one up if need be. A
// stream that the peer has provably not processed is tried on another connection.
func (p *Pool[K]) Open(ctx context.Context, key K, req hbone.Request) (*Stream, *hbone.Response, *ClientConn, error) {
	for attempt := 1; ; attempt++ {
		cc, e, err := p.get(ctx, key)
		if err != nil {
			return nil, nil, nil, err
		}
		s, resp, err := cc.Open(ctx, req)
		if err == nil {
			return s, resp, cc, nil
		}
		if !hbone.Unprocessed(err) || attempt == 3 {
			return nil, nil, nil, err
		}
		p.forget(key, e)
	}
}

// Get gives a connection of a key, setting it up if need be.
func (p *Pool[K]) Get(ctx context.Context, key K) (*ClientConn, error) {
	cc, _, err := p.get(ctx, key)
	return cc, err
}

func (p *Pool[K]) get(ctx context.Context, key K) (*ClientConn, *entry, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, nil, hbone.ErrClosed
	}
	e := p.pickLocked(key)
	p.mu.Unlock()
	select {
	case <-e.done:
		return e.conn, e, e.err
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

// pickLocked gives the connection with the fewest streams, or one that is being set
// up, and begins with another one where that is of use.
func (p *Pool[K]) pickLocked(key K) *entry {
	b := p.keys[key]
	if b == nil {
		b = &bundle{}
		p.keys[key] = b
	}
	var best, pending *entry
	streams := 0
	for _, e := range b.entries {
		if !e.ready() {
			pending = e
			continue
		}
		if e.err != nil {
			continue // is about to be forgotten
		}
		if n, room := e.conn.load(); room && (best == nil || n < streams) {
			best, streams = e, n
		}
	}
	switch {
	case pending != nil && best == nil:
		return pending
	case best == nil && len(b.entries) < maxConns,
		best != nil && pending == nil && streams >= spreadAt && len(b.entries) < min(runtime.GOMAXPROCS(0), maxConns) && time.Now().After(b.pause):
		pending = p.addLocked(key, b)
	}
	if best == nil {
		best = pending
	}
	if best == nil { // all that there may be are full: who waits longest is served first
		best = b.entries[len(b.entries)-1]
	}
	return best
}

func (p *Pool[K]) addLocked(key K, b *bundle) *entry {
	e := &entry{done: make(chan struct{})}
	b.entries = append(b.entries, e)
	p.wg.Add(1)
	go p.run(key, e)
	return e
}

// run sets up a connection and waits for its end.
func (p *Pool[K]) run(key K, e *entry) {
	defer p.wg.Done()
	defer p.forget(key, e)
	e.conn, e.err = p.dial(p.ctx, key)
	p.mu.Lock()
	b := p.keys[key]
	stale := b == nil || !slices.Contains(b.entries, e)
	if e.err != nil && b != nil {
		b.pause = time.Now().Add(spreadPause)
	}
	p.mu.Unlock()
	close(e.done)
	if e.err != nil {
		return
	}
	if stale {
		e.conn.Drain()
	}
	select {
	case <-e.conn.Done():
	case <-p.ctx.Done():
		e.conn.close(http3.ErrCodeNoError, "closing")
		<-e.conn.Done()
	}
	e.conn.mu.Lock()
	e.conn.idle.Stop()
	e.conn.mu.Unlock()
}

// forget has the next streams of the key go elsewhere.
func (p *Pool[K]) forget(key K, e *entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.keys[key]
	if b == nil {
		return
	}
	b.entries = slices.DeleteFunc(b.entries, func(o *entry) bool { return o == e })
	if len(b.entries) == 0 {
		delete(p.keys, key)
	}
}

// Retire stops the use of connections whose key matches: their streams go on, new
// ones get a new connection.
func (p *Pool[K]) Retire(match func(K) bool) {
	var gone []*entry
	p.mu.Lock()
	for k, b := range p.keys {
		if match(k) {
			gone = append(gone, b.entries...)
			delete(p.keys, k)
		}
	}
	p.mu.Unlock()
	for _, e := range gone {
		if e.ready() && e.err == nil {
			e.conn.Drain()
		} // else run sees that nobody knows it any more
	}
}

// Drain takes no new streams, waits until the present ones have ended or ctx does,
// and then closes what is left.
func (p *Pool[K]) Drain(ctx context.Context) {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Retire(func(K) bool { return true })
	idle := make(chan struct{})
	go func() {
		p.wg.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-ctx.Done():
	}
	p.cancel()
	<-idle
}
