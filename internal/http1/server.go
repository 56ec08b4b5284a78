package http1

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/message"
)

const (
	// busyTime is for how long a connection keeps its buffer and its watcher after
	// a request, because the next one is probably near.
	busyTime = time.Second
	// drainBytes of a request's body are read when its handler did not, to save the
	// connection.
	drainBytes = 64 << 10
	// lingerTime and lingerBytes bound the wait for a client to close, too, after
	// the last answer: closing while it still sends would have it lose the answer
	// (RFC 9112 section 9.6).
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 1 << 20
)

// ServerConn takes requests from one connection.
type ServerConn struct {
	conn    net.Conn
	cfg     Config
	handler message.Handler

	// What follows belongs to the goroutine of Run.
	in     source
	out    sink
	first  [16]byte // where the first bytes after a long wait come in
	blank  bool     // an empty line was skipped before this request
	served int
	cancel context.CancelFunc
	watch  struct {
		gone <-chan struct{} // closed when the transport has ended; nil: it does not tell
		stop chan struct{}   // ends the watcher; nil: there is none
		wg   sync.WaitGroup
	}

	mu             sync.Mutex
	idle, draining bool // guarded by mu
}

// NewServerConn makes the server side of conn, which belongs to it from now on.
// Run has to be called next.
func NewServerConn(conn net.Conn, cfg Config, h message.Handler) *ServerConn {
	sc := &ServerConn{conn: conn, cfg: cfg.withDefaults(), handler: h}
	sc.in.conn = conn
	sc.out = sink{conn: conn, timeout: sc.cfg.WriteTimeout}
	if d, ok := conn.(interface{ Done() <-chan struct{} }); ok {
		sc.watch.gone = d.Done()
	}
	return sc
}

// Drain lets the request that is under way be answered, and closes the connection
// then; at once if there is none.
func (sc *ServerConn) Drain() {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.draining = true
	if sc.idle {
		_ = sc.conn.SetReadDeadline(past)
	}
}

// Close ends the connection at once.
func (sc *ServerConn) Close() { _ = sc.conn.Close() }

// Run serves the connection until it has ended. It returns nil when that happened
// between two requests, and otherwise why.
func (sc *ServerConn) Run(ctx context.Context) error {
	ctx, sc.cancel = context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, sc.Close)
	defer func() {
		stop()
		sc.Close()
		sc.cancel()
		sc.unwatch()
		sc.watch.wg.Wait()
		sc.in.drop()
	}()
	for sc.await() {
		again, err := sc.serve(ctx)
		if !again {
			return err
		}
	}
	return nil
}

// await waits for the first bytes of a request. It reports whether there are any.
func (sc *ServerConn) await() bool {
	if sc.in.buffered() > 0 {
		return true
	}
	busy := min(busyTime, sc.cfg.IdleTimeout)
	began := time.Now()
	if !sc.enterIdle(func() { sc.in.within(busy) }) {
		return false
	}
	n, err := sc.in.receive(sc.in.room())
	sc.in.w += n
	if !sc.leaveIdle() && n == 0 {
		return false
	}
	if n > 0 || !isTimeout(err) {
		return n > 0
	}
	if busy == sc.cfg.IdleTimeout {
		sc.tooIdle()
		return false
	}
	sc.in.release()
	sc.unwatch()
	if !sc.enterIdle(func() { sc.in.at(began.Add(sc.cfg.IdleTimeout)) }) {
		return false
	}
	n, err = sc.in.receive(sc.first[:])
	if sc.leaveIdle() && n == 0 && isTimeout(err) {
		sc.tooIdle()
	}
	if n > 0 {
		sc.in.w += copy(sc.in.room(), sc.first[:n])
	}
	return n > 0
}

// tooIdle tells that the connection ends because there was no request for too long.
func (sc *ServerConn) tooIdle() {
	if sc.cfg.Rejected != nil {
		sc.cfg.Rejected(message.Rejection{Limit: message.LimitIdle, Reason: "no request for " + sc.cfg.IdleTimeout.String()})
	}
}

// enterIdle sets a deadline with arm, unless the connection is to end.
func (sc *ServerConn) enterIdle(arm func()) bool {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	// A connection that was accepted while others drain has its first request on the
	// way: that is waited for, for busyTime, and answered.
	if sc.draining && sc.served > 0 {
		return false
	}
	arm()
	sc.idle = !sc.draining
	return true
}

func (sc *ServerConn) leaveIdle() bool {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.idle = false
	if sc.draining {
		sc.in.until = past // as Drain has set it
	}
	return !sc.draining
}

func (sc *ServerConn) isDraining() bool {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	return sc.draining
}

// serve reads a request and has it answered. It reports whether another one can
// follow.
func (sc *ServerConn) serve(ctx context.Context) (again bool, err error) {
	head, err := sc.readHead()
	if head == nil && err == nil {
		return true, nil // an empty line and nothing yet behind it
	}
	var x *exchange
	if err == nil {
		x, err = sc.newExchange(head)
	}
	if err != nil {
		var f *fault
		if errors.As(err, &f) {
			sc.reject(f, len(head) > 5 && string(head[:5]) == "HEAD ")
		}
		return false, err
	}
	sc.blank = false
	sc.served++
	sc.startWatch()
	sc.handler.Serve(ctx, &x.req, x)
	return x.finish(ctx.Err() != nil)
}

// readHead waits for a whole head. It is valid until more is read.
func (sc *ServerConn) readHead() ([]byte, error) {
	scan, timed := headScan{request: true}, false
	for {
		b := sc.in.bytes()
		if !sc.blank && len(b) >= 2 && b[0] == '\r' && b[1] == '\n' {
			// RFC 9112 section 2.2: one empty line, which old clients send behind a body.
			sc.blank = true
			sc.in.skip(2)
			scan = headScan{request: true}
			if sc.in.buffered() == 0 {
				return nil, nil
			}
			continue
		}
		if len(b) > 0 && lower[b[0]] == 0 && (sc.blank || b[0] != '\r' || len(b) > 1) {
			return nil, malformed("not a request") // such as a TLS ClientHello: do not wait for a line end
		}
		n, f := scan.find(b, &sc.cfg)
		switch {
		case f != nil:
			return nil, f
		case n > 0:
			return b[:n], nil
		case !timed:
			timed = true
			sc.in.at(time.Now().Add(sc.cfg.HeaderTimeout))
		}
		switch err := sc.in.fill(); {
		case err == nil:
		case isTimeout(err):
			return nil, headTooSlow()
		case err == io.EOF:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// startWatch has ctx end when the transport has ended while a handler runs.
func (sc *ServerConn) startWatch() {
	if sc.watch.gone == nil || sc.watch.stop != nil {
		return
	}
	gone, stop := sc.watch.gone, make(chan struct{})
	sc.watch.stop = stop
	sc.watch.wg.Go(func() {
		select {
		case <-gone:
			sc.cancel()
		case <-stop:
		}
	})
}

func (sc *ServerConn) unwatch() {
	if sc.watch.stop != nil {
		close(sc.watch.stop)
		sc.watch.stop = nil
	}
}

// reject answers a request in the place of the handler and tells of it. The
// connection cannot be used after that.
func (sc *ServerConn) reject(f *fault, isHead bool) {
	if sc.cfg.Rejected != nil {
		sc.cfg.Rejected(message.Rejection{Status: f.status, Limit: f.limit, Reason: f.reason})
	}
	b := appendStatus(nil, f.status)
	b = append(b, "content-type: text/plain; charset=utf-8\r\nconnection: close\r\ncontent-length: "...)
	b = strconv.AppendInt(b, int64(len(f.reason)+1), 10)
	b = append(b, "\r\n\r\n"...)
	if !isHead {
		b = append(b, f.reason...)
		b = append(b, '\n')
	}
	if _, err := sc.out.write(b); err == nil {
		sc.linger()
	}
}

// linger closes the connection when the client has, or after a short while.
func (sc *ServerConn) linger() {
	if ok, err := sc.out.end(); !ok || err != nil {
		return
	}
	sc.in.drop()
	sc.in.at(time.Now().Add(lingerTime))
	scrap := takeSmall()
	defer scrap.give()
	for n := 0; n < lingerBytes; {
		k, err := sc.in.receive(scrap.b)
		if err != nil {
			return
		}
		n += k
	}
}
