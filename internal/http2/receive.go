package http2

import (
	"sync"

	"github.com/ambit-mesh/ambit/internal/h2wire"
	"github.com/ambit-mesh/ambit/internal/http2/hpack"
)

const (
	// smallRead is what an idle connection waits with, in bytes; largeRead is
	// what it reads with while more comes than that.
	smallRead = 4 << 10
	largeRead = 64 << 10
	// maxControl bounds SETTINGS and the like, in bytes.
	maxControl = 1 << 10
)

var largeReads = sync.Pool{New: func() any { b := make([]byte, largeRead); return &b }}

// reader turns the bytes of a connection into frames. It is used by the read loop
// alone.
type reader struct {
	c       *conn
	decoder *hpack.Decoder
	small   []byte
	large   *[]byte // nil while small does

	frame   h2wire.FrameHeader
	data    *stream // of the DATA frame under way; nil to skip its payload
	left    int     // payload bytes of the DATA frame still to come
	pad     int     // how many of these are padding
	padNext bool    // the next byte is the pad length
	need    int     // size of the frame that has not come whole

	block    []byte // fragments of a header block
	blockID  uint32 // stream of the header block that is not complete; 0 when none
	blockEnd bool   // END_STREAM of that block
	pieces   int    // CONTINUATION frames of that block

	greeted bool // SETTINGS came
	prefix  int  // bytes of the preface that have come; server
	woken   []*stream
	started []*serverStream
}

func newReader(c *conn) *reader {
	return &reader{c: c, decoder: hpack.NewDecoder(c.cfg.MaxHeaderBytes, c.cfg.MaxFields, classes), small: make([]byte, smallRead)}
}

// loop reads until the connection ends and says why it did.
func (r *reader) loop() error {
	defer r.shrink()
	buf, from, to := r.small, 0, 0
	for {
		n, err := r.c.nc.Read(buf[to:])
		if to += n; n > 0 {
			r.c.read.Add(1)
			full := to == len(buf)
			used, ferr := r.feed(buf[from:to])
			r.finishBatch()
			if ferr != nil {
				return ferr
			}
			from += used
			buf, from, to = r.makeRoom(buf, from, to, full)
		}
		if err != nil {
			return err
		}
	}
}

// makeRoom chooses the buffer to go on with. What has not been handled is at its
// beginning.
func (r *reader) makeRoom(buf []byte, from, to int, full bool) ([]byte, int, int) {
	rest := buf[from:to]
	var next []byte
	switch {
	case r.need > largeRead:
		if next = buf; len(buf) < r.need {
			next = make([]byte, r.need)
		}
	case full || r.need > smallRead:
		if r.large == nil {
			r.large = largeReads.Get().(*[]byte)
		}
		next = *r.large
	case len(rest) > smallRead:
		next = buf
	default:
		next = r.small
	}
	n := copy(next, rest)
	if len(next) == smallRead {
		r.shrink()
	}
	return next, 0, n
}

func (r *reader) shrink() {
	if r.large != nil {
		largeReads.Put(r.large)
		r.large = nil
	}
}

// finishBatch lets those go on for whom something has come. Only now, because more
// of it may be behind the first, and then they find all of it.
func (r *reader) finishBatch() {
	c := r.c
	c.mu.Lock()
	for i, s := range r.woken {
		s.listed = false
		wake(s.readWake)
		r.woken[i] = nil
	}
	r.woken = r.woken[:0]
	for i, s := range r.started {
		c.server.startLocked(s)
		r.started[i] = nil
	}
	r.started = r.started[:0]
	c.reading = false
	c.laterLocked()
	c.mu.Unlock()
}

// touchLocked has the stream's reader woken at the end of the batch.
func (r *reader) touchLocked(s *stream) {
	if !s.listed {
		s.listed = true
		r.woken = append(r.woken, s)
	}
}

// feed handles the whole frames of p, and DATA as far as it has come. It says how
// much that was.
func (r *reader) feed(p []byte) (used int, err error) {
	r.c.mu.Lock()
	r.c.reading = true
	r.c.mu.Unlock()
	r.need = 0
	total := len(p)
	for len(p) > 0 && err == nil {
		var n int
		switch {
		case r.prefix < len(h2wire.Preface) && r.c.server != nil:
			n, err = r.preface(p)
		case r.left > 0:
			n, err = r.feedData(p)
		case len(p) < h2wire.FrameHeaderLen:
			return total - len(p), nil
		default:
			r.frame = h2wire.ParseFrameHeader(p)
			n, err = r.begin(p[h2wire.FrameHeaderLen:])
			if n < 0 {
				return total - len(p), err
			}
			n += h2wire.FrameHeaderLen
		}
		p = p[n:]
	}
	return total - len(p), err
}

func (r *reader) preface(p []byte) (int, error) {
	want := h2wire.Preface[r.prefix:]
	n := min(len(p), len(want))
	if string(p[:n]) != want[:n] {
		return 0, connError(h2wire.CodeProtocol, "no HTTP/2 preface")
	}
	r.prefix += n
	return n, nil
}

// begin handles a frame whose payload begins with p, and says how much of p that
// was: -1 when more has to come first.
func (r *reader) begin(p []byte) (int, error) {
	f := r.frame
	if !r.greeted && (f.Type != h2wire.FrameSettings || f.Flags&h2wire.FlagAck != 0) {
		return 0, connError(h2wire.CodeProtocol, "frame type %d before SETTINGS", f.Type)
	}
	if r.blockID != 0 && (f.Type != h2wire.FrameContinuation || f.Stream != r.blockID) {
		return 0, connError(h2wire.CodeProtocol, "frame type %d inside a header block", f.Type)
	}
	if f.Length > r.c.cfg.MaxFrame {
		return 0, connError(h2wire.CodeFrameSize, "frame type %d of %d bytes", f.Type, f.Length)
	}
	limit := maxControl
	switch f.Type {
	case h2wire.FrameData:
		return 0, r.beginData()
	case h2wire.FrameHeaders, h2wire.FrameContinuation:
		limit = f.Length
	case h2wire.FrameGoAway:
		limit = h2wire.MinMaxFrame // its text is as long as the peer likes
	case h2wire.FramePriority, h2wire.FrameRSTStream, h2wire.FrameSettings, h2wire.FramePushPromise, h2wire.FramePing, h2wire.FrameWindowUpdate:
	default:
		// An extension that we do not have, RFC 9113 section 5.5.
		r.data, r.left, r.pad, r.padNext = nil, f.Length, 0, false
		return 0, r.spend(1)
	}
	if f.Length > limit {
		return 0, connError(h2wire.CodeFrameSize, "frame type %d of %d bytes", f.Type, f.Length)
	}
	if len(p) < f.Length {
		r.need = f.Length + h2wire.FrameHeaderLen
		return -1, nil
	}
	return f.Length, r.whole(p[:f.Length])
}

// whole handles a frame that came whole.
func (r *reader) whole(b []byte) error {
	switch r.frame.Type {
	case h2wire.FrameHeaders:
		return r.onHeaders(b)
	case h2wire.FrameContinuation:
		return r.onContinuation(b)
	case h2wire.FrameRSTStream:
		return r.onRSTStream(b)
	case h2wire.FrameSettings:
		return r.onSettings(b)
	case h2wire.FramePing:
		return r.onPing(b)
	case h2wire.FrameGoAway:
		return r.onGoAway(b)
	case h2wire.FrameWindowUpdate:
		return r.onWindowUpdate(b)
	case h2wire.FramePushPromise:
		return connError(h2wire.CodeProtocol, "PUSH_PROMISE although push is off")
	}
	return r.onPriority(b)
}

// What honest work puts into the budget: the peer has reason for WINDOW_UPDATE and
// PING when we send, and a few streams that it gives up are nothing beside many
// that it does not.
const (
	earnedByData     = 2
	earnedByExchange = 2
	maxEarned        = 4000
)

// spendLocked takes from the budget of frames that cost the peer nothing.
func (c *conn) spendLocked(n float64) error {
	if c.budget.Spend(n) {
		return nil
	}
	c.budget.Earn(min(c.earned, maxEarned))
	c.earned = 0
	if c.budget.Spend(0) {
		return nil
	}
	return connError(h2wire.CodeEnhanceYourCalm, "too many frames that carry nothing")
}

func (r *reader) spend(n float64) error {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	return r.c.spendLocked(n)
}

// costViolation is what a stream that we have to end for what the peer did takes
// from its budget (CVE-2025-8671).
const costViolation = 2

// violatedLocked ends a stream whose peer broke the protocol.
func (s *stream) violatedLocked(code ErrCode, reason string) error {
	s.resetLocked(code, malformed("%s", reason))
	return s.c.spendLocked(costViolation)
}

// beginData looks at the header of a DATA frame. Its window is accounted for at
// once, RFC 9113 section 6.9.1.
func (r *reader) beginData() error {
	f, c := r.frame, r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.recvAvail -= f.Length; c.recvAvail < 0 {
		return connError(h2wire.CodeFlowControl, "connection window exceeded")
	}
	s, err := c.findLocked(f.Stream)
	if err != nil {
		return err
	}
	padded := f.Flags&h2wire.FlagPadded != 0
	if padded && f.Length == 0 {
		return connError(h2wire.CodeFrameSize, "padded DATA without pad length")
	}
	if f.Length == 0 && f.Flags&h2wire.FlagEndStream == 0 {
		if err := c.spendLocked(1); err != nil {
			return err
		}
	}
	switch {
	case s == nil:
		err = r.lateLocked()
	case s.recvEnd:
		err = s.violatedLocked(h2wire.CodeStreamClosed, "DATA behind the end of the stream")
	case s.client != nil && s.client.head == nil:
		err = s.violatedLocked(h2wire.CodeProtocol, "DATA before HEADERS")
	default:
		if s.avail -= f.Length; s.avail < 0 {
			err = s.violatedLocked(h2wire.CodeFlowControl, "stream window exceeded")
		}
	}
	if err != nil {
		return err
	}
	if s == nil || s.gone {
		c.consumedLocked(f.Length)
		s = nil
	}
	r.data, r.left, r.pad, r.padNext = s, f.Length, 0, padded
	if f.Length == 0 {
		r.endDataLocked()
	}
	return nil
}

// lateLocked judges DATA for a stream that has ended: it may have been under way
// when we reset the stream, RFC 9113 section 5.1.
func (r *reader) lateLocked() error {
	switch ended, sure := r.c.past.find(r.frame.Stream); {
	case ended == endedByPeer || sure && ended == endedUnknown:
		return connError(h2wire.CodeStreamClosed, "DATA on stream %d, which was closed", r.frame.Stream)
	case r.frame.Length == 0:
		return r.c.spendLocked(1)
	}
	return nil
}

func (r *reader) feedData(p []byte) (int, error) {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	if r.padNext {
		r.padNext = false
		r.left--
		if r.pad = int(p[0]); r.pad > r.left {
			return 0, connError(h2wire.CodeProtocol, "padding larger than the frame")
		}
		r.skippedLocked(1)
		empty := r.pad == r.left && r.frame.Flags&h2wire.FlagEndStream == 0
		if r.left == 0 {
			r.endDataLocked()
		}
		if empty {
			return 1, r.c.spendLocked(1) // nothing but padding
		}
		return 1, nil
	}
	var n int
	if payload := r.left - r.pad; payload > 0 {
		n = min(len(p), payload)
		if s := r.data; s != nil {
			r.deliverLocked(s, p[:n])
		}
	} else {
		n = min(len(p), r.left)
		r.pad -= n
		r.skippedLocked(n)
	}
	if r.left -= n; r.left == 0 {
		r.endDataLocked()
	}
	return n, nil
}

// deliverLocked queues content for the stream's reader.
func (r *reader) deliverLocked(s *stream, p []byte) {
	switch {
	case s.gone:
		// Ended while its frame was under way, so that the frame was accounted for.
		r.c.consumedLocked(len(p))
		return
	case s.expect >= 0 && int64(len(p)) > s.expect:
		s.resetLocked(h2wire.CodeProtocol, malformed("more content than content-length"))
		r.c.consumedLocked(len(p))
		return
	case s.expect >= 0:
		s.expect -= int64(len(p))
	}
	if s.deaf {
		r.c.consumedLocked(len(p))
		return
	}
	s.queue.write(p)
	r.touchLocked(s)
}

// skippedLocked gives back window for padding, which no reader will.
func (r *reader) skippedLocked(n int) {
	switch s := r.data; {
	case s == nil: // given back when the frame began
	case s.gone:
		r.c.consumedLocked(n)
	default:
		s.tookLocked(n)
	}
}

func (r *reader) endDataLocked() {
	if s := r.data; s != nil && r.frame.Flags&h2wire.FlagEndStream != 0 && !s.gone {
		s.recvEndLocked()
		r.touchLocked(s)
	}
	r.data = nil
}
