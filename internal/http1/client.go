package http1

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/message"
)

// ClientConn sends requests on one connection, one after another. It can be used
// again when the body of the response has been read to its end, both ends keep the
// connection, and nothing has come that nobody asked for.
type ClientConn struct {
	conn net.Conn
	cfg  Config
	gone <-chan struct{} // closed when the transport has ended; nil: it does not tell
	done chan struct{}   // closed when the connection has ended

	// in and out belong to the exchange that is under way, or else to the guard.
	in  source
	out sink

	mu     sync.Mutex
	busy   bool // guarded by mu, as is what follows
	closed bool
	served int
	guard  guard
}

// NewClientConn makes the client side of conn, which belongs to it from now on.
func NewClientConn(conn net.Conn, cfg Config) *ClientConn {
	c := &ClientConn{conn: conn, cfg: cfg.withDefaults(), done: make(chan struct{})}
	c.in.conn = conn
	c.out = sink{conn: conn, timeout: c.cfg.WriteTimeout}
	if d, ok := conn.(interface{ Done() <-chan struct{} }); ok {
		c.gone = d.Done()
	}
	return c
}

// Done is closed when the connection cannot be used any more. An idle connection
// finds out within two seconds that its other end has closed it.
func (c *ClientConn) Done() <-chan struct{} { return c.done }

// Close ends the connection and the exchange that is under way.
func (c *ClientConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closeLocked()
}

func (c *ClientConn) closeLocked() error {
	if c.closed {
		return nil
	}
	c.closed = true
	c.guard.stopTimer()
	close(c.done)
	return c.conn.Close()
}

// Idle reports whether a request can be sent now.
func (c *ClientConn) Idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.busy && c.checkLocked() == nil
}

// checkLocked says why the connection cannot be used, and closes it if its other
// end has.
func (c *ClientConn) checkLocked() error {
	if c.closed {
		return errClosed
	}
	select {
	case <-c.gone:
		_ = c.closeLocked() // it is gone
		return errClosed
	default:
		return nil
	}
}

// acquire makes the connection busy. reused says that it has served a request.
func (c *ClientConn) acquire() (reused bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	reused = c.served > 0
	if err := c.checkLocked(); err != nil {
		return reused, err
	}
	if c.busy {
		return reused, errBusy
	}
	if c.guard.reading != nil {
		c.in.until = past
		_ = c.conn.SetReadDeadline(past)
		reading := c.guard.reading
		c.mu.Unlock()
		<-reading // it ends at once, and closes the connection if it has met anything
		c.mu.Lock()
		if c.closed {
			return reused, errClosed
		}
		if c.busy {
			return reused, errBusy
		}
	}
	c.busy = true
	c.served++
	return reused, nil
}

// release makes the connection idle after an exchange, or closes it.
func (c *ClientConn) release(keep bool) {
	if c.in.buffered() > 0 || c.in.interrupted.Load() {
		keep = false
	}
	if keep {
		c.in.release()
	} else {
		c.in.drop()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = false
	if !keep {
		_ = c.closeLocked() // nothing is lost: the exchange is over
		return
	}
	c.guard.start(c)
}

// guardTime is how long a connection has to be idle before somebody watches it.
// One that is used all the time finds out by using it.
const guardTime = time.Second

// guard watches an idle connection: a goroutine that reads it meets its end, and
// bytes that answer nothing. A timer that runs while the connection is in use costs
// less than to start and stop that goroutine between requests.
type guard struct {
	timer  *time.Timer
	armed  bool
	served int // by the connection when the timer was last looked at
	// reading is closed when the goroutine that reads has ended; nil: there is none.
	reading chan struct{}
}

func (g *guard) start(c *ClientConn) {
	if g.armed || c.closed {
		return
	}
	g.armed = true
	if g.timer == nil {
		g.timer = time.AfterFunc(guardTime, c.look)
		return
	}
	g.timer.Reset(guardTime)
}

func (g *guard) stopTimer() {
	if g.timer != nil {
		g.timer.Stop()
	}
}

// look is called by the timer. If the connection has had no request since it was
// last called, it watches.
func (c *ClientConn) look() {
	c.mu.Lock()
	g := &c.guard
	g.armed = false
	if c.closed || c.busy || g.reading != nil {
		c.mu.Unlock() // release starts the timer again
		return
	}
	if g.served != c.served {
		g.served = c.served
		g.start(c)
		c.mu.Unlock()
		return
	}
	reading := make(chan struct{})
	g.reading = reading
	c.in.at(time.Time{})
	c.mu.Unlock()

	var b [1]byte
	n, err := c.conn.Read(b[:])
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > 0 || !isTimeout(err) {
		_ = c.closeLocked() // its other end has, or does not keep to the protocol
	}
	g.reading = nil
	close(reading)
}

// RoundTrip sends a request and waits for the head of its response, whose body has
// to be read to its end or closed. Errors, those of the body too, are
// *message.ExchangeError. When it returns an error, req.Body is not used any more;
// to achieve that it may have been closed.
func (c *ClientConn) RoundTrip(ctx context.Context, req *message.Request, inform message.Informer) (*message.Response, error) {
	if err := ctx.Err(); err != nil {
		return nil, &message.ExchangeError{Stage: message.Aborted, Err: context.Cause(ctx)}
	}
	reused, err := c.acquire()
	if err != nil {
		return nil, &message.ExchangeError{Stage: message.Unprocessed, Reused: reused, Err: err}
	}
	t := &trip{c: c, ctx: ctx, req: req, reused: reused, stage: message.Sent}
	if err := t.encode(); err != nil {
		t.out.give()
		c.release(true)
		return nil, &message.ExchangeError{Stage: message.Aborted, Reused: reused, Err: err}
	}
	if ctx.Done() != nil {
		t.stop = context.AfterFunc(ctx, t.abort)
	}
	if err := t.send(); err != nil {
		return nil, t.fail(err)
	}
	if err := t.receive(inform); err != nil {
		return nil, t.fail(err)
	}
	return &t.resp, nil
}
