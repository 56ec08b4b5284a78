package hbone

import (
	"encoding/binary"
	"errors"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/ambit-mesh/ambit/internal/h2wire"
)

const (
	maxControl = 1 << 10 // payload of SETTINGS, PING and the like, in bytes
	maxKept    = 4 << 10 // scratch memory that a connection keeps, in bytes
	// ourMaxFrame is the largest DATA frame we accept. Other frames are bounded
	// more tightly where they are parsed.
	ourMaxFrame = 1 << 20
)

// reader turns the bytes of a connection into frames. It is used by the read
// loop alone.
type reader struct {
	c *conn

	head    [h2wire.FrameHeaderLen]byte
	headLen int
	frame   h2wire.FrameHeader
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

	budget h2wire.Budget
	freed  []byte // WINDOW_UPDATE frames to post when the batch is done
}

func newReader(c *conn) *reader {
	r := &reader{c: c, budget: h2wire.NewBudget()}
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
	var first [h2wire.FrameHeaderLen]byte
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
	var b [len(h2wire.Preface)]byte
	for n := 0; n < len(b); {
		m, err := r.c.tls.Read(b[n:])
		if err != nil {
			return err
		}
		n += m
		if string(b[:n]) != h2wire.Preface[:n] {
			return connError(CodeProtocol, "no HTTP/2 h2wire.Preface")
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
			if r.headLen += n; r.headLen == h2wire.FrameHeaderLen {
				r.headLen = 0
				r.frame = h2wire.ParseFrameHeader(r.head[:])
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
	if !r.greeted && (f.Type != h2wire.FrameSettings || f.Flags&h2wire.FlagAck != 0) {
		return connError(CodeProtocol, "frame type %d before SETTINGS", f.Type)
	}
	if r.blockID != 0 && (f.Type != h2wire.FrameContinuation || f.Stream != r.blockID) {
		return connError(CodeProtocol, "frame type %d inside a header block", f.Type)
	}
	limit := maxControl
	switch f.Type {
	case h2wire.FrameData:
		return r.beginData()
	case h2wire.FrameHeaders, h2wire.FrameContinuation:
		if f.Length > r.c.cfg.MaxHeaderBytes+256 {
			return connError(CodeEnhanceYourCalm, "header block larger than %d bytes", r.c.cfg.MaxHeaderBytes)
		}
		limit = f.Length
	case h2wire.FrameGoAway:
		limit = h2wire.MinMaxFrame // its text is as long as the peer likes
	case h2wire.FramePriority, h2wire.FrameRSTStream, h2wire.FrameSettings, h2wire.FramePushPromise, h2wire.FramePing, h2wire.FrameWindowUpdate:
	default:
		return r.beginUnknown()
	}
	if f.Length > limit {
		return connError(CodeFrameSize, "frame type %d of %d bytes", f.Type, f.Length)
	}
	if cap(r.body) > maxKept {
		r.body = nil
	}
	r.body, r.want = r.body[:0], f.Length
	if f.Length == 0 {
		return r.whole()
	}
	return nil
}

// beginUnknown skips a frame of an extension that we do not have, RFC 9113
// section 5.5.
func (r *reader) beginUnknown() error {
	if r.frame.Length > ourMaxFrame {
		return connError(CodeFrameSize, "frame type %d of %d bytes", r.frame.Type, r.frame.Length)
	}
	r.data, r.left, r.pad, r.padNext = nil, r.frame.Length, 0, false
	return r.spend(1)
}

// whole handles a frame that was collected.
func (r *reader) whole() error {
	f, b := r.frame, r.body
	switch f.Type {
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
		return connError(CodeFrameSize, "frame type %d of %d bytes, want %d", r.frame.Type, len(b), n)
	}
	if ofStream != (r.frame.Stream != 0) {
		return connError(CodeProtocol, "frame type %d on stream %d", r.frame.Type, r.frame.Stream)
	}
	return nil
}

// spend takes from the budget of frames that cost the peer nothing.
func (r *reader) spend(n float64) error {
	if !r.budget.Spend(n) {
		return connError(CodeEnhanceYourCalm, "too many frames that carry nothing")
	}
	return nil
}

func (r *reader) beginData() error {
	f := r.frame
	if f.Stream == 0 {
		return connError(CodeProtocol, "DATA on stream 0")
	}
	if f.Length > ourMaxFrame {
		return connError(CodeFrameSize, "DATA of %d bytes", f.Length)
	}
	if r.c.recvAvail.Add(-int64(f.Length)) < 0 {
		return connError(CodeFlowControl, "connection window exceeded")
	}
	s, err := r.c.stream(f.Stream)
	if err != nil {
		return err
	}
	if f.Length == 0 && f.Flags&h2wire.FlagEndStream == 0 {
		if err := r.spend(1); err != nil {
			return err
		}
	}
	if s == nil {
		// Late data of a stream that has ended: its window is given back at once.
		r.c.consumed(f.Length)
	} else if code := s.admit(f.Length); code != CodeNo {
		s.reset(code)
		r.c.consumed(f.Length)
		s = nil
	}
	r.data, r.left, r.pad = s, f.Length, 0
	r.padNext = f.Flags&h2wire.FlagPadded != 0
	if r.padNext && f.Length == 0 {
		return connError(CodeProtocol, "padded DATA without pad length")
	}
	if f.Length == 0 {
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
		if r.pad == r.left && r.frame.Flags&h2wire.FlagEndStream == 0 {
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
	if r.data != nil && r.frame.Flags&h2wire.FlagEndStream != 0 {
		r.data.remoteEnd()
	}
	r.data = nil
}

func (r *reader) onRSTStream(b []byte) error {
	if err := r.fixed(b, 4, true); err != nil {
		return err
	}
	s, err := r.c.stream(r.frame.Stream)
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
	ack := r.frame.Flags&h2wire.FlagAck != 0
	switch {
	case r.frame.Stream != 0:
		return connError(CodeProtocol, "SETTINGS on stream %d", r.frame.Stream)
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
	r.freed = h2wire.AppendFrameHeader(r.freed, h2wire.FrameHeader{Type: h2wire.FrameSettings, Flags: h2wire.FlagAck})
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
	case r.frame.Flags&h2wire.FlagAck == 0:
		r.freed = h2wire.AppendPing(r.freed, h2wire.FlagAck, data)
	case data == leavePing:
		r.c.lastCall()
	}
	return nil
}

func (r *reader) onGoAway(b []byte) error {
	switch {
	case r.frame.Stream != 0:
		return connError(CodeProtocol, "GOAWAY on stream %d", r.frame.Stream)
	case len(b) < 8:
		return connError(CodeFrameSize, "GOAWAY of %d bytes", len(b))
	}
	if err := r.spend(1); err != nil {
		return err
	}
	last := binary.BigEndian.Uint32(b) & h2wire.MaxWindow
	code := ErrCode(binary.BigEndian.Uint32(b[4:]))
	r.c.peerGoesAway(last, code, string(b[8:]))
	return nil
}

func (r *reader) onWindowUpdate(b []byte) error {
	if len(b) != 4 {
		return connError(CodeFrameSize, "WINDOW_UPDATE of %d bytes", len(b))
	}
	n := int64(binary.BigEndian.Uint32(b) & h2wire.MaxWindow)
	if n < 1<<10 {
		if err := r.spend(1); err != nil {
			return err
		}
	}
	return r.c.grant(r.frame.Stream, n)
}
