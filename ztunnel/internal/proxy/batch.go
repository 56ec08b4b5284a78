package proxy

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchSize is how many datagrams are read by one system call, smallDatagram how
// large they are to be read together.
const batchSize, smallDatagram = 64, 2048

// maxDatagram is the largest UDP payload over IPv4 or IPv6.
const maxDatagram = 65535

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// batch are the buffers of one read. They are taken when there is something to read,
// so that a session which waits has none.
type batch struct {
	hdrs  [batchSize]mmsghdr
	iovs  [batchSize + 1]unix.Iovec
	small [batchSize][smallDatagram]byte
	rest  [maxDatagram]byte // of the first datagram, when it is a large one
}

var batches = sync.Pool{New: func() any { return newBatch() }}

func newBatch() *batch {
	b := new(batch)
	// The first datagram has two buffers, which stand side by side.
	b.iovs[1].Base = &b.rest[0]
	b.iovs[1].SetLen(len(b.rest))
	for i := range b.hdrs {
		iov := &b.iovs[i+min(i, 1)]
		iov.Base = &b.small[i][0]
		iov.SetLen(smallDatagram)
		b.hdrs[i].hdr.Iov = iov
		b.hdrs[i].hdr.SetIovlen(1)
	}
	b.hdrs[0].hdr.SetIovlen(2)
	return b
}

// read fills the buffers with what waits, no more than max datagrams. The library's
// ReadBatch allocates an address for each of them.
func (b *batch) read(fd uintptr, max int) (int, syscall.Errno) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.hdrs[0])), uintptr(max), unix.MSG_DONTWAIT, 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// each calls f for each of n datagrams. It reports whether one was larger than is
// read together.
func (b *batch) each(n int, f func(p []byte, more bool)) (large bool) {
	for i := range n {
		m := &b.hdrs[i]
		size := int(m.n)
		switch {
		case m.hdr.Flags&unix.MSG_TRUNC != 0:
			large = true // lost, as datagrams may be: the next ones come whole
		case size <= smallDatagram:
			f(b.small[i][:size], i < n-1)
		default: // only the first has room for more
			large = true
			f(append(append(make([]byte, 0, size), b.small[i][:]...), b.rest[:size-smallDatagram]...), i < n-1)
		}
	}
	return large
}

// readBatches calls f for what a connected socket receives until it fails. An ICMP
// error in answer to something that was sent is returned, too.
func readBatches(c *net.UDPConn, f func(p []byte, more bool)) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var b *batch
	var n int
	var errno syscall.Errno
	ask := batchSize
	try := func(fd uintptr) bool {
		b = batches.Get().(*batch)
		if n, errno = b.read(fd, ask); errno != 0 {
			batches.Put(b)
		}
		return errno != unix.EAGAIN
	}
	for {
		if err := raw.Read(try); err != nil {
			return err
		}
		if errno != 0 {
			return os.NewSyscallError("recvmmsg", errno)
		}
		// A flow with datagrams that the small buffers cut gets one at a time.
		ask = batchSize
		if b.each(n, f) {
			ask = 1
		}
		batches.Put(b)
	}
}

// isGone reports an ICMP error: nobody listens there now.
func isGone(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}
