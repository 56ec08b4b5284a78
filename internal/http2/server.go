package http2

import (
	"context"
	"net"
	"sync"

	"github.com/ambit-mesh/ambit/internal/h2wire"
	"github.com/ambit-mesh/ambit/internal/http2/hpack"
	"github.com/ambit-mesh/ambit/internal/message"
)

// ServerConn is a connection that takes requests.
type ServerConn struct {
	c       conn
	handler message.Handler
	ctx     context.Context // of Run
	wg      sync.WaitGroup  // workers

	// Guarded by c.mu.
	running int       // handlers that have not returned
	idle    []*worker // the one that worked last comes last: its stack is warm
	unused  int       // how many of these nobody has needed since the last tick
}

// worker is a goroutine that runs handlers one after the other.
type worker struct {
	next chan *serverStream // takes one; closed to end the worker
}

// maxIdle bounds the workers that wait for a request.
const maxIdle = 64

// NewServerConn makes a connection that serves requests on conn. Run owns conn from
// when it is called.
func NewServerConn(nc net.Conn, cfg Config, h message.Handler) *ServerConn {
	sc := &ServerConn{handler: h}
	sc.c.server = sc
	sc.c.init(nc, cfg.withDefaults(true))
	sc.c.pending = sc.c.greeting()
	return sc
}

// Run serves the connection until it has ended and every handler has returned. It
// returns why it ended; ErrClosed when that was intended, by ctx, Drain, Close, an
// idle timeout or a client that has left.
func (sc *ServerConn) Run(ctx context.Context) error {
	defer sc.wg.Wait()
	sc.ctx = ctx
	return sc.c.run(ctx, newReader(&sc.c))
}

// Drain lets the requests that are under way end and takes no new ones.
func (sc *ServerConn) Drain() { sc.c.drain() }

// Close ends the connection and its requests at once.
func (sc *ServerConn) Close() { sc.c.shutdown() }

// startLocked has a worker serve a request.
func (sc *ServerConn) startLocked(s *serverStream) {
	if n := len(sc.idle) - 1; n >= 0 {
		w := sc.idle[n]
		sc.idle[n] = nil
		sc.idle = sc.idle[:n]
		sc.unused = min(sc.unused, n)
		w.next <- s
		return
	}
	sc.wg.Add(1)
	go sc.work(&worker{next: make(chan *serverStream, 1)}, s)
}

func (sc *ServerConn) work(w *worker, s *serverStream) {
	defer sc.wg.Done()
	for s != nil {
		sc.handler.Serve(&s.ctx, &s.req, s)
		if !sc.handled(s, w) {
			return
		}
		s = <-w.next
	}
}

// handled ends an exchange after its handler, if nothing else has, and reports
// whether the worker is to wait for another.
func (sc *ServerConn) handled(s *serverStream, w *worker) bool {
	c := &sc.c
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case s.gone:
	case s.sendEnd:
		// RFC 9113 section 8.1: what the client still sends is of no interest.
		s.resetLocked(h2wire.CodeNo, errEnded)
	default:
		s.resetLocked(h2wire.CodeInternal, errUnanswered)
	}
	s.ctx.end()
	s.deaf = true
	s.queue.drop()
	wake(s.readWake)
	sc.running--
	c.idleLocked()
	if c.err != nil || len(sc.idle) >= maxIdle {
		return false
	}
	sc.idle = append(sc.idle, w)
	return true
}

// restLocked ends half of the workers that nobody has needed since the last tick.
func (sc *ServerConn) restLocked() {
	n := (sc.unused + 1) / 2
	for _, w := range sc.idle[:n] {
		close(w.next)
	}
	sc.idle = append(sc.idle[:0], sc.idle[n:]...)
	clear(sc.idle[len(sc.idle):cap(sc.idle)])
	sc.unused = len(sc.idle)
}

// releaseLocked ends the workers that wait.
func (sc *ServerConn) releaseLocked() {
	sc.unused = 2 * len(sc.idle)
	sc.restLocked()
}

// rejectedLocked tells the owner of a request that no handler got, and takes it
// from the peer's budget.
func (sc *ServerConn) rejectedLocked(r message.Rejection, cost float64) error {
	sc.c.mu.Unlock()
	sc.c.cfg.Rejected(r)
	sc.c.mu.Lock()
	return sc.c.spendLocked(cost)
}

func (sc *ServerConn) malformedLocked(id uint32, reason string) error {
	c := &sc.c
	c.pending = h2wire.AppendRSTStream(c.pending, id, h2wire.CodeProtocol)
	c.past.add(id, true)
	return sc.rejectedLocked(message.Rejection{Reason: reason}, costMalformed)
}

// tooLargeLocked answers a request whose head is too large, RFC 6585 section 5.
func (sc *ServerConn) tooLargeLocked(id uint32, excess hpack.Excess, end bool) error {
	c := &sc.c
	at := c.beginBlockLocked()
	c.fieldLocked(":status", "431")
	c.endBlockLocked(at, id, true)
	if !end {
		c.pending = h2wire.AppendRSTStream(c.pending, id, h2wire.CodeNo)
	}
	c.past.add(id, !end)
	r := message.Rejection{Status: 431, Limit: "header_bytes", Reason: "header fields too large"}
	if excess == hpack.TooMany {
		r.Limit, r.Reason = "header_fields", "too many header fields"
	}
	return sc.rejectedLocked(r, costTooLarge)
}
