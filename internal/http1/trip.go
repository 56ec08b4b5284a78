package http1

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/internal/message"
)

const (
	// maxInterim bounds the interim responses of one request.
	maxInterim = 64
	// writtenGrace is how long a response that has come whole waits for the Write
	// that it answers to return.
	writtenGrace = 50 * time.Millisecond
)

// trip is one request and its response, from RoundTrip until the response's body
// has ended.
type trip struct {
	c      *ClientConn
	ctx    context.Context // of RoundTrip, which the trip is the rest of
	stop   func() bool     // ends the wait for ctx; nil: it cannot end
	req    *message.Request
	reused bool
	stage  message.Stage
	keep   bool // the connection can be used again afterwards

	resp message.Response
	body body
	over atomic.Bool // somebody has ended the trip

	upload
}

// Read, Buffered, Trailers and Close make trip the Body of its response.

// Read implements message.Body.
func (t *trip) Read(p []byte) (int, error) { return t.body.Read(p) }

// Buffered implements message.Body.
func (t *trip) Buffered() int { return t.body.Buffered() }

// Trailers implements message.Body.
func (t *trip) Trailers() message.Fields { return t.body.Trailers() }

// Close implements message.Body. What is left of the response costs the connection,
// unless it has come already.
func (t *trip) Close() error {
	_ = t.body.Close()
	if t.over.Load() {
		return nil
	}
	if t.body.mu.TryLock() { // nobody reads
		rest := t.body.how == byLength && int64(t.c.in.buffered()) >= t.body.left
		if rest {
			t.c.in.skip(int(t.body.left))
			t.body.err = errClosed
		}
		t.body.mu.Unlock()
		if rest {
			t.finish()
			return nil
		}
	}
	if t.over.CompareAndSwap(false, true) {
		// A Read may still be using c.in: it is left to it.
		_ = t.c.Close()
		if t.stop != nil {
			t.stop()
		}
		if t.running() && t.req.Body != nil {
			_ = t.req.Body.Close()
		}
	}
	return nil
}

// begin implements owner.
func (t *trip) begin() error { return nil }

// closing implements owner.
func (t *trip) closing() {}

// ended implements owner.
func (t *trip) ended(err error) error {
	switch {
	case err != io.EOF:
		return t.fail(err)
	case t.body.how == rawBytes:
		t.half()
	default:
		t.finish()
	}
	return err
}

// abort is called when ctx has ended. Whoever waits for the connection then ends
// the trip.
func (t *trip) abort() { _ = t.c.Close() }

// finish ends a trip whose response has come whole.
func (t *trip) finish() {
	if !t.over.CompareAndSwap(false, true) {
		return
	}
	keep := t.keep && t.uploaded()
	if t.stop != nil && !t.stop() {
		keep = false // abort is about to close the connection
	}
	t.c.release(keep)
	t.join()
}

// fail ends a trip that has come to nothing and says why.
func (t *trip) fail(err error) error {
	if !t.over.CompareAndSwap(false, true) {
		return &message.ExchangeError{Stage: message.Aborted, Reused: t.reused, Err: errClosed}
	}
	if t.stop != nil {
		t.stop()
	}
	cause := t.uploadFailure()
	t.c.release(false)
	t.join()
	e := &message.ExchangeError{Stage: t.stage, Reused: t.reused, Err: err}
	switch {
	case t.ctx.Err() != nil:
		e.Stage, e.Err = message.Aborted, context.Cause(t.ctx)
	case cause != nil:
		e.Stage, e.Err = message.Aborted, cause
	}
	return e
}

// receive waits for the response.
func (t *trip) receive(inform message.Informer) error {
	for range maxInterim {
		var sp special
		if err := t.receiveHead(&sp); err != nil {
			return err
		}
		switch s := t.resp.Status; {
		case s == 100:
			t.go100() // RFC 9110 section 15.2.1: of no interest to anybody else
		case s == 101 || s >= 200:
			return t.accept(&sp)
		case inform != nil:
			inform(s, t.resp.Fields)
		}
		t.resp = message.Response{}
	}
	t.stage = message.Answered
	return malformed("too many interim responses")
}

// receiveHead reads one head into resp.
func (t *trip) receiveHead(sp *special) error {
	in, cfg := &t.c.in, &t.c.cfg
	var scan headScan
	timed := false
	for {
		b := in.bytes()
		n, f := scan.find(b, cfg)
		if f == nil && n > 0 {
			f = parseResponse(b[:n], &in.buf.spans, &t.resp, sp)
		}
		switch {
		case f != nil:
			t.stage = message.Answered
			return f
		case n > 0:
			in.skip(n)
			return nil
		case len(b) == 0:
			in.within(0)
		case !timed:
			timed = true
			in.at(time.Now().Add(cfg.HeaderTimeout))
		}
		err := in.fill()
		if in.buffered() > 0 {
			t.stage = message.Answered
		}
		switch {
		case err == io.EOF && len(b) > 0:
			return io.ErrUnexpectedEOF
		case isTimeout(err):
			return headTooSlow()
		case err != nil:
			return err
		}
	}
}

// accept decides about the content of a final response.
func (t *trip) accept(sp *special) error {
	t.stage = message.Answered
	t.noMore100()
	resp, sure := &t.resp, true
	b := &t.body
	b.src, b.cfg, b.owner = &t.c.in, &t.c.cfg, t
	switch {
	case resp.Status == 101:
		if t.req.Protocol == "" || !sameFold(sp.upgrade, t.req.Protocol) {
			return malformed("switched to a protocol that was not asked for")
		}
		resp.Protocol = t.req.Protocol
		b.how = rawBytes
		if t.key != "" {
			if err := checkAccept(t.key, resp); err != nil {
				return err
			}
		}
	case t.req.Method == "CONNECT" && t.req.Protocol == "" && resp.Status/100 == 2:
		b.how = rawBytes // RFC 9110 section 9.3.6: framing fields are ignored
	default:
		var f *fault
		if b.how, sure, f = responseFraming(sp, t.req.Method, resp); f != nil {
			return f
		}
	}
	t.keep = sure && b.how != rawBytes && sp.persists(resp.Version)
	b.left = resp.ContentLength
	switch b.how {
	case noBody:
		t.finish()
		return nil
	case byChunks, rawBytes:
		resp.ContentLength = -1
	}
	resp.Body = t
	if b.how == rawBytes {
		t.startTunnel()
	}
	t.c.in.release()
	return nil
}
