package http2

import (
	"encoding/binary"

	"github.com/ambit-mesh/ambit/internal/h2wire"
)

// fixed checks a frame of n bytes that belongs to a stream, or to none.
func (r *reader) fixed(b []byte, n int, ofStream bool) error {
	if len(b) != n {
		return connError(h2wire.CodeFrameSize, "frame type %d of %d bytes, want %d", r.frame.Type, len(b), n)
	}
	if ofStream != (r.frame.Stream != 0) {
		return connError(h2wire.CodeProtocol, "frame type %d on stream %d", r.frame.Type, r.frame.Stream)
	}
	return nil
}

// onPriority checks what RFC 9113 section 5.3.2 deprecates. What it says is not of
// interest, not even a stream that depends on itself.
func (r *reader) onPriority(b []byte) error {
	if r.frame.Stream == 0 {
		return connError(h2wire.CodeProtocol, "PRIORITY on stream 0")
	}
	if len(b) == 5 {
		return r.spend(1)
	}
	// Section 6.3: an error of the stream.
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.streams[r.frame.Stream]; s != nil {
		return s.violatedLocked(h2wire.CodeFrameSize, "PRIORITY of another size than 5")
	}
	return connError(h2wire.CodeFrameSize, "PRIORITY of %d bytes", len(b))
}

func (r *reader) onRSTStream(b []byte) error {
	if err := r.fixed(b, 4, true); err != nil {
		return err
	}
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.findLocked(r.frame.Stream)
	if s == nil || err != nil {
		return err
	}
	// Opening and resetting in a row keeps us busy for nothing (CVE-2023-44487).
	if s.server != nil && !s.sendEnd {
		if err := c.spendLocked(2); err != nil {
			return err
		}
	}
	s.failLocked(&ResetError{Code: ErrCode(binary.BigEndian.Uint32(b))}, false)
	return nil
}

func (r *reader) onSettings(b []byte) error {
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	// Each setting may touch every stream.
	if err := c.spendLocked(1 + float64(len(b))/60); err != nil {
		return err
	}
	ack := r.frame.Flags&h2wire.FlagAck != 0
	switch {
	case r.frame.Stream != 0:
		return connError(h2wire.CodeProtocol, "SETTINGS on stream %d", r.frame.Stream)
	case len(b)%6 != 0 || ack && len(b) > 0:
		return connError(h2wire.CodeFrameSize, "SETTINGS of %d bytes", len(b))
	case ack:
		return nil
	}
	for ; len(b) > 0; b = b[6:] {
		if err := c.settingLocked(binary.BigEndian.Uint16(b), binary.BigEndian.Uint32(b[2:])); err != nil {
			return err
		}
	}
	if !r.greeted {
		r.greeted = true
		close(c.greeted)
	}
	c.pending = h2wire.AppendFrameHeader(c.pending, h2wire.FrameHeader{Type: h2wire.FrameSettings, Flags: h2wire.FlagAck})
	return c.backlogLocked()
}

func (r *reader) onPing(b []byte) error {
	if err := r.fixed(b, 8, false); err != nil {
		return err
	}
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.spendLocked(1); err != nil {
		return err
	}
	data := [8]byte(b)
	switch {
	case r.frame.Flags&h2wire.FlagAck == 0:
		c.pending = h2wire.AppendPing(c.pending, h2wire.FlagAck, data)
	case data == leavePing:
		c.lastCallLocked()
	}
	return c.backlogLocked()
}

// backlogLocked ends a connection whose peer asks and does not listen.
func (c *conn) backlogLocked() error {
	if len(c.pending) > maxBacklog {
		return connError(h2wire.CodeEnhanceYourCalm, "peer asks for answers and reads none")
	}
	return nil
}

func (r *reader) onGoAway(b []byte) error {
	switch {
	case r.frame.Stream != 0:
		return connError(h2wire.CodeProtocol, "GOAWAY on stream %d", r.frame.Stream)
	case len(b) < 8:
		return connError(h2wire.CodeFrameSize, "GOAWAY of %d bytes", len(b))
	}
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.spendLocked(1); err != nil {
		return err
	}
	last := binary.BigEndian.Uint32(b) & h2wire.MaxWindow
	if code := ErrCode(binary.BigEndian.Uint32(b[4:])); code != h2wire.CodeNo && c.goAway == nil {
		c.goAway = &GoAwayError{Code: code, Debug: clip(b[8:])}
	}
	if c.server != nil {
		return nil // a client that opens no more streams closes the connection itself
	}
	c.draining = true
	// RFC 9113 section 6.8: those above were not acted on.
	for id, s := range c.streams {
		if id > last {
			s.client.unprocessed = true
			s.failLocked(c.departureLocked(), false)
		}
	}
	c.idleLocked()
	return nil
}

// departureLocked is why streams that the peer did not look at have failed.
func (c *conn) departureLocked() error {
	if c.goAway != nil {
		return c.goAway
	}
	return errDraining
}

func (r *reader) onWindowUpdate(b []byte) error {
	if len(b) != 4 {
		return connError(h2wire.CodeFrameSize, "WINDOW_UPDATE of %d bytes", len(b))
	}
	n := int64(binary.BigEndian.Uint32(b) & h2wire.MaxWindow)
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if n < 1<<10 {
		if err := c.spendLocked(1); err != nil {
			return err
		}
	}
	return c.grantLocked(r.frame.Stream, n)
}
