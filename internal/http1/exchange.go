package http1

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/ambit-mesh/ambit/internal/message"
)

// exchange is one request and its answer. It is made anew for each request, since
// the handler may close its body late.
type exchange struct {
	sc   *ServerConn
	req  message.Request
	body body
	last bool // the client closes after it
	// failed is set when the rest of the request's body will not come.
	failed atomic.Bool
	// accepted is set when the answer has opened a tunnel, before decided is closed,
	// which it is by any answer. nil: no tunnel was asked for. The two directions of
	// a tunnel must not wait for each other, so mu does not guard them.
	accepted atomic.Bool
	decided  chan struct{}
	once     sync.Once

	// mu is held while something is written; Body.Read may write 100 (Continue)
	// while the answer is under way. It guards what follows.
	mu        sync.Mutex
	state     state
	continued bool // 100 (Continue) was sent, or is not needed
	how       framing
	left      int64 // byLength: what has to be written yet
	close     bool  // the connection closes after the answer
	out       *buffer
	held      []byte // what is to be sent; lies in out, unless it is larger
	err       error  // why it was broken off
}

type state uint8

const (
	waiting state = iota // for Respond
	answering
	ended
	brokenOff
)

// newExchange reads a request from its head.
func (sc *ServerConn) newExchange(head []byte) (*exchange, error) {
	x := &exchange{sc: sc}
	var sp special
	how, f := parseRequest(head, &sc.cfg, &sc.in.buf.spans, &x.req, &sp)
	if f != nil {
		return nil, f
	}
	sc.in.skip(len(head))
	x.last = sp.close || x.req.Version == message.HTTP10 // RFC 9112 section 9.3: a proxy keeps none open
	if x.req.Tunnel() {
		how, x.decided = rawBytes, make(chan struct{})
	}
	x.body.src, x.body.cfg, x.body.owner, x.body.how, x.body.left = &sc.in, &sc.cfg, x, how, x.req.ContentLength
	if how != noBody {
		x.req.Body = &x.body
	}
	x.continued = !x.req.Continue || sc.in.buffered() > 0 // RFC 9110 section 10.1.1
	sc.in.release()
	return x, nil
}

// begin implements owner.
func (x *exchange) begin() error {
	switch {
	case x.body.how == rawBytes:
		// Who forwards may read before the handler has passed on that the other end
		// has accepted.
		<-x.decided
		if !x.accepted.Load() {
			return errNotAccepted
		}
		return nil
	case !x.req.Continue:
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.continued:
		return nil
	case x.state != waiting && x.out == nil:
		return errAnswered // the final head is out: the client need not send the body
	}
	x.continued = true
	return x.send([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
}

// ended implements owner.
func (x *exchange) ended(err error) error {
	if err == io.EOF {
		return err
	}
	x.failed.Store(true)
	var t *timeout
	if err == errClosed || errors.Is(err, message.ErrProtocol) || errors.As(err, &t) {
		return err
	}
	x.sc.cancel() // the client is gone, or does not get to send the rest
	return fmt.Errorf("request body: %w", err)
}

// closing implements owner.
func (x *exchange) closing() { x.decide() }

// decide lets who reads from a tunnel go on.
func (x *exchange) decide() {
	if x.decided != nil {
		x.once.Do(func() { close(x.decided) })
	}
}

// Inform implements message.Responder.
func (x *exchange) Inform(status int, fields message.Fields) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case status < 100 || status > 199 || status == 101:
		return &FieldError{Name: "status", Reason: "not that of an interim response"}
	case x.state != waiting:
		return errAnswered
	case x.req.Version == message.HTTP10:
		return nil // RFC 9110 section 15.2: it knows of none
	case status == 100 && x.continued:
		return nil
	case status == 100:
		x.continued = true
	}
	out := takeSmall()
	defer out.give()
	b, err := appendInterim(out.b[:0], status, fields)
	if err != nil {
		return err
	}
	return x.send(b)
}

// Respond implements message.Responder. The head is held back, except for a
// tunnel: its client waits.
func (x *exchange) Respond(resp *message.Response) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.state != waiting {
		return x.over(errAnswered)
	}
	p, err := x.plan(resp)
	if err != nil {
		return err
	}
	out := takeSmall()
	b, err := x.appendHead(out.b[:0], resp, &p)
	if err != nil {
		out.give()
		return err
	}
	x.state, x.how, x.left, x.close = answering, p.how, p.length, p.close
	x.out, x.held = out, b
	if x.how == rawBytes {
		x.accepted.Store(true)
		err = x.flush()
	}
	x.decide()
	return err
}

// Write implements message.Responder.
func (x *exchange) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.state == waiting:
		return 0, errNotAnswered
	case x.state != answering:
		return 0, x.over(errAnswered)
	case x.how == noBody && x.req.Method == "HEAD":
		return len(p), nil
	case x.how == noBody && len(p) > 0, x.how == byLength && int64(len(p)) > x.left:
		return 0, fmt.Errorf("http1: response body: %w", errLength)
	case len(p) == 0:
		return 0, nil
	}
	n, err := x.emit(p)
	if x.how == byLength {
		x.left -= int64(n)
	}
	return n, err
}

// Flush implements message.Responder.
func (x *exchange) Flush() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch x.state {
	case waiting:
		return errNotAnswered
	case answering, ended:
		return x.flush()
	}
	return x.over(errAnswered)
}

// End implements message.Responder.
func (x *exchange) End(trailers message.Fields) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.state == waiting:
		return errNotAnswered
	case x.state != answering:
		return x.over(errAnswered)
	case x.how == byLength && x.left > 0:
		err := fmt.Errorf("http1: response body: %w", errLength)
		x.breakOff(err)
		return err
	}
	if x.how == byChunks {
		if x.out == nil {
			x.out = takeSmall()
			x.held = x.out.b[:0]
		}
		var err error
		if x.held, err = appendLastChunk(x.held, trailers); err != nil {
			x.breakOff(err)
			return err
		}
	}
	if err := x.flush(); err != nil {
		return err
	}
	x.state = ended
	if x.how != rawBytes {
		return nil
	}
	ok, err := x.sc.out.end()
	if !ok {
		x.sc.Close() // what cannot half-close ends whole
	}
	return err
}

// Break implements message.Responder.
func (x *exchange) Break(reason error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.state != ended {
		x.breakOff(reason)
	}
}

// breakOff ends the connection so that the answer is not taken for complete.
func (x *exchange) breakOff(reason error) {
	if x.state == brokenOff {
		return
	}
	x.state, x.err = brokenOff, reason
	x.unhold()
	reset(x.sc.conn)
}

func (x *exchange) over(err error) error {
	if x.err != nil {
		return x.err
	}
	return err
}

// finish ends the exchange after its handler; gone says that the client was, too.
// It reports whether another request can follow.
func (x *exchange) finish(gone bool) (again bool, err error) {
	sc := x.sc
	x.mu.Lock()
	state, closing := x.state, x.close || x.failed.Load()
	x.mu.Unlock()
	limit := 0
	if state == ended && !closing {
		limit = drainBytes
	}
	settled := x.body.settle(limit)
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.state == waiting && gone:
		return false, errGone
	case x.state == waiting:
		return false, x.unanswered()
	case x.state == answering:
		x.breakOff(errors.New("handler left the response unfinished"))
		return false, x.err
	case x.state == brokenOff:
		return false, x.err
	case x.how == rawBytes:
		return false, nil
	case settled && !closing && !sc.in.interrupted.Load():
		return true, nil
	}
	if !settled || !x.last {
		sc.linger()
	}
	return false, nil
}

// unanswered answers in the place of a handler that did not.
func (x *exchange) unanswered() error {
	x.state = ended
	f := &fault{status: 500, reason: "no answer"}
	var t *timeout
	switch {
	case errors.As(x.body.err, &f):
	case errors.As(x.body.err, &t):
		f = &fault{status: 408, limit: t.limit, reason: t.reason}
	case x.failed.Load():
		return x.body.err
	}
	x.sc.reject(f, x.req.Method == "HEAD")
	return f
}
