package http1

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pipeSize is what a direction of a test pipe holds before its writer waits.
const pipeSize = 64 << 10

// pipeConn is one end of a connection in memory that behaves as a stream of a
// tunnel does: buffered, with half-close, deadlines, reset and Done.
type pipeConn struct {
	in, out *pipeHalf
	done    chan struct{}
	once    *sync.Once
}

// newPipe gives the two ends of a connection.
func newPipe() (a, b *pipeConn) {
	x, y := newHalf(), newHalf()
	done, once := make(chan struct{}), new(sync.Once)
	return &pipeConn{in: x, out: y, done: done, once: once}, &pipeConn{in: y, out: x, done: done, once: once}
}

// plain hides Done and CloseWrite.
type plain struct{ net.Conn }

func (c *pipeConn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *pipeConn) Write(p []byte) (int, error) { return c.out.write(p) }
func (c *pipeConn) CloseWrite() error           { c.out.finish(io.EOF); return nil }
func (c *pipeConn) Done() <-chan struct{}       { return c.done }

// Buffered is how many bytes Read gives without waiting.
func (c *pipeConn) Buffered() int {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	return c.in.w - c.in.r
}

// Close lets the other end read what was written, as a tunnel does.
func (c *pipeConn) Close() error {
	c.out.finish(io.EOF)
	c.in.abandon()
	c.once.Do(func() { close(c.done) })
	return nil
}

// Reset ends both directions with an error.
func (c *pipeConn) Reset() error {
	c.out.finish(syscall.ECONNRESET)
	return c.Close()
}

func (c *pipeConn) LocalAddr() net.Addr  { return &net.TCPAddr{} }
func (c *pipeConn) RemoteAddr() net.Addr { return &net.TCPAddr{} }

func (c *pipeConn) SetDeadline(t time.Time) error {
	c.in.rd.set(c.in, t)
	c.out.wd.set(c.out, t)
	return nil
}
func (c *pipeConn) SetReadDeadline(t time.Time) error  { c.in.rd.set(c.in, t); return nil }
func (c *pipeConn) SetWriteDeadline(t time.Time) error { c.out.wd.set(c.out, t); return nil }

// pipeHalf is one direction.
type pipeHalf struct {
	mu       sync.Mutex
	cond     *sync.Cond
	buf      []byte
	r, w     int
	err      error // what the reader gets behind buf
	gone     bool  // nobody reads any more
	rd, wd   pipeDeadline
	writes   int
	maxWrite int
}

func newHalf() *pipeHalf {
	h := &pipeHalf{buf: make([]byte, pipeSize)}
	h.cond = sync.NewCond(&h.mu)
	return h
}

type pipeDeadline struct {
	passed bool
	timer  *time.Timer
	at     time.Time
}

func (d *pipeDeadline) set(h *pipeHalf, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d.at, d.passed = t, false
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		d.passed = true
		h.cond.Broadcast()
		return
	}
	if d.timer != nil {
		d.timer.Reset(left)
		return
	}
	d.timer = time.AfterFunc(left, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if !d.at.IsZero() && !time.Now().Before(d.at) {
			d.passed = true
			h.cond.Broadcast()
		}
	})
}

func (h *pipeHalf) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.gone:
			return 0, net.ErrClosed
		case h.rd.passed:
			return 0, os.ErrDeadlineExceeded
		case h.w > h.r:
			n := copy(p, h.buf[h.r:h.w])
			if h.r += n; h.r == h.w {
				h.r, h.w = 0, 0
			}
			h.cond.Broadcast()
			return n, nil
		case h.err != nil:
			return 0, h.err
		}
		h.cond.Wait()
	}
}

func (h *pipeHalf) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writes++
	h.maxWrite = max(h.maxWrite, len(p))
	n := 0
	for {
		switch {
		case h.err != nil:
			return n, io.ErrClosedPipe
		case h.gone:
			return n, syscall.EPIPE
		case h.wd.passed:
			return n, os.ErrDeadlineExceeded
		}
		if h.r > 0 && h.w == len(h.buf) {
			h.w = copy(h.buf, h.buf[h.r:h.w])
			h.r = 0
		}
		k := copy(h.buf[h.w:], p[n:])
		h.w += k
		if n += k; k > 0 {
			h.cond.Broadcast()
		}
		if n == len(p) {
			return n, nil
		}
		h.cond.Wait()
	}
}

func (h *pipeHalf) finish(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.err = err
	}
	h.cond.Broadcast()
}

func (h *pipeHalf) abandon() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = true
	for _, d := range []*pipeDeadline{&h.rd, &h.wd} {
		if d.timer != nil {
			d.timer.Stop()
		}
	}
	h.cond.Broadcast()
}

// wrote gives how many Writes there were, and the bytes of the largest.
func (c *pipeConn) wrote() (writes, largest int) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.out.writes, c.out.maxWrite
}
