package proxy

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// burst writes datagrams to a connected socket, as many as it can by one system
// call and one way through the kernel (UDP_SEGMENT): those of equal size that come
// together.
type burst struct {
	c     *net.UDPConn
	buf   []byte // of burstPool while something is in it
	oob   []byte
	size  int  // of each datagram but the last
	n     int  // datagrams in buf
	plain bool // the kernel or the path does not take them together
}

// What the kernel takes together.
const maxSegments, maxBurst = 64, 60000

var burstPool = sync.Pool{New: func() any { b := make([]byte, 0, maxBurst); return &b }}

// add takes a datagram; more says that others follow at once. nil is none.
func (b *burst) add(p []byte, more bool) (err error) {
	if p == nil {
		if b.n > 0 && !more {
			err = b.flush()
		}
		return err
	}
	if b.n > 0 && (len(p) == 0 || len(p) > b.size || b.n == maxSegments || len(b.buf)+len(p) > maxBurst) {
		err = b.flush()
	}
	if b.n == 0 && (!more || len(p) == 0 || b.plain) {
		_, werr := b.c.Write(p)
		return firstOf(err, werr)
	}
	if b.n == 0 {
		b.size, b.buf = len(p), *burstPool.Get().(*[]byte)
	}
	b.buf = append(b.buf, p...)
	b.n++
	// A shorter one can only be the last; an empty one would not be there at all.
	if !more || len(p) < b.size {
		err = firstOf(err, b.flush())
	}
	return err
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func (b *burst) flush() error {
	buf, n := b.buf, b.n
	b.buf, b.n = nil, 0
	defer func() {
		buf = buf[:0]
		burstPool.Put(&buf)
	}()
	if n == 1 {
		_, err := b.c.Write(buf)
		return err
	}
	b.oob = segments(b.oob[:0], b.size)
	_, _, err := b.c.WriteMsgUDPAddrPort(buf, b.oob, netip.AddrPort{})
	if err == nil || isGone(err) {
		return err
	}
	b.plain = true
	for rest := buf; len(rest) > 0; {
		m := min(b.size, len(rest))
		_, err = b.c.Write(rest[:m])
		rest = rest[m:]
	}
	return err
}

// segments appends the control message that says how large each datagram is.
func segments(oob []byte, size int) []byte {
	oob = append(oob, make([]byte, unix.CmsgSpace(2))...)
	h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(oob[unix.CmsgLen(0):], uint16(size))
	return oob
}
