package hbone

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/h2wire"
)

// StreamConn is a stream as a connection, for who speaks a protocol on it instead
// of passing it on with Splice.
type StreamConn struct {
	s             *Stream
	local, remote net.Addr
	read, write   deadline
	rmu, wmu      sync.Mutex // one Read, one Write at a time
}

var _ net.Conn = (*StreamConn)(nil)

// readWait is a Read that waits for data.
type readWait struct {
	buf  []byte
	n    int
	wake chan struct{} // room for one token
}

// Conn gives the stream as a connection with these addresses. Splice must not be
// called, and Conn once only.
func (s *Stream) Conn(local, remote net.Addr) *StreamConn {
	c := &StreamConn{s: s, local: local, remote: remote}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reader = &readWait{wake: make(chan struct{}, 1)}
	s.writeLimit = &c.write
	return c
}

// Read implements net.Conn. What arrives while it waits is copied straight to p.
func (c *StreamConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.rmu.Lock()
	defer c.rmu.Unlock()
	s := c.s
	if c.read.passed() {
		return 0, os.ErrDeadlineExceeded
	}
	for {
		s.mu.Lock()
		r := s.reader
		switch {
		case r.n > 0 || len(s.queue) > 0:
			n := c.takeLocked(p)
			s.mu.Unlock()
			s.c.post(s.took(n, true, nil))
			return n, nil
		case s.peerDone && (!s.ended || s.err == nil):
			first := !s.outDone
			s.outDone = true
			both := first && s.weDone
			s.mu.Unlock()
			if both {
				s.finish(nil)
			}
			return 0, io.EOF
		case s.ended:
			s.mu.Unlock()
			return 0, s.endedErr()
		}
		r.buf = p
		s.mu.Unlock()
		var expired bool
		select {
		case <-r.wake:
		case <-c.read.expired():
			expired = true
		}
		s.mu.Lock()
		r.buf = nil
		if n := r.n; n > 0 {
			r.n = 0
			if len(s.queue) == 0 {
				s.lagged = false
			}
			s.mu.Unlock()
			s.c.post(s.took(n, true, nil))
			return n, nil
		}
		s.mu.Unlock()
		if expired {
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// takeLocked copies what is queued. A reader that empties the queue keeps up, and
// its window may grow. The caller holds the stream's mu.
func (c *StreamConn) takeLocked(p []byte) int {
	s, n := c.s, 0
	for n < len(p) && len(s.queue) > 0 {
		head := &s.queue[0]
		m := copy(p[n:], head.data)
		n += m
		if head.data = head.data[m:]; len(head.data) > 0 {
			break
		}
		head.release()
		s.queue = s.queue[1:]
	}
	if len(s.queue) == 0 {
		s.queue, s.lagged = nil, false
	}
	return n
}

// Buffered is how many bytes Read gives without waiting.
func (c *StreamConn) Buffered() (n int) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	for i := range c.s.queue {
		n += len(c.s.queue[i].data)
	}
	return n
}

// Write implements net.Conn. It waits while the peer gives no room.
func (c *StreamConn) Write(p []byte) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.write.passed() {
		return 0, os.ErrDeadlineExceeded
	}
	sent := 0
	for sent < len(p) {
		n, err := c.s.credit(min(len(p)-sent, bufSize))
		if err != nil {
			return sent, err
		}
		buf := takeBuffer()
		copy((*buf)[h2wire.FrameHeaderLen:], p[sent:sent+n])
		err = c.s.sendData(*buf, n)
		giveBuffer(buf)
		if errors.Is(err, errSilent) {
			err = c.s.endedErr()
		}
		if err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

// CloseWrite half-closes: the peer sees the end of what was written.
func (c *StreamConn) CloseWrite() error {
	s := c.s
	s.mu.Lock()
	done, ended := s.weDone, s.ended
	s.mu.Unlock()
	if ended {
		return s.endedErr()
	}
	if !done {
		s.sendEnd()
	}
	return nil
}

// Close ends the connection as closing a TCP socket does: the peer sees an
// orderly end, or a reset if it sent something that was not read.
func (c *StreamConn) Close() error {
	s := c.s
	s.mu.Lock()
	unread := len(s.queue) > 0
	done, ended := s.weDone, s.ended
	s.mu.Unlock()
	switch {
	case ended:
		return nil
	case unread:
		s.reset(CodeCancel)
		return nil
	case !done:
		s.sendEnd()
	}
	s.mu.Lock()
	orderly := s.peerDone
	s.outDone = true
	s.mu.Unlock()
	if orderly {
		s.finish(nil)
		return nil
	}
	// RFC 9113 section 8.1: complete, and no more is wanted.
	s.finishWith(ErrClosed, h2wire.AppendRSTStream(nil, s.id, CodeNo))
	return nil
}

// Reset ends the connection so that the peer does not take what it got for all
// there was.
func (c *StreamConn) Reset() error {
	c.s.reset(h2wire.CodeCancel)
	return nil
}

// Done is closed when the stream has ended at both ends, or was reset.
func (c *StreamConn) Done() <-chan struct{} { return c.s.done }

// Stream is the stream below.
func (c *StreamConn) Stream() *Stream { return c.s }

// LocalAddr implements net.Conn.
func (c *StreamConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *StreamConn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *StreamConn) SetDeadline(t time.Time) error {
	c.read.set(t)
	c.write.set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *StreamConn) SetReadDeadline(t time.Time) error {
	c.read.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn. It bounds the wait for the peer's window,
// not that for the connection below, which finds out by itself when it is dead.
func (c *StreamConn) SetWriteDeadline(t time.Time) error {
	c.write.set(t)
	return nil
}

// deadline is a point in time that can be moved while somebody waits for it.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer   // guarded by mu
	gone  chan struct{} // closed when the time has come; nil until somebody asks; guarded by mu
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.gone // the timer closes it
	}
	d.timer = nil
	select {
	case <-d.channelLocked():
		d.gone = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	gone := d.gone
	if left := time.Until(t); left > 0 {
		d.timer = time.AfterFunc(left, func() { close(gone) })
		return
	}
	close(gone)
}

func (d *deadline) channelLocked() chan struct{} {
	if d.gone == nil {
		d.gone = make(chan struct{})
	}
	return d.gone
}

// expired gives what is closed when the time has come, also if that is set later.
func (d *deadline) expired() <-chan struct{} {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.channelLocked()
}

func (d *deadline) passed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.gone: // nil: not
		return true
	default:
		return false
	}
}
