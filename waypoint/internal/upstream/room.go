package upstream

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/internal/http1"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/internal/trace"
)

// room bounds the HTTP connections to a service, and the requests that wait for
// one.
type room struct {
	open    atomic.Int64
	waiting atomic.Int64

	mu    sync.Mutex
	queue []chan struct{} // in the order in which they came; guarded by mu
}

// enter counts a connection in, if there are fewer than limit.
func (r *room) enter(limit int64) bool {
	if r.open.Add(1) <= limit {
		return true
	}
	r.open.Add(-1)
	return false
}

// leave counts a connection out.
func (r *room) leave() {
	r.open.Add(-1)
	r.wake()
}

// wake has the first that waits look again.
func (r *room) wake() {
	if r.waiting.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) > 0 {
		close(r.queue[0])
		r.queue = r.queue[1:]
	}
}

// join puts one more into the queue, whose channel is closed when it is to look
// again.
func (r *room) join() chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := make(chan struct{})
	r.queue = append(r.queue, w)
	return w
}

// part takes it out again. If it was woken and does not need that, the next is.
func (r *room) part(w chan struct{}) {
	r.mu.Lock()
	if i := slices.Index(r.queue, w); i >= 0 {
		r.queue = slices.Delete(r.queue, i, i+1)
		r.mu.Unlock()
		return
	}
	r.mu.Unlock()
	r.wake()
}

func (c *Cluster) maxConnections() int64 {
	if n := c.policy.Load().GetCircuitBreaker().GetMaxConnections(); n != 0 {
		return int64(n)
	}
	return defaultMaxConnections
}

// reserve counts a connection in, waiting for it if it has to; the caller leaves
// the room when the connection has ended. It reports false when usable found a
// connection that is there.
func (c *Cluster) reserve(ctx context.Context, usable func() bool) (bool, error) {
	if c.room.enter(c.maxConnections()) {
		return true, nil
	}
	limit := int64(c.policy.Load().GetCircuitBreaker().GetMaxPending())
	if limit == 0 {
		limit = defaultMaxPending
	}
	defer c.room.waiting.Add(-1)
	if n := c.room.waiting.Add(1); n > limit {
		c.set.metrics.overflow.WithLabelValues(c.key.service, "pending").Inc()
		return false, fmt.Errorf("service %s: %d connections are open and %d requests wait for one, max is %d: %w", c.key.service, c.room.open.Load(), n-1, limit, ErrOverloaded)
	}
	for {
		w := c.room.join()
		switch {
		case usable():
			c.room.part(w)
			return false, nil
		case c.room.enter(c.maxConnections()), c.closeIdle() && c.room.enter(c.maxConnections()):
			c.room.part(w)
			return true, nil
		}
		select {
		case <-w:
		case <-ctx.Done():
			c.room.part(w)
			return false, &message.ExchangeError{Stage: message.Aborted, Err: context.Cause(ctx)}
		}
	}
}

// closeIdle ends a connection that nobody uses, whichever client it is for.
func (c *Cluster) closeIdle() bool {
	for _, e := range c.snapshotEndpoints() {
		if e.conns.closeIdle() {
			return true
		}
	}
	return false
}

func (c *conns) closeIdle() bool {
	c.mu.Lock()
	for key, list := range c.idle {
		conn := list[0]
		if list[0] = nil; len(list) == 1 {
			delete(c.idle, key)
		} else {
			c.idle[key] = list[1:]
		}
		c.mu.Unlock()
		_ = conn.Close()
		return true
	}
	defer c.mu.Unlock()
	for _, list := range c.shared {
		for _, conn := range list {
			if conn.Streams() == 0 {
				conn.Drain() // whoever waits is woken when it has ended
			}
		}
	}
	return false
}

// roomy reports whether an HTTP/2 connection takes one more request.
func (c *conns) roomy(key clientKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.shared[key], func(m *multiplexed) bool { return m.Room() > 0 })
}

// plain is an HTTP/1.1 connection.
type plain struct {
	*http1.ClientConn
	via   trace.Context
	since time.Time // idle
	leave func()    // the room
	once  sync.Once
}

// Close ends the connection.
func (p *plain) Close() error {
	p.once.Do(p.leave)
	return p.ClientConn.Close()
}
