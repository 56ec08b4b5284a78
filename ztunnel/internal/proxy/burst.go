package proxy

import (
	"encoding/binary"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// burst writes datagrams to a connected socket, as many as it can by one system
// call and one way through the kernel (UDP_SEGMENT): those of equal size that come
// together.
type burst struct {
	c     *net.UDPConn
	buf   []byte
	size  int  // of each datagram but the last
	n     int  // datagrams in buf
	plain bool // the kernel or the path does not take them together
}

// What the kernel takes together.
const maxSegments, maxBurst = 64, 60000

// add takes a datagram; more says that others follow at once.
func (b *burst) add(p []byte, more bool) (err error) {
	if b.n > 0 && (len(p) == 0 || len(p) > b.size || b.n == maxSegments || len(b.buf)+len(p) > maxBurst) {
		err = b.flush()
	}
	if b.n == 0 && (!more || len(p) == 0 || b.plain) {
		_, werr := b.c.Write(p)
		return firstOf(err, werr)
	}
	if b.n == 0 {
		b.size = len(p)
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
	b.buf, b.n = b.buf[:0], 0
	if n == 1 {
		_, err := b.c.Write(buf)
		return err
	}
	_, _, err := b.c.WriteMsgUDP(buf, segments(b.size), nil)
	if err == nil || isGone(err) {
		return err
	}
	b.plain = true
	for len(buf) > 0 {
		m := min(b.size, len(buf))
		_, err = b.c.Write(buf[:m])
		buf = buf[m:]
	}
	return err
}

// segments is the control message that says how large each datagram is.
func segments(size int) []byte {
	oob := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(oob[unix.CmsgLen(0):], uint16(size))
	return oob
}
