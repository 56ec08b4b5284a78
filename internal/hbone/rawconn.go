package hbone

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
)

// errWouldBlock is what a read returns that must not wait. It is a temporary
// net.Error, so that the TLS layer keeps what it has of a record and goes on with
// the next read.
var errWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "hbone: no more bytes for now" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// rawConn is a socket whose reads can be told not to wait, and whose calls are as
// cheap as readFD and writeFD are. Without a file
// descriptor below (an in-memory pipe in a test), every read waits for its first
// byte and errWouldBlock follows a short read.
type rawConn struct {
	net.Conn
	raw syscall.RawConn // nil without a file descriptor
	// alone says that hardly anything else goes over the connection.
	alone atomic.Bool

	// Used by the one goroutine that reads.
	eager bool // do not wait
	short bool // the last read took less than it asked for: the socket is empty
	p     []byte
	n     int
	err   error
	again bool
	fn    func(fd uintptr) bool

	// Used by who writes, one at a time: the coalescer holds its lock meanwhile.
	wp   []byte
	wn   int
	werr error
	wfn  func(fd uintptr) bool
}

func newRawConn(c net.Conn) *rawConn {
	r := &rawConn{Conn: c}
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			r.raw = raw
		}
	}
	r.fn, r.wfn = r.ready, r.writable
	return r
}

// Read implements net.Conn.
func (r *rawConn) Read(p []byte) (int, error) {
	if r.eager && (r.short || r.raw == nil) {
		return 0, errWouldBlock
	}
	if r.raw == nil {
		return r.Conn.Read(p)
	}
	r.p, r.again = p, false
	err := r.raw.Read(r.fn)
	r.p = nil
	switch {
	case err != nil:
		return 0, err
	case r.again:
		return 0, errWouldBlock
	case r.err != nil:
		return 0, os.NewSyscallError("read", r.err)
	case r.n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	r.short = r.n < len(p)
	return r.n, nil
}

// ready tries once; it reports false to wait for the socket.
func (r *rawConn) ready(fd uintptr) bool {
	r.n, r.err = readFD(fd, r.p, r.alone.Load())
	if r.err == syscall.EAGAIN {
		r.again = r.eager
		r.short = true
		return r.eager
	}
	return true
}

// Write implements net.Conn.
func (r *rawConn) Write(p []byte) (int, error) {
	if r.raw == nil {
		return r.Conn.Write(p)
	}
	r.wp, r.wn, r.werr = p, 0, nil
	err := r.raw.Write(r.wfn)
	r.wp = nil
	switch {
	case err != nil:
		return r.wn, err
	case r.werr != nil:
		return r.wn, os.NewSyscallError("write", r.werr)
	}
	return r.wn, nil
}

// writable writes until all is written; it reports false to wait for room.
func (r *rawConn) writable(fd uintptr) bool {
	for r.wn < len(r.wp) {
		n, err := writeFD(fd, r.wp[r.wn:], r.alone.Load())
		if n > 0 {
			r.wn += n
		}
		if err == syscall.EAGAIN {
			return false
		}
		if err != nil {
			r.werr = err
			return true
		}
	}
	return true
}
