package http1

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// source is the receiving side of a connection: what has come and was not taken
// yet. It is used by one goroutine at a time, except for interrupt.
type source struct {
	conn net.Conn
	buf  *buffer // nil while nothing is there
	r, w int
	// until is the deadline for reading that conn has.
	until time.Time
	// interrupted is set once reading has ended for good.
	interrupted atomic.Bool
}

func (s *source) buffered() int { return s.w - s.r }

// ahead is how many bytes the connection gives without waiting, as far as it can
// tell. A connection that keeps what has come until it is read can.
func (s *source) ahead() int {
	if c, ok := s.conn.(interface{ Buffered() int }); ok {
		return c.Buffered()
	}
	return 0
}

func (s *source) bytes() []byte {
	if s.buf == nil {
		return nil
	}
	return s.buf.b[s.r:s.w]
}

// skip takes n bytes that are there.
func (s *source) skip(n int) {
	if s.r += n; s.r == s.w {
		s.r, s.w = 0, 0
	}
}

// release gives the buffer back if nothing is in it.
func (s *source) release() {
	if s.r == s.w && s.buf != nil {
		s.buf.give()
		s.buf, s.r, s.w = nil, 0, 0
	}
}

// drop gives the buffer back whatever is in it.
func (s *source) drop() {
	s.r, s.w = 0, 0
	s.release()
}

// room makes room for at least one byte. Who calls it bounds what is in the buffer.
func (s *source) room() []byte {
	if s.buf == nil {
		s.buf = takeSmall()
	}
	if s.w < len(s.buf.b) {
		return s.buf.b[s.w:]
	}
	next := s.buf
	if s.r == 0 {
		if len(s.buf.b) < largeSize {
			next = takeLarge()
		} else {
			next = &buffer{b: make([]byte, 2*len(s.buf.b))}
		}
	}
	s.w = copy(next.b, s.buf.b[s.r:s.w])
	s.r = 0
	if next != s.buf {
		s.buf.give()
		s.buf = next
	}
	return s.buf.b[s.w:]
}

// fill waits for more bytes until the deadline that is set.
func (s *source) fill() error {
	n, err := s.receive(s.room())
	s.w += n
	if n > 0 {
		return nil
	}
	return err
}

// receive waits for bytes until the deadline that is set.
func (s *source) receive(p []byte) (int, error) {
	// Read after the deadline was set: interrupt sets its own behind this flag.
	if s.interrupted.Load() {
		return 0, errClosed
	}
	for {
		n, err := s.conn.Read(p)
		if n == 0 && err == nil {
			continue
		}
		if err != nil && s.interrupted.Load() {
			err = errClosed
		}
		return n, err
	}
}

// within bounds the next reads by d, or by up to a quarter more, so that not every
// read moves a timer. 0 is no bound.
func (s *source) within(d time.Duration) {
	if d == 0 {
		if !s.until.IsZero() {
			s.at(time.Time{})
		}
		return
	}
	soonest := time.Now().Add(d)
	if latest := soonest.Add(d / 4); s.until.Before(soonest) || s.until.After(latest) {
		s.at(latest)
	}
}

// at bounds the next reads by t.
func (s *source) at(t time.Time) {
	s.until = t
	_ = s.conn.SetReadDeadline(t) // a connection that cannot is not bounded
}

// interrupt ends a read that waits, and all that follow.
func (s *source) interrupt() {
	s.interrupted.Store(true)
	_ = s.conn.SetReadDeadline(past)
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
