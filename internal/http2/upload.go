package http2

import (
	"bytes"
	"io"
	"time"

	"github.com/ambit-mesh/ambit/internal/h2wire"
	"github.com/ambit-mesh/ambit/internal/message"
)

// beginning is as much of a request's body as was there when it was sent.
type beginning struct {
	none     bool // there is no body
	whole    bool // this is all of it
	data     []byte
	pool     *[]byte // what data lies in
	trailers message.Fields
}

func (b *beginning) release() {
	if b.pool != nil {
		blocks.Put(b.pool)
		b.pool = nil
	}
}

// giveBack puts what was taken of a request's body before it again.
func (b *beginning) giveBack(req *message.Request) {
	if len(b.data) > 0 {
		req.Body = &returned{req.Body, bytes.Clone(b.data)}
	}
	b.release()
}

// returned is a body whose beginning had been taken.
type returned struct {
	message.Body
	data []byte
}

// Read implements message.Body.
func (r *returned) Read(p []byte) (int, error) {
	if len(r.data) == 0 {
		return r.Body.Read(p)
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

// Buffered implements message.Body.
func (r *returned) Buffered() int { return len(r.data) + r.Body.Buffered() }

// firstOf takes what has come of a body, so that it leaves with the head.
func firstOf(req *message.Request) (b beginning, err error) {
	switch {
	case req.Body == nil:
		b.none = !req.Tunnel()
		b.whole = b.none
		return b, nil
	case req.Tunnel() || req.Continue || req.Body.Buffered() == 0:
		return b, nil
	}
	b.pool = blocks.Get().(*[]byte)
	n, err := req.Body.Read(*b.pool)
	b.data = (*b.pool)[:n]
	switch {
	case err == io.EOF:
		b.whole = true
		b.trailers = req.Body.Trailers()
		err = checkFields(b.trailers)
	case err == nil && req.Version != message.HTTP2 && int64(n) == req.ContentLength:
		b.whole = true // in HTTP/1.1 nothing comes behind
	}
	if err == nil && (b.whole && req.ContentLength >= 0 && int64(n) != req.ContentLength || req.ContentLength >= 0 && int64(n) > req.ContentLength) {
		err = errLength
	}
	if err != nil && err != io.EOF {
		b.release()
		return b, err
	}
	return b, nil
}

// continueTimeout is how long a body waits for 100 (Continue) from a server that
// may never send it, RFC 9110 section 10.1.1.
const continueTimeout = time.Second

// upload sends the rest of a request's body as it comes.
func (s *clientStream) upload(b beginning, rest []byte) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.uploadLocked(b, rest); err != nil && s.err == nil {
		s.abortLocked(h2wire.CodeCancel, err)
	}
	s.uploading = false
}

func (s *clientStream) uploadLocked(b beginning, rest []byte) error {
	err := s.sendLocked(rest)
	sent := int64(len(b.data))
	b.release()
	switch {
	case err != nil:
		return err
	case b.whole:
		return s.finishLocked(b.trailers)
	case !s.wantedLocked():
		if s.sendEnd {
			return nil
		}
		return errEnded
	case s.req.Body == nil: // a tunnel with nothing to say
		return s.finishLocked(nil)
	}
	small := make([]byte, 512)
	for {
		n, err := s.passLocked(small)
		sent += int64(n)
		if l := s.req.ContentLength; l >= 0 && !s.req.Tunnel() && (sent > l || err == io.EOF && sent < l) {
			return errLength
		}
		if err == io.EOF {
			return s.finishLocked(s.req.Body.Trailers())
		}
		if err != nil {
			return err
		}
	}
}

// passLocked reads from the body and sends what it got. While it waits it holds no
// more than small.
func (s *clientStream) passLocked(small []byte) (n int, err error) {
	c := s.c
	c.mu.Unlock()
	p, body := small, s.req.Body
	var pool *[]byte
	if body.Buffered() > len(small) {
		pool = blocks.Get().(*[]byte)
		p = *pool
	}
	n, err = body.Read(p)
	more := err == nil && body.Buffered() > 0
	c.mu.Lock()
	if l := s.req.ContentLength; n > 0 && (l < 0 || int64(n) <= l || s.req.Tunnel()) {
		if serr := s.sendLocked(p[:n]); serr != nil {
			err = serr
		} else if !more && err == nil {
			c.kickLocked()
		}
	}
	if pool != nil {
		blocks.Put(pool)
	}
	return n, err
}

// finishLocked ends the request.
func (s *clientStream) finishLocked(trailers message.Fields) error {
	if err := checkFields(trailers); err != nil {
		return err
	}
	switch {
	case s.err != nil:
		return s.err
	case len(trailers) > 0:
		s.trailersFrameLocked(trailers)
	default:
		s.endFrameLocked()
	}
	s.c.kickLocked()
	return nil
}

// wantedLocked waits until it is known that the other end wants the body: of a
// tunnel when it is accepted, of a request that asked for 100 (Continue) when that
// has come, or long did not. If the answer is that it does not, it waits for its
// end: a reset would break it off.
func (s *clientStream) wantedLocked() bool {
	if !s.req.Tunnel() && !s.req.Continue {
		return true
	}
	var late <-chan time.Time
	if s.req.Continue {
		t := time.NewTimer(continueTimeout)
		defer t.Stop()
		late = t.C
	}
	ch := waitChan(&s.sendWake)
	for s.err == nil {
		switch {
		case s.tunnel || s.goOn, s.head != nil && s.head.Status/100 == 2:
			return true
		case s.head != nil && s.req.Tunnel() && !s.recvEnd:
			// Refused: there is nothing to be sent. END_STREAM says so.
			s.endFrameLocked()
			s.c.kickLocked()
			return false
		case s.head != nil && s.recvEnd:
			return false
		}
		s.c.mu.Unlock()
		timeout := false
		select {
		case <-ch:
		case <-late:
			timeout = true
		}
		s.c.mu.Lock()
		if timeout && s.head == nil && s.err == nil {
			return true
		}
	}
	return false
}
