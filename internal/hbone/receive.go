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
	maxControl   = 1 << 10 // payload of SETTINGS, GOAWAY and the like, in bytes
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

	tokens float64
	filled time.Time
	freed  []byte // WINDOW_UPDATE frames to post when the batch is done
}

func newReader(c *conn) *reader {
	r := &reader{c: c, tokens: budgetBurst, filled: time.Now()}
	r.fields.limit = c.cfg.MaxHeaderBytes
	r.decoder = hpack.NewDecoder(4096, r.fields.emit)
	r.decoder.SetMaxStringLength(c.cfg.MaxHeaderBytes)
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
	c.lastRead.Store(time.Now().UnixNano())
	c.under.eager = true
	n := copy(*b, first)
	for {
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
		r.freed = r.freed[:0]
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
	if r.blockID != 0 && (f.typ != frameContinuation || f.stream != r.blockID) {
		return connError(CodeProtocol, "frame type %d inside a header block", f.typ)
	}
	if f.typ == frameData {
		return r.beginData()
	}
	limit := maxControl
	if f.typ == frameHeaders || f.typ == frameContinuation {
		limit = r.c.cfg.MaxHeaderBytes + 256
	}
	if f.length > limit {
		if f.typ == frameHeaders || f.typ == frameContinuation {
			return connError(CodeEnhanceYourCalm, "header block larger than %d bytes", r.c.cfg.MaxHeaderBytes)
		}
		return connError(CodeFrameSize, "frame type %d of %d bytes", f.typ, f.length)
	}
	r.body, r.want = r.body[:0], f.length
	if f.length == 0 {
		return r.whole()
	}
	return nil
}

// whole handles a frame other than DATA.
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
	// PRIORITY is deprecated and unknown types are ignored, at a price.
	return r.spend(1)
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
	} else if !s.admit(f.length) {
		s.reset(CodeFlowControl)
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
	if len(b) != 4 || r.frame.stream == 0 {
		return connError(CodeFrameSize, "malformed RST_STREAM")
	}
	s, err := r.c.stream(r.frame.stream)
	if err != nil {
		return err
	}
	// Opening and resetting in a row keeps us busy for nothing (CVE-2023-44487).
	if s != nil && !s.answered() {
		if err := r.spend(2); err != nil {
			return err
		}
	}
	if s != nil {
		s.finish(&ResetError{Code: ErrCode(binary.BigEndian.Uint32(b)), Remote: true})
	}
	return nil
}

func (r *reader) onSettings(b []byte) error {
	if err := r.spend(1); err != nil {
		return err
	}
	if r.frame.stream != 0 || len(b)%6 != 0 {
		return connError(CodeFrameSize, "malformed SETTINGS")
	}
	if r.frame.flags&flagAck != 0 {
		return nil
	}
	for ; len(b) > 0; b = b[6:] {
		if err := r.c.applySetting(binary.BigEndian.Uint16(b), binary.BigEndian.Uint32(b[2:])); err != nil {
			return err
		}
	}
	r.c.settingsOnce.Do(func() { close(r.c.settings) })
	r.freed = appendFrameHeader(r.freed, frameHeader{typ: frameSettings, flags: flagAck})
	return nil
}

func (r *reader) onPing(b []byte) error {
	if r.frame.stream != 0 || len(b) != 8 {
		return connError(CodeFrameSize, "malformed PING")
	}
	if r.frame.flags&flagAck != 0 {
		return nil
	}
	if err := r.spend(1); err != nil {
		return err
	}
	r.freed = appendPing(r.freed, flagAck, [8]byte(b))
	return nil
}

func (r *reader) onGoAway(b []byte) error {
	if r.frame.stream != 0 || len(b) < 8 {
		return connError(CodeFrameSize, "malformed GOAWAY")
	}
	last := binary.BigEndian.Uint32(b) & maxWindow
	code := ErrCode(binary.BigEndian.Uint32(b[4:]))
	r.c.peerGoesAway(last, code, string(b[8:]))
	return nil
}

func (r *reader) onWindowUpdate(b []byte) error {
	if len(b) != 4 {
		return connError(CodeFrameSize, "malformed WINDOW_UPDATE")
	}
	n := int64(binary.BigEndian.Uint32(b) & maxWindow)
	if n < 1<<10 {
		if err := r.spend(1); err != nil {
			return err
		}
	}
	return r.c.grant(r.frame.stream, n)
}
