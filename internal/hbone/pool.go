package hbone

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// busyStreams is how many streams one connection carries before another one is
// opened beside it. One connection is one reader at each end and one turn to
// write, which a few streams keep busy already. To n connections another one is
// added when each has n times as many streams, up to one for each core.
const busyStreams = 3

// patience is how long a stream waits for a connection that is set up beside busy
// ones before it joins those.
const patience = 20 * time.Millisecond

// Pool shares tunnel connections among streams of equal key. Setting up a
// connection of one key does not hold up another key.
type Pool[K comparable] struct {
	dial func(ctx context.Context, key K) (*ClientConn, error)
	log  *zap.Logger

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool             // guarded by mu
	keys   map[K]*pooled[K] // guarded by mu
}

// pooled is what there is for one key.
type pooled[K comparable] struct {
	key     K
	conns   []*ClientConn
	dialing *dialing // nil when no set-up is under way
}

// dialing is a set-up that others may wait for.
type dialing struct {
	done   chan struct{}
	beside bool        // others are there already, and busy
	conn   *ClientConn // and
	err    error       // are written before done is closed
	stale  bool        // retired before it was there; guarded by the pool's mu
}

// NewPool makes a pool that opens connections with dial. Close ends it.
func NewPool[K comparable](dial func(ctx context.Context, key K) (*ClientConn, error), log *zap.Logger) *Pool[K] {
	if log == nil {
		log = zap.NewNop()
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Pool[K]{dial: dial, log: log, ctx: ctx, cancel: cancel, keys: make(map[K]*pooled[K])}
}

// maxAttempts bounds how often a stream that no peer has looked at is opened anew,
// and how many connections are set up for it.
const maxAttempts = 3

// Open opens a stream on a connection of the key, setting one up if need be. A
// stream that the peer has provably not processed is tried on another connection.
func (p *Pool[K]) Open(ctx context.Context, key K, req Request) (*Stream, *Response, *ClientConn, error) {
	for attempt := 1; ; {
		cc, err := p.get(ctx, key)
		if err != nil {
			return nil, nil, nil, err
		}
		s, resp, err := cc.openClaimed(ctx, req)
		switch {
		case err == nil:
			return s, resp, cc, nil
		case errors.Is(err, errFull):
			continue // others were faster, and got what there was
		case !Unprocessed(err) || attempt == maxAttempts:
			return nil, nil, nil, err
		}
		attempt++
	}
}

// get claims room for a stream on the connection with the fewest, or on a new one.
func (p *Pool[K]) get(ctx context.Context, key K) (*ClientConn, error) {
	waited := false // for a connection beside busy ones
	for useless := 0; ; {
		best, d, err := p.look(key, waited)
		if best != nil || err != nil {
			return best, err
		}
		if useless > maxAttempts {
			return nil, fmt.Errorf("%w: not even new ones", ErrDraining)
		}
		if d.beside && !waited {
			waited = true
			if err := d.await(ctx, patience); err != nil {
				return nil, err
			}
			continue
		}
		select {
		case <-d.done:
			switch {
			case d.err != nil:
				return nil, d.err
			case !d.conn.usable():
				useless++
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// await waits for the outcome, whatever it is, or until it has taken too long.
func (d *dialing) await(ctx context.Context, limit time.Duration) error {
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case <-d.done:
	case <-late.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// look claims room on the best connection, or gives what to wait for. Where
// connections carry many streams it starts another one beside them, unless the
// caller has waited for one before.
func (p *Pool[K]) look(key K, waited bool) (*ClientConn, *dialing, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, ErrClosed
	}
	e := p.keys[key]
	if e == nil {
		e = &pooled[K]{key: key}
		p.keys[key] = e
	}
	best, streams, n := e.best()
	if best != nil && (waited || streams < busyStreams*n || n >= runtime.GOMAXPROCS(0)) {
		best.claims.Add(1)
		return best, nil, nil
	}
	if e.dialing == nil {
		e.dialing = &dialing{done: make(chan struct{}), beside: best != nil}
		p.wg.Add(1)
		go p.setUp(e, e.dialing)
	}
	return nil, e.dialing, nil
}

// best gives the connection with the fewest streams of those that have room for another
// one, how many these are, and how many connections are in use. Those that are being left
// are not, nor those that have ended, and whose streams applications have not taken yet.
func (e *pooled[K]) best() (best *ClientConn, streams, inUse int) {
	for _, cc := range e.conns {
		if !cc.usable() {
			continue
		}
		inUse++
		if n, room := cc.load(); room > 0 && (best == nil || n < streams) {
			best, streams = cc, n
		}
	}
	return best, streams, inUse
}

// setUp dials for an entry and then serves the connection to its end.
func (p *Pool[K]) setUp(e *pooled[K], d *dialing) {
	defer p.wg.Done()
	cc, err := p.dial(p.ctx, e.key)
	p.mu.Lock()
	if e.dialing == d {
		e.dialing = nil
	}
	d.conn, d.err = cc, err
	if err == nil {
		if p.closed || d.stale {
			cc.Drain()
		}
		e.conns = append(e.conns, cc)
	}
	p.dropIfEmpty(e)
	close(d.done)
	p.mu.Unlock()
	if err != nil {
		return
	}
	err = cc.Run(p.ctx)
	p.mu.Lock()
	if i := slices.Index(e.conns, cc); i >= 0 {
		e.conns = slices.Delete(e.conns, i, i+1)
	}
	p.dropIfEmpty(e)
	p.mu.Unlock()
	if !errors.Is(err, ErrClosed) {
		p.log.Debug("tunnel connection ended", zap.Any("key", e.key), zap.Error(err))
	}
}

// dropIfEmpty forgets an entry with nothing in it. The caller holds mu.
func (p *Pool[K]) dropIfEmpty(e *pooled[K]) {
	if len(e.conns) == 0 && e.dialing == nil && p.keys[e.key] == e {
		delete(p.keys, e.key)
	}
}

// Retire stops the use of connections whose key matches: their streams go on, new
// ones get a new connection.
func (p *Pool[K]) Retire(match func(K) bool) {
	var conns []*ClientConn
	p.mu.Lock()
	for k, e := range p.keys {
		if !match(k) {
			continue
		}
		conns = append(conns, e.conns...)
		if e.dialing != nil {
			e.dialing.stale = true
			e.dialing = nil
		}
	}
	p.mu.Unlock()
	for _, cc := range conns {
		cc.Drain()
	}
}

// Len gives the number of connections.
func (p *Pool[K]) Len() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.keys {
		n += len(e.conns)
	}
	return n
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
