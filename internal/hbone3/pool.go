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
	// spreadAt is how many streams share a connection before there is another one, up
	// to one for two cores: a connection is served by one goroutine at each end, and
	// two gather less in a packet than one.
	spreadAt = 3
	// farRTT is what makes a path a long one. There a connection that loses packets
	// has a congestion window of few packets, and streams wait for room in it: no more
	// than farStreams share one, up to maxConns.
	farRTT     = 5 * time.Millisecond
	farStreams = 8
	// maxConns bounds the connections of a key.
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
	done    chan struct{}
	conn    *ClientConn // and
	err     error       // are written before done is closed
	further bool        // there were others when it was begun
	waiting int         // who waits for it; guarded by Pool.mu
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
		e, err := p.claim(ctx, key)
		if err != nil {
			return nil, nil, nil, err
		}
		s, resp, err := e.conn.open(ctx, req)
		if err == nil {
			return s, resp, e.conn, nil
		}
		if !hbone.Unprocessed(err) || attempt == 3 {
			return nil, nil, nil, err
		}
		p.forget(key, e)
	}
}

// claim gives a connection of a key with room for a stream, setting it up if need be.
func (p *Pool[K]) claim(ctx context.Context, key K) (*entry, error) {
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, hbone.ErrClosed
		}
		e := p.pickLocked(key)
		if e.ready() && e.err == nil {
			claimed := e.conn.claim()
			p.mu.Unlock()
			if claimed {
				return e, nil
			}
			p.forget(key, e) // it takes no streams any more
			continue
		}
		e.waiting++
		p.mu.Unlock()
		select {
		case <-e.done:
		case <-ctx.Done():
		}
		p.mu.Lock()
		e.waiting--
		// Not those that others who waited for it have filled.
		claimed := e.ready() && e.err == nil && !e.crowded() && e.conn.claim()
		p.mu.Unlock()
		switch {
		case claimed:
			return e, nil
		case !e.ready():
			return nil, ctx.Err()
		case e.err != nil && !e.further:
			return nil, e.err
		}
	}
}

// crowded reports whether a connection has as many streams as it should have on its
// path.
func (e *entry) crowded() bool {
	n, _ := e.conn.load()
	return e.conn.rtt() >= farRTT && n >= farStreams
}

// pickLocked gives the connection with the fewest streams, or one that is being set
// up, and begins with another one where that is of use.
func (p *Pool[K]) pickLocked(key K) *entry {
	b := p.keys[key]
	if b == nil {
		b = &bundle{}
		p.keys[key] = b
	}
	var best, full, pending *entry
	streams, far := 0, false
	for _, e := range b.entries {
		if !e.ready() {
			if pending == nil || e.waiting < pending.waiting {
				pending = e
			}
			continue
		}
		if e.err != nil {
			continue // is about to be forgotten
		}
		far = far || e.conn.rtt() >= farRTT
		n, room := e.conn.load()
		switch {
		case !room:
			full = e
		case best == nil || n < streams:
			best, streams = e, n
		}
	}
	more := len(b.entries) < maxConns && time.Now().After(b.pause)
	switch {
	case best == nil && pending != nil:
		return pending
	case best == nil && full != nil && !more:
		return full // its next stream that ends makes room
	case best == nil:
		return p.addLocked(key, b, full != nil)
	case far && streams >= farStreams && pending != nil && pending.waiting < farStreams:
		return pending
	case far && streams >= farStreams && more:
		return p.addLocked(key, b, true)
	case !far && streams >= spreadAt && more && pending == nil && len(b.entries) < runtime.GOMAXPROCS(0)/2:
		p.addLocked(key, b, true) // for those who come later
	}
	return best
}

func (p *Pool[K]) addLocked(key K, b *bundle, further bool) *entry {
	e := &entry{done: make(chan struct{}), further: further}
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
