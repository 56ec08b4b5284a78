package upstream

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/http1"
	"github.com/ambit-mesh/ambit/internal/http2"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/internal/trace"
)

// maxIdle bounds the idle HTTP/1.1 connections to an endpoint for one client.
const maxIdle = 64

// errBusy is an HTTP/2 connection whose streams were taken by others.
var errBusy = errors.New("connection carries as many streams as its peer allows")

// conns are the HTTP connections to an endpoint.
type conns struct {
	mu      sync.Mutex
	retired bool                         // guarded by mu
	idle    map[clientKey][]*plain       // HTTP/1.1, the latest used last; guarded by mu
	shared  map[clientKey][]*multiplexed // HTTP/2; guarded by mu
	dialing map[clientKey]*dialing       // of an HTTP/2 connection; guarded by mu
}

// multiplexed is an HTTP/2 connection.
type multiplexed struct {
	*http2.ClientConn
	via trace.Context
}

// dialing is a set-up that others wait for.
type dialing struct {
	done chan struct{}
	err  error // written before done is closed
}

func (c *conns) init() {
	c.idle = make(map[clientKey][]*plain)
	c.shared = make(map[clientKey][]*multiplexed)
	c.dialing = make(map[clientKey]*dialing)
}

// RoundTrip sends a request to an endpoint of the cluster and gives the response,
// and the context by which records know the connection. Errors are *ConnectError
// and *message.ExchangeError.
func (c *Cluster) RoundTrip(ctx context.Context, e *Endpoint, client *Client, proto waypoint.Protocol, timeout time.Duration,
	req *message.Request, inform message.Informer,
) (*message.Response, trace.Context, error) {
	if proto == waypoint.Protocol_PROTOCOL_HTTP2 {
		return c.roundTrip2(ctx, e, client, timeout, req, inform)
	}
	return c.roundTrip1(ctx, e, client, timeout, req, inform)
}

func (c *Cluster) roundTrip1(ctx context.Context, e *Endpoint, client *Client, timeout time.Duration, req *message.Request, inform message.Informer) (*message.Response, trace.Context, error) {
	key := client.key(c.tls())
	conn, err := c.plain(ctx, e, client, key, timeout)
	if err != nil {
		return nil, trace.Context{}, err
	}
	resp, err := conn.RoundTrip(ctx, req, inform)
	if err != nil {
		_ = conn.Close()
		return nil, conn.via, err
	}
	give := func() {
		e.conns.give(key, conn)
		c.room.wake()
	}
	if resp.Body == nil {
		give()
		return resp, conn.via, nil
	}
	resp.Body = &returning{Body: resp.Body, give: give}
	return resp, conn.via, nil
}

// plain gives an HTTP/1.1 connection that nobody else uses.
func (c *Cluster) plain(ctx context.Context, e *Endpoint, client *Client, key clientKey, timeout time.Duration) (*plain, error) {
	conn := e.conns.take(key)
	if conn != nil {
		return conn, nil
	}
	_, err := c.reserve(ctx, func() bool {
		conn = e.conns.take(key)
		return conn != nil
	})
	if conn != nil || err != nil {
		return conn, err
	}
	raw, via, err := c.open(ctx, e, client, key.tls, waypoint.Protocol_PROTOCOL_HTTP1, timeout)
	if err != nil {
		c.room.leave()
		return nil, err
	}
	return &plain{ClientConn: http1.NewClientConn(raw, c.set.cfg.HTTP1), via: via, leave: c.room.leave}, nil
}

// returning gives a connection back when the response has been read.
type returning struct {
	message.Body
	once sync.Once
	give func()
}

// Read implements message.Body.
func (b *returning) Read(p []byte) (int, error) {
	n, err := b.Body.Read(p)
	if err != nil {
		b.once.Do(b.give)
	}
	return n, err
}

// Close implements message.Body.
func (b *returning) Close() error {
	err := b.Body.Close()
	b.once.Do(b.give)
	return err
}

// take gives an idle connection, or nil.
func (c *conns) take(key clientKey) *plain {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		list := c.idle[key]
		n := len(list)
		if n == 0 {
			return nil
		}
		conn := list[n-1]
		list[n-1] = nil
		if n == 1 {
			delete(c.idle, key)
		} else {
			c.idle[key] = list[:n-1]
		}
		if conn.Idle() {
			return conn
		}
		_ = conn.Close()
	}
}

// give keeps a connection for another request, if it can serve one.
func (c *conns) give(key clientKey, conn *plain) {
	c.mu.Lock()
	if c.retired || len(c.idle[key]) >= maxIdle || !conn.Idle() {
		c.mu.Unlock()
		_ = conn.Close()
		return
	}
	conn.since = time.Now()
	c.idle[key] = append(c.idle[key], conn)
	c.mu.Unlock()
}

// expire closes what has been idle since before t.
func (c *conns) expire(t time.Time) {
	var old []*plain
	c.mu.Lock()
	for key, list := range c.idle {
		n := 0
		for n < len(list) && (list[n].since.Before(t) || !list[n].Idle()) {
			n++
		}
		old = append(old, list[:n]...)
		if n == len(list) {
			delete(c.idle, key)
		} else if n > 0 {
			c.idle[key] = append([]*plain(nil), list[n:]...)
		}
	}
	c.mu.Unlock()
	for _, conn := range old {
		_ = conn.Close()
	}
}

// retire closes what is idle, and the rest when its requests are done.
func (c *conns) retire() {
	c.mu.Lock()
	c.retired = true
	idle, shared := c.idle, c.shared
	c.idle, c.shared = make(map[clientKey][]*plain), make(map[clientKey][]*multiplexed)
	c.mu.Unlock()
	for _, list := range idle {
		for _, conn := range list {
			_ = conn.Close()
		}
	}
	for _, list := range shared {
		for _, conn := range list {
			conn.Drain()
		}
	}
}

// leave lets go of connections whose TLS is another than the present one.
func (c *conns) leave(present *originated) {
	var idle []*plain
	c.mu.Lock()
	for key, list := range c.idle {
		if key.tls != present {
			idle = append(idle, list...)
			delete(c.idle, key)
		}
	}
	for key, list := range c.shared {
		for _, conn := range list {
			if key.tls != present {
				conn.Drain()
			}
		}
	}
	c.mu.Unlock()
	for _, conn := range idle {
		_ = conn.Close()
	}
}

// maxPicks bounds how often a request looks for a stream.
const maxPicks = 4

func (c *Cluster) roundTrip2(ctx context.Context, e *Endpoint, client *Client, timeout time.Duration, req *message.Request, inform message.Informer) (*message.Response, trace.Context, error) {
	for range maxPicks {
		conn, err := c.shared(ctx, e, client, timeout)
		if err != nil {
			return nil, trace.Context{}, err
		}
		resp, err := conn.RoundTrip(ctx, req, inform)
		var ex *message.ExchangeError
		if errors.As(err, &ex) && ex.Stage == message.Unprocessed && (ex.Unread || req.Body == nil) && conn.Room() == 0 && ctx.Err() == nil {
			continue // others were faster, or the connection is going away
		}
		if err == nil && resp.Body != nil && c.policy.Load().GetCircuitBreaker().GetMaxConnections() != 0 {
			resp.Body = &returning{Body: resp.Body, give: c.room.wake}
		} else {
			c.room.wake()
		}
		return resp, conn.via, err
	}
	return nil, trace.Context{}, &message.ExchangeError{Stage: message.Unprocessed, Err: errBusy}
}

// shared gives an HTTP/2 connection with room for a stream, setting one up if
// there is none.
func (c *Cluster) shared(ctx context.Context, e *Endpoint, client *Client, timeout time.Duration) (*multiplexed, error) {
	key := client.key(c.tls())
	reserved := false
	defer func() {
		if reserved {
			c.room.leave() // others had made one meanwhile
		}
	}()
	for {
		e.conns.mu.Lock()
		for _, conn := range e.conns.shared[key] {
			if conn.Room() > 0 {
				e.conns.mu.Unlock()
				return conn, nil
			}
		}
		d := e.conns.dialing[key]
		if d == nil && !reserved {
			e.conns.mu.Unlock()
			var err error
			if reserved, err = c.reserve(ctx, func() bool { return e.conns.roomy(key) }); err != nil {
				return nil, err
			}
			continue
		}
		if d == nil {
			reserved = false // it is the connection's now
			d = &dialing{done: make(chan struct{})}
			e.conns.dialing[key] = d
			c.set.wg.Add(1)
			go c.setUp(e, *client, key, timeout, d)
		}
		e.conns.mu.Unlock()
		select {
		case <-d.done:
			if d.err != nil {
				return nil, d.err
			}
		case <-ctx.Done():
			return nil, &message.ExchangeError{Stage: message.Aborted, Err: context.Cause(ctx)}
		}
	}
}

// setUp makes an HTTP/2 connection, for which there is room, and serves it to its
// end.
func (c *Cluster) setUp(e *Endpoint, client Client, key clientKey, timeout time.Duration, d *dialing) {
	defer c.set.wg.Done()
	defer c.room.leave()
	raw, via, err := c.open(c.set.ctx, e, &client, key.tls, waypoint.Protocol_PROTOCOL_HTTP2, timeout)
	var conn *multiplexed
	if err == nil {
		conn = &multiplexed{http2.NewClientConn(raw, c.set.cfg.HTTP2), via}
	}
	e.conns.mu.Lock()
	delete(e.conns.dialing, key)
	retired := e.conns.retired
	if err == nil {
		e.conns.shared[key] = append(e.conns.shared[key], conn)
	}
	d.err = err
	close(d.done)
	e.conns.mu.Unlock()
	if err != nil {
		return
	}
	if retired {
		conn.Drain()
	}
	_ = conn.Run(c.set.ctx)
	e.conns.mu.Lock()
	defer e.conns.mu.Unlock()
	list := e.conns.shared[key]
	for i := range list {
		if list[i] == conn {
			list = append(list[:i:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(e.conns.shared, key)
	} else {
		e.conns.shared[key] = list
	}
}
