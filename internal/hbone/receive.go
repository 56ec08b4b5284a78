package hbone

import (
	"encoding/binary"
	"errors"
	"time"

	"golang.org/x/net/http2/hpack"
)

// budget bounds the frames that cost us work and the peer nothing: how many may
// come in a burst, and how many more a second. RFC 9113 section 10.5.
const (
	budgetBurst  = 2000
	budgetPerSec = 500
	maxControl   = 1 << 10 // payload of SETTINGS, PING and the like, in bytes
	maxKept      = 4 << 10 // scratch memory that a connection keeps, in bytes
)

// reader turns the bytes of a connection into frames. It is used by the read
// loop alone.
type reader struct {
	c *conn

	head    [frameHeaderLen]byte
	headLen int
	frame   frameHeader
	body    []byte // of a frame that is collected whole
	want    int    // bytes of body still to come

	data    *Stream // of the DATA frame under way; nil to skip its payload
	left    int     // payload bytes of the DATA frame still to come
	pad     int     // how many of these are padding
	padNext bool    // the next byte is the pad length

	block    []byte // header block fragments
	blockID  uint32 // stream of the header block that is not complete; 0 when none
	blockEnd bool   // END_STREAM of that block
	pieces   int    // CONTINUATION frames of that block
	decoder  *hpack.Decoder
	fields   fieldSink

	greeted bool // SETTINGS came

	tokens float64
	filled time.Time
	freed  []byte // WINDOW_UPDATE frames to post when the batch is done
}

func newReader(c *conn) *reader {
	r := &reader{c: c, tokens: budgetBurst, filled: time.Now()}
	r.fields.limit = c.cfg.MaxHeaderBytes
	r.decoder = hpack.NewDecoder(4096, r.fields.emit)
	// Huffman coding makes a string at most 8/5 as long. The sum is bounded by fields.
	r.decoder.SetMaxStringLength(2 * c.cfg.MaxHeaderBytes)
	return r
}

// readLoop reads until the connection ends and says why it did. While nothing
// comes it holds no buffer: it waits for the first bytes of a frame in a few
// bytes of its own, then takes a buffer and fills it with what is there.
func (c *conn) readLoop() error {
	r := newReader(c)
	if c.server {
		if err := r.expectPreface(); err != nil {
			return err
		}
	}
	var first [frameHeaderLen]byte
	for {
		c.under.eager = false
		n, err := c.tls.Read(first[:])
		if err != nil {
			return err
		}
		if err := r.burst(first[:n]); err != nil {
			return err
		}
	}
}

// burst handles what has arrived, beginning with first, until nothing is left.
func (r *reader) burst(first []byte) error {
	b := takeBuffer()
	defer giveBuffer(b)
	c := r.c
	c.under.eager = true
	n := copy(*b, first)
	for {
		// A burst lasts as long as its peer sends faster than we read.
		c.lastRead.Store(time.Now().UnixNano())
		var err error
		for n < len(*b) && err == nil {
			var m int
			m, err = c.tls.Read((*b)[n:])
			n += m
		}
		if ferr := r.feed((*b)[:n]); ferr != nil {
			return ferr
		}
		c.post(r.freed)
		if r.freed = r.freed[:0]; cap(r.freed) > maxKept {
			r.freed = nil
		}
		if errors.Is(err, errWouldBlock) {
			return nil
		}
		if err != nil {
			return err
		}
		n = 0
	}
}

func (r *reader) expectPreface() error {
	var b [len(preface)]byte
	for n := 0; n < len(b); {
		m, err := r.c.tls.Read(b[n:])
		if err != nil {
			return err
		}
		n += m
		if string(b[:n]) != preface[:n] {
			return connError(CodeProtocol, "no HTTP/2 preface")
		}
	}
	return nil
}

// feed handles the bytes p.
func (r *reader) feed(p []byte) error {
	for len(p) > 0 {
		var n int
		var err error
		switch {
		case r.left > 0:
			n, err = r.feedData(p)
		case r.want > 0:
			n = min(len(p), r.want)
			r.body = append(r.body, p[:n]...)
			if r.want -= n; r.want == 0 {
				err = r.whole()
			}
		default:
			n = copy(r.head[r.headLen:], p)
			if r.headLen += n; r.headLen == frameHeaderLen {
				r.headLen = 0
				r.frame = parseFrameHeader(r.head[:])
				err = r.begin()
			}
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// begin looks at a frame header.
func (r *reader) begin() error {
	f := r.frame
	if !r.greeted && (f.typ != frameSettings || f.flags&flagAck != 0) {
		return connError(CodeProtocol, "frame type %d before SETTINGS", f.typ)
	}
	if r.blockID != 0 && (f.typ != frameContinuation || f.stream != r.blockID) {
		return connError(CodeProtocol, "frame type %d inside a header block", f.typ)
	}
	limit := maxControl
	switch f.typ {
	case frameData:
		return r.beginData()
	case frameHeaders, frameContinuation:
		if f.length > r.c.cfg.MaxHeaderBytes+256 {
			return connError(CodeEnhanceYourCalm, "header block larger than %d bytes", r.c.cfg.MaxHeaderBytes)
		}
		limit = f.length
	case frameGoAway:
		limit = minMaxFrame // its text is as long as the peer likes
	case framePriority, frameRSTStream, frameSettings, framePushPromise, framePing, frameWindowUpdate:
	default:
		return r.beginUnknown()
	}
	if f.length > limit {
		return connError(CodeFrameSize, "frame type %d of %d bytes", f.typ, f.length)
	}
	if cap(r.body) > maxKept {
		r.body = nil
	}
	r.body, r.want = r.body[:0], f.length
	if f.length == 0 {
		return r.whole()
	}
	return nil
}

// beginUnknown skips a frame of an extension that we do not have, RFC 9113
// section 5.5.
func (r *reader) beginUnknown() error {
	if r.frame.length > ourMaxFrame {
		return connError(CodeFrameSize, "frame type %d of %d bytes", r.frame.typ, r.frame.length)
	}
	r.data, r.left, r.pad, r.padNext = nil, r.frame.length, 0, false
	return r.spend(1)
}

// whole handles a frame that was collected.
func (r *reader) whole() error {
	f, b := r.frame, r.body
	switch f.typ {
	case frameHeaders:
		return r.onHeaders(b)
	case frameContinuation:
		return r.onContinuation(b)
	case frameRSTStream:
		return r.onRSTStream(b)
	case frameSettings:
		return r.onSettings(b)
	case framePing:
		return r.onPing(b)
	case frameGoAway:
		return r.onGoAway(b)
	case frameWindowUpdate:
		return r.onWindowUpdate(b)
	case framePushPromise:
		return connError(CodeProtocol, "PUSH_PROMISE although push is off")
	}
	return r.onPriority(b)
}

// onPriority checks what RFC 9113 section 5.3.2 deprecates.
func (r *reader) onPriority(b []byte) error {
	if err := r.fixed(b, 5, true); err != nil {
		return err
	}
	return r.spend(1)
}

// fixed checks a frame of n bytes that belongs to a stream, or to none.
func (r *reader) fixed(b []byte, n int, ofStream bool) error {
	if len(b) != n {
		return connError(CodeFrameSize, "frame type %d of %d bytes, want %d", r.frame.typ, len(b), n)
	}
	if ofStream != (r.frame.stream != 0) {
		return connError(CodeProtocol, "frame type %d on stream %d", r.frame.typ, r.frame.stream)
	}
	return nil
}

// spend takes from the budget of frames that cost the peer nothing.
func (r *reader) spend(n float64) error {
	if r.tokens -= n; r.tokens >= 0 {
		return nil
	}
	now := time.Now()
	r.tokens = min(budgetBurst, r.tokens+now.Sub(r.filled).Seconds()*budgetPerSec)
	r.filled = now
	if r.tokens < 0 {
		return connError(CodeEnhanceYourCalm, "too many frames that carry nothing")
	}
	return nil
}

func (r *reader) beginData() error {
	f := r.frame
	if f.stream == 0 {
		return connError(CodeProtocol, "DATA on stream 0")
	}
	if f.length > ourMaxFrame {
		return connError(CodeFrameSize, "DATA of %d bytes", f.length)
	}
	if r.c.recvAvail.Add(-int64(f.length)) < 0 {
		return connError(CodeFlowControl, "connection window exceeded")
	}
	s, err := r.c.stream(f.stream)
	if err != nil {
		return err
	}
	if f.length == 0 && f.flags&flagEndStream == 0 {
		if err := r.spend(1); err != nil {
			return err
		}
	}
	if s == nil {
		// Late data of a stream that has ended: its window is given back at once.
		r.c.consumed(f.length)
	} else if code := s.admit(f.length); code != CodeNo {
		s.reset(code)
		r.c.consumed(f.length)
		s = nil
	}
	r.data, r.left, r.pad = s, f.length, 0
	r.padNext = f.flags&flagPadded != 0
	if r.padNext && f.length == 0 {
		return connError(CodeProtocol, "padded DATA without pad length")
	}
	if f.length == 0 {
		r.endData()
	}
	return nil
}

func (r *reader) feedData(p []byte) (int, error) {
	if r.padNext {
		r.padNext = false
		r.left--
		r.pad = int(p[0])
		if r.pad > r.left {
			return 0, connError(CodeProtocol, "padding larger than the frame")
		}
		r.skipped(1)
		if r.left == 0 {
			r.endData()
		}
		if r.pad == r.left && r.frame.flags&flagEndStream == 0 {
			return 1, r.spend(1) // nothing but padding
		}
		return 1, nil
	}
	if payload := r.left - r.pad; payload > 0 {
		n := min(len(p), payload)
		if r.data != nil {
			r.freed = r.data.deliver(p[:n], r.freed)
		}
		r.left -= n
		if r.left == 0 {
			r.endData()
		}
		return n, nil
	}
	n := min(len(p), r.left)
	r.left -= n
	r.pad -= n
	r.skipped(n)
	if r.left == 0 {
		r.endData()
	}
	return n, nil
}

// skipped gives back window for padding, which no reader will.
func (r *reader) skipped(n int) {
	if r.data != nil {
		r.freed = r.data.took(n, false, r.freed)
	}
}

func (r *reader) endData() {
	if r.data != nil && r.frame.flags&flagEndStream != 0 {
		r.data.remoteEnd()
	}
	r.data = nil
}

func (r *reader) onRSTStream(b []byte) error {
	if err := r.fixed(b, 4, true); err != nil {
		return err
	}
	s, err := r.c.stream(r.frame.stream)
	if s == nil || err != nil {
		return err
	}
	// Opening and resetting in a row keeps us busy for nothing (CVE-2023-44487).
	if !s.answered() {
		if err := r.spend(2); err != nil {
			return err
		}
	}
	s.peerReset(ErrCode(binary.BigEndian.Uint32(b)))
	return nil
}

func (r *reader) onSettings(b []byte) error {
	// Each setting may touch every stream.
	if err := r.spend(1 + float64(len(b))/60); err != nil {
		return err
	}
	ack := r.frame.flags&flagAck != 0
	switch {
	case r.frame.stream != 0:
		return connError(CodeProtocol, "SETTINGS on stream %d", r.frame.stream)
	case len(b)%6 != 0 || ack && len(b) > 0:
		return connError(CodeFrameSize, "SETTINGS of %d bytes", len(b))
	case ack:
		return nil
	}
	for ; len(b) > 0; b = b[6:] {
		if err := r.c.applySetting(binary.BigEndian.Uint16(b), binary.BigEndian.Uint32(b[2:])); err != nil {
			return err
		}
	}
	if !r.greeted {
		r.greeted = true
		close(r.c.settings)
	}
	r.freed = appendFrameHeader(r.freed, frameHeader{typ: frameSettings, flags: flagAck})
	return nil
}

func (r *reader) onPing(b []byte) error {
	if err := r.fixed(b, 8, false); err != nil {
		return err
	}
	if err := r.spend(1); err != nil {
		return err
	}
	data := [8]byte(b)
	switch {
	case r.frame.flags&flagAck == 0:
		r.freed = appendPing(r.freed, flagAck, data)
	case data == leavePing:
		r.c.lastCall()
	}
	return nil
}

func (r *reader) onGoAway(b []byte) error {
	switch {
	case r.frame.stream != 0:
		return connError(CodeProtocol, "GOAWAY on stream %d", r.frame.stream)
	case len(b) < 8:
		return connError(CodeFrameSize, "GOAWAY of %d bytes", len(b))
	}
	if err := r.spend(1); err != nil {
		return err
	}
	last := binary.BigEndian.Uint32(b) & maxWindow
	code := ErrCode(binary.BigEndian.Uint32(b[4:]))
	r.c.peerGoesAway(last, code, string(b[8:]))
	return nil
}

func (r *reader) onWindowUpdate(b []byte) error {
	if len(b) != 4 {
		return connError(CodeFrameSize, "WINDOW_UPDATE of %d bytes", len(b))
	}
	n := int64(binary.BigEndian.Uint32(b) & maxWindow)
	if n < 1<<10 {
		if err := r.spend(1); err != nil {
			return err
		}
	}
	return r.c.grant(r.frame.stream, n)
}
