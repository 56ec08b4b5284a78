package http1

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/internal/message"
)

const (
	// continueTimeout is how long a body waits for 100 (Continue), RFC 9110 section
	// 10.1.1: not for ever, because there are servers that do not send it.
	continueTimeout = time.Second
	// waitSize is what a second goroutine waits for content with; it takes a large
	// buffer only while more comes.
	waitSize = 1 << 10
	// maxChunk bounds the chunks we make, so that chunkHead is room for their size.
	maxChunk  = 0xffff
	chunkHead = len("ffff\r\n")
)

// upload is the sending half of a trip.
type upload struct {
	out     *buffer
	wire    []byte // the head, and content that was there already; lies in out unless it is larger
	headLen int
	key     string // of a WebSocket, if it is ours
	how     framing
	left    int64 // byLength: content that is not in wire
	whole   bool  // all content is in wire

	sent chan struct{} // closed when the second goroutine has ended; nil: there is none
	// failure is why the request's own body failed; read when sent is closed.
	failure error
	// skipped says that the server did not want the body; read when sent is closed.
	skipped bool
	last    atomic.Bool // the last bytes are being written

	may100, no100 chan struct{} // closed on 100, and on a final response; nil: nobody waits
	halves        atomic.Int32  // directions of a tunnel that have ended
}

// encode writes the head and the content that is there already into wire.
func (t *trip) encode() (err error) {
	t.out = takeSmall()
	if needsKey(t.req) {
		t.key = newKey()
	}
	t.wire, t.how, err = appendRequest(t.out.b[:0], t.req, t.key)
	if err != nil {
		return err
	}
	t.headLen, t.left = len(t.wire), t.req.ContentLength
	if t.how == noBody || t.how == rawBytes {
		t.whole = true
		return nil
	}
	if t.req.Continue {
		return nil
	}
	for n := t.req.Body.Buffered(); n > 0 && !t.whole; n = t.req.Body.Buffered() {
		if len(t.wire)+n+chunkRoom > cap(t.wire) && len(t.out.b) != largeSize {
			next := takeLarge()
			if len(t.wire)+chunkRoom >= largeSize/2 {
				next.give()
				return nil // a huge head
			}
			t.wire = append(next.b[:0], t.wire...)
			t.out.give()
			t.out = next
		}
		room := min(cap(t.wire)-len(t.wire)-chunkRoom, maxChunk)
		if room < chunkRoom {
			return nil
		}
		if err := t.gather(room); err != nil {
			return err
		}
	}
	return nil
}

// gather reads content behind what is in wire.
func (t *trip) gather(room int) (err error) {
	at := len(t.wire)
	if t.how == byLength {
		var n int
		n, t.whole, err = t.read(t.wire[at : at+room])
		t.wire = t.wire[:at+n]
		return err
	}
	n, end, err := t.read(t.wire[at+chunkHead : at+chunkHead+room])
	if err != nil {
		return err
	}
	if n > 0 {
		data := t.wire[at+chunkHead : at+chunkHead+n]
		b := strconv.AppendInt(t.wire, int64(n), 16)
		b = append(b, "\r\n"...)
		b = b[:len(b)+copy(b[len(b):cap(b)], data)] // the size is shorter than its room
		t.wire = append(b, "\r\n"...)
	}
	if t.whole = end; end {
		t.wire, err = appendLastChunk(t.wire, t.req.Body.Trailers())
	}
	return err
}

// read gives the next piece of the request's body, and whether it is the last.
func (t *trip) read(p []byte) (n int, end bool, err error) {
	if t.how == byLength {
		p = p[:min(int64(len(p)), t.left)]
	}
	n, err = t.req.Body.Read(p)
	if t.how == byLength {
		t.left -= int64(n)
		end = t.left == 0
	}
	switch {
	case end && err == io.EOF, err == nil:
		return n, end, nil
	case err != io.EOF:
		return n, false, fmt.Errorf("request body: %w", err)
	case t.how == byLength:
		return n, false, fmt.Errorf("request body: %w", errLength)
	}
	return n, true, nil
}

// send writes wire and has the rest of the body follow.
func (t *trip) send() error {
	n, err := t.c.out.write(t.wire)
	t.out.give()
	t.out, t.wire = nil, nil
	switch {
	case err != nil && n < t.headLen:
		t.stage = message.Unprocessed
		return err
	case err != nil:
		// The answer may say why nothing more is taken: it is read all the same.
		t.failed(err)
		return nil
	case t.whole:
		return nil
	}
	if t.req.Continue {
		t.may100, t.no100 = make(chan struct{}), make(chan struct{})
	}
	t.start(t.rest)
	return nil
}

// failed is a peer that does not take the request whole.
func (t *trip) failed(err error) {
	t.skipped = true
	var late *timeout
	if errors.As(err, &late) {
		_ = t.c.conn.Close() // it does not answer either
	}
}

// start runs f as the second goroutine. It ends when the body has been sent, or
// the trip is over: then both ends of its path are closed.
func (t *trip) start(f func() error) {
	t.sent = make(chan struct{})
	go func() {
		err := f()
		t.failure = err
		close(t.sent)
		if err != nil {
			reset(t.c.conn) // who waits for the response then finds the failure
		}
		if t.how == rawBytes {
			t.half()
		}
	}()
}

// rest sends the rest of the body. An error is one of the body.
func (t *trip) rest() error {
	if !t.await100() {
		t.skipped = true
		return nil
	}
	return t.pump()
}

// pump sends content until its end.
func (t *trip) pump() error {
	wait := make([]byte, chunkHead+waitSize+chunkRoom)
	p := wait
	var big *buffer
	drop := func() {
		if big != nil {
			big.give()
			big = nil
		}
	}
	defer drop()
	for {
		n, end, err := t.read(p[chunkHead : len(p)-chunkRoom])
		if err != nil {
			return err
		}
		if end {
			t.last.Store(true)
		}
		b, err := t.frame(p, n, end)
		if err != nil {
			return err
		}
		if len(b) > 0 {
			if _, err := t.c.out.write(b); err != nil {
				t.failed(err)
				return nil
			}
		}
		switch {
		case end:
			return nil
		case n <= waitSize/2:
			drop()
			p = wait
		case n >= waitSize && big == nil:
			big = takeLarge()
			p = big.b
		}
	}
}

// frame makes what goes over the wire of n bytes of content at p[chunkHead:].
func (t *trip) frame(p []byte, n int, end bool) ([]byte, error) {
	if t.how != byChunks {
		return p[chunkHead:][:n], nil
	}
	b := p[chunkHead:chunkHead]
	if n > 0 {
		var size [chunkHead]byte
		s := append(strconv.AppendInt(size[:0], int64(n), 16), "\r\n"...)
		from := chunkHead - len(s)
		copy(p[from:], s)
		b = append(p[from:chunkHead+n], "\r\n"...)
	}
	if !end {
		return b, nil
	}
	return appendLastChunk(b, t.req.Body.Trailers())
}

// await100 waits until the body may be sent, if it has to wait.
func (t *trip) await100() bool {
	if t.may100 == nil {
		return true
	}
	timer := time.NewTimer(continueTimeout)
	defer timer.Stop()
	select {
	case <-t.may100:
	case <-timer.C:
	case <-t.no100:
		select {
		case <-t.may100:
		default:
			return false
		}
	case <-t.c.done:
		return false
	}
	return true
}

func (t *trip) go100() {
	if t.may100 != nil {
		select {
		case <-t.may100:
		default:
			close(t.may100)
		}
	}
}

func (t *trip) noMore100() {
	if t.no100 != nil {
		close(t.no100)
	}
}

// startTunnel sends the raw bytes of the request's body from now on.
func (t *trip) startTunnel() {
	t.start(func() error {
		if t.req.Body != nil {
			if err := t.pump(); err != nil || t.skipped {
				return err
			}
		}
		if ok, _ := t.c.out.end(); !ok {
			_ = t.c.conn.Close() // what cannot half-close ends whole
		}
		return nil
	})
}

// half counts the directions of a tunnel that have ended.
func (t *trip) half() {
	if t.halves.Add(1) == 2 {
		t.finish()
	}
}

// running reports whether the second goroutine still is.
func (t *trip) running() bool {
	if t.sent == nil {
		return false
	}
	select {
	case <-t.sent:
		return false
	default:
		return true
	}
}

// uploaded reports whether the request has been sent whole.
func (t *trip) uploaded() bool {
	if t.running() && t.last.Load() {
		timer := time.NewTimer(writtenGrace)
		defer timer.Stop()
		select {
		case <-t.sent:
		case <-timer.C:
		}
	}
	return !t.running() && !t.skipped && t.failure == nil
}

// uploadFailure gives why the request's body failed, if that is known.
func (t *trip) uploadFailure() error {
	if t.sent == nil || t.running() {
		return nil
	}
	return t.failure
}

// join waits for the second goroutine. The connection is closed, or the goroutine
// has ended.
func (t *trip) join() {
	if t.running() {
		if t.req.Body != nil {
			_ = t.req.Body.Close() // a Read that waits ends
		}
		<-t.sent
	}
}
