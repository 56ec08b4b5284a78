package http2_test

import (
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// bufferedPipe is a connection in memory that takes what is written without
// waiting for its reader, up to a bound, as the streams of a tunnel do. It works
// inside a synctest bubble.
func bufferedPipe(t testing.TB) (a, b net.Conn) {
	x, y := newHalf(), newHalf()
	a, b = &memConn{in: x, out: y}, &memConn{in: y, out: x}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

const halfSize = 256 << 10

// half is one direction.
type half struct {
	mu     sync.Mutex
	cond   sync.Cond
	buf    []byte
	closed bool // nothing more is written
	gone   bool // nothing more is read
	rd, wd deadline
}

type deadline struct {
	past  bool
	timer *time.Timer
}

func newHalf() *half {
	h := &half{}
	h.cond.L = &h.mu
	return h
}

func (h *half) set(d *deadline, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.past, d.timer = false, nil
	switch wait := time.Until(at); {
	case at.IsZero():
	case wait <= 0:
		d.past = true
		h.cond.Broadcast()
	default:
		d.timer = time.AfterFunc(wait, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			d.past = true
			h.cond.Broadcast()
		})
	}
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.gone:
			return 0, net.ErrClosed
		case h.rd.past:
			return 0, os.ErrDeadlineExceeded
		case len(h.buf) > 0:
			n := copy(p, h.buf)
			h.buf = append(h.buf[:0], h.buf[n:]...)
			h.cond.Broadcast()
			return n, nil
		case h.closed:
			return 0, io.EOF
		}
		h.cond.Wait()
	}
}

func (h *half) write(p []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.closed:
			return n, net.ErrClosed
		case h.gone:
			return n, io.ErrClosedPipe
		case h.wd.past:
			return n, os.ErrDeadlineExceeded
		}
		m := min(len(p), halfSize-len(h.buf))
		h.buf = append(h.buf, p[:m]...)
		n, p = n+m, p[m:]
		if m > 0 {
			h.cond.Broadcast()
		}
		if len(p) == 0 {
			return n, nil
		}
		h.cond.Wait()
	}
}

func (h *half) close(reader bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if reader {
		h.gone = true
	} else {
		h.closed = true
	}
	for _, d := range []*deadline{&h.rd, &h.wd} {
		if d.timer != nil && h.gone && h.closed {
			d.timer.Stop()
		}
	}
	h.cond.Broadcast()
}

// memConn is one end.
type memConn struct{ in, out *half }

func (c *memConn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *memConn) Write(p []byte) (int, error) { return c.out.write(p) }
func (c *memConn) CloseWrite() error           { c.out.close(false); return nil }
func (c *memConn) Close() error {
	c.out.close(false)
	c.in.close(true)
	return nil
}
func (c *memConn) LocalAddr() net.Addr  { return &net.UnixAddr{Name: "memory"} }
func (c *memConn) RemoteAddr() net.Addr { return &net.UnixAddr{Name: "memory"} }
func (c *memConn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}
func (c *memConn) SetReadDeadline(t time.Time) error  { c.in.set(&c.in.rd, t); return nil }
func (c *memConn) SetWriteDeadline(t time.Time) error { c.out.set(&c.out.wd, t); return nil }
