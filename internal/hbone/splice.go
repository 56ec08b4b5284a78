package hbone

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ambit-mesh/ambit/internal/h2wire"
)

// Splice copies between the stream and the application's connection until both
// directions have ended, keeping half-closes and resets. It returns nil after an
// orderly end, and the reason otherwise. It does not close app, except that a
// stream that breaks resets it; but app is of no other use afterwards.
func (s *Stream) Splice(app net.Conn) error {
	out := newOutlet(app, &s.c.under.alone)
	s.mu.Lock()
	if s.ended {
		err := s.err
		s.mu.Unlock()
		out.abort()
		if err == nil {
			err = ErrClosed
		}
		return err
	}
	s.out = out
	queued := len(s.queue) > 0
	if queued {
		s.drainer = true
	}
	end := s.peerDone && !queued
	s.mu.Unlock()
	if queued {
		go s.drain(out)
	}
	if end {
		s.passEnd(out)
	}
	s.pump(out)
	<-s.done
	return s.Err()
}

// pump sends what the application writes until it half-closes. If it stops before,
// the stream has ended or is about to.
func (s *Stream) pump(out *outlet) {
	for !s.deaf.Load() {
		max, err := s.credit(bufSize)
		if err != nil {
			return
		}
		buf, n, err := out.read(max)
		if n > 0 {
			serr := s.sendData(*buf, n)
			giveBuffer(buf)
			if serr != nil {
				return
			}
		}
		if err == io.EOF {
			s.sendEnd()
			return
		}
		if err != nil && !s.deaf.Load() {
			s.appFailed(appError(err)) // does nothing if it was the stream that failed
			return
		}
	}
}

// sendEnd passes a half-close on.
func (s *Stream) sendEnd() {
	var end [h2wire.FrameHeaderLen]byte
	h2wire.PutFrameHeader(end[:], h2wire.FrameHeader{Type: h2wire.FrameData, Flags: h2wire.FlagEndStream, Stream: s.id})
	if s.c.out.send(s, end[:]) == nil {
		s.localEnd()
	}
}

// sendData sends the n bytes behind the first 9 of buf. Nearly always the window
// that credit saw is still there and this is one frame.
func (s *Stream) sendData(buf []byte, n int) error {
	for at := 0; at < n; {
		m, err := s.reserve(n - at)
		if err != nil {
			return err
		}
		frame := buf[at : at+h2wire.FrameHeaderLen+m]
		// The header overwrites bytes that were sent by the frame before.
		h2wire.PutFrameHeader(frame, h2wire.FrameHeader{Length: m, Type: h2wire.FrameData, Stream: s.id})
		if err := s.c.out.send(s, frame); err != nil {
			return err
		}
		s.sent.Add(int64(m))
		at += m
	}
	return nil
}

// outlet is the application's connection.
type outlet struct {
	conn  net.Conn
	raw   syscall.RawConn // nil without a file descriptor
	alone *atomic.Bool
	// whole is set when a connection that cannot half-close was closed: that it
	// cannot be read then is an end and no failure.
	whole atomic.Bool

	// Used by pump.
	rbuf *[]byte
	rmax int
	rn   int
	rerr error
	rfn  func(uintptr) bool

	// Used by the read loop, or by drain.
	wp   []byte
	wn   int
	werr error
	wfn  func(uintptr) bool
}

// newOutlet takes an application's connection, and whether it is carried alone; nil
// where that is not known.
func newOutlet(c net.Conn, alone *atomic.Bool) *outlet {
	o := &outlet{conn: c, alone: alone}
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			o.raw = raw
		}
	}
	o.rfn, o.wfn = o.readReady, o.writeReady
	return o
}

// read waits for bytes and then takes a buffer for them: up to max bytes behind
// the first 9. The caller gives the buffer back if n > 0.
func (o *outlet) read(max int) (buf *[]byte, n int, err error) {
	if o.raw == nil {
		buf = takeBuffer()
		n, err = o.conn.Read((*buf)[h2wire.FrameHeaderLen : h2wire.FrameHeaderLen+max])
		if n == 0 {
			giveBuffer(buf)
			buf = nil
		}
		if err != nil && o.whole.Load() {
			err = io.EOF
		}
		return buf, n, err
	}
	o.rmax = max
	if err := o.raw.Read(o.rfn); err != nil {
		return nil, 0, err
	}
	buf, o.rbuf = o.rbuf, nil
	switch {
	case o.rerr != nil:
		return nil, 0, os.NewSyscallError("read", o.rerr)
	case o.rn == 0:
		return nil, 0, io.EOF
	}
	return buf, o.rn, nil
}

func (o *outlet) readReady(fd uintptr) bool {
	b := takeBuffer()
	o.rn, o.rerr = readFD(fd, (*b)[h2wire.FrameHeaderLen:h2wire.FrameHeaderLen+o.rmax], o.isAlone())
	if o.rerr == nil && o.rn > 0 {
		o.rbuf = b
		return true
	}
	giveBuffer(b)
	return o.rerr != syscall.EAGAIN
}

// tryWrite writes what the application takes at once.
func (o *outlet) tryWrite(p []byte) (int, error) {
	if o.raw == nil {
		return 0, nil
	}
	o.wp = p
	err := o.raw.Write(o.wfn)
	o.wp = nil
	if err == nil {
		err = o.werr
	}
	return o.wn, err
}

func (o *outlet) writeReady(fd uintptr) bool {
	o.wn, o.werr = writeFD(fd, o.wp, o.isAlone())
	if o.wn < 0 {
		o.wn = 0
	}
	if o.werr == syscall.EAGAIN {
		o.werr = nil
	}
	return true
}

func (o *outlet) isAlone() bool { return o.alone != nil && o.alone.Load() }

func (o *outlet) write(p []byte) error {
	_, err := o.conn.Write(p)
	return err
}

// closeWrite half-closes. A connection that the peer ended already (ENOTCONN) needs
// no FIN: when that was a reset, reading says so.
func (o *outlet) closeWrite() error {
	if cw, ok := o.conn.(interface{ CloseWrite() error }); ok {
		if err := cw.CloseWrite(); !errors.Is(err, syscall.ENOTCONN) {
			return err
		}
		return nil
	}
	o.whole.Store(true)
	return o.conn.Close()
}

// stopReading makes read fail from now on.
func (o *outlet) stopReading() { _ = o.conn.SetReadDeadline(time.Unix(1, 0)) }

// abort resets the connection.
func (o *outlet) abort() {
	if l, ok := o.conn.(interface{ SetLinger(sec int) error }); ok {
		_ = l.SetLinger(0)
	}
	_ = o.conn.Close()
}

// Relay copies between two connections until both directions have ended, keeping
// half-closes and resets, with a buffer only while there are bytes. toB and toA
// are counted as they go. It closes neither connection, except that one that
// breaks resets the other.
func Relay(a, b net.Conn, toB, toA *atomic.Int64) error {
	one := func(from, to *outlet, count *atomic.Int64) error {
		err := copyTo(from, to, count)
		if err != nil {
			from.abort()
			to.abort()
		}
		return err
	}
	oa, ob := newOutlet(a, nil), newOutlet(b, nil)
	back := make(chan error, 1)
	go func() { back <- one(ob, oa, toA) }()
	err := one(oa, ob, toB)
	if berr := <-back; err == nil || errors.Is(err, net.ErrClosed) && berr != nil {
		err = berr
	}
	return err
}

func copyTo(from, to *outlet, count *atomic.Int64) error {
	for {
		buf, n, err := from.read(bufSize)
		if n > 0 {
			werr := to.write((*buf)[h2wire.FrameHeaderLen : h2wire.FrameHeaderLen+n])
			giveBuffer(buf)
			if werr != nil {
				return werr
			}
			count.Add(int64(n))
		}
		if err == io.EOF {
			return to.closeWrite()
		}
		if err != nil {
			return err
		}
	}
}
