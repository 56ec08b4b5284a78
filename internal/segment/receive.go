package segment

import (
	"encoding/binary"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	// maxGroup is the largest group that the kernel gives, in bytes, groupsAtOnce how
	// many are read by one system call.
	maxGroup, groupsAtOnce = 65535, 8
	// yieldAfter is how many packets are given before others have a turn.
	yieldAfter = 16
	// controlSpace is for the control messages of a group.
	controlSpace = 256
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// buffers are those of one read. They are taken when there is something to read, so
// that a socket which waits has none.
type buffers struct {
	hdrs    [groupsAtOnce]mmsghdr
	iovs    [groupsAtOnce]unix.Iovec
	names   [groupsAtOnce]unix.RawSockaddrInet6
	control [groupsAtOnce][controlSpace]byte
	data    [groupsAtOnce][maxGroup]byte
}

var pool = sync.Pool{New: func() any { return newBuffers() }}

func newBuffers() *buffers {
	b := new(buffers)
	for i := range b.hdrs {
		b.iovs[i].Base = &b.data[i][0]
		b.iovs[i].SetLen(maxGroup)
		h := &b.hdrs[i].hdr
		h.Iov = &b.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Control = &b.control[i][0]
	}
	return b
}

// read fills the buffers with what waits.
func (b *buffers) read(fd uintptr) (int, syscall.Errno) {
	for i := range b.hdrs {
		h := &b.hdrs[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlSpace)
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.hdrs[0])), groupsAtOnce, unix.MSG_DONTWAIT, 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// receiver reads packets. One goroutine may use it.
type receiver struct {
	raw   syscall.RawConn
	buf   *buffers // while something is in it
	n     int      // groups in it
	at    int      // the group that is next
	given int      // packets since others had a turn

	data []byte       // what is left of the group before that
	size int          // of its packets but the last
	oob  []byte       // its control messages
	from *net.UDPAddr // it is never changed, so that packets share it
	name unix.RawSockaddrInet6
}

// read waits for packets and gives as many as there are and have room.
func (r *receiver) read(ms []ipv4.Message) (int, error) {
	if len(ms) == 0 {
		return 0, nil
	}
	for n := 0; ; {
		for n < len(ms) && r.more() {
			r.packet(&ms[n])
			n++
		}
		if n > 0 {
			r.yield(n)
			return n, nil
		}
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
}

// yield lets those run that the packets before are for. quic-go and its HTTP/3 keep a
// few dozen of them for each connection and stream, and drop what is more without a
// word; the kernel keeps megabytes.
func (r *receiver) yield(n int) {
	if r.given += n; r.given >= yieldAfter {
		r.given = 0
		runtime.Gosched()
	}
}

// fill waits for groups.
func (r *receiver) fill() error {
	var errno syscall.Errno
	err := r.raw.Read(func(fd uintptr) bool {
		b := pool.Get().(*buffers)
		var n int
		if n, errno = b.read(fd); errno != 0 {
			pool.Put(b)
			return errno != unix.EAGAIN
		}
		r.buf, r.n, r.at = b, n, 0
		return true
	})
	if err == nil && errno != 0 {
		err = os.NewSyscallError("recvmmsg", errno)
	}
	return err
}

// more reports whether a packet is there, and gives the buffers back if none is.
func (r *receiver) more() bool {
	for len(r.data) == 0 {
		if r.buf == nil {
			return false
		}
		if r.at == r.n {
			pool.Put(r.buf)
			r.buf, r.oob = nil, nil
			return false
		}
		r.group()
	}
	return true
}

// group goes on to the next group. Empty packets, which are nothing to QUIC, are
// passed over.
func (r *receiver) group() {
	m := &r.buf.hdrs[r.at]
	r.data = r.buf.data[r.at][:m.n]
	r.oob = r.buf.control[r.at][:m.hdr.Controllen]
	r.size = len(r.data)
	if size := groupSize(r.oob); size > 0 && size < len(r.data) {
		r.size = size
	}
	if name := r.buf.names[r.at]; r.from == nil || name != r.name {
		r.name, r.from = name, address(&name)
	}
	r.at++
}

// packet takes the next packet. One that is too large for m is cut, as the kernel
// does.
func (r *receiver) packet(m *ipv4.Message) {
	p := r.data[:min(r.size, len(r.data))]
	r.data = r.data[len(p):]
	m.N, m.NN = copy(m.Buffers[0], p), copy(m.OOB, r.oob)
	m.Addr, m.Flags = r.from, 0
}

// groupSize reads from control messages how large the packets of a group are; 0 if
// they do not say, and it is one packet.
func groupSize(oob []byte) int {
	for len(oob) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		// An int, of which a 16-bit number is all that the kernel fills in.
		if h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(data) >= 4 {
			return int(binary.NativeEndian.Uint32(data) & 0xffff)
		}
		oob = rest
	}
	return 0
}

// address reads where a packet came from.
func address(name *unix.RawSockaddrInet6) *net.UDPAddr {
	if name.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return &net.UDPAddr{IP: net.IPv4(v4.Addr[0], v4.Addr[1], v4.Addr[2], v4.Addr[3]), Port: hostOrder(v4.Port)}
	}
	a := &net.UDPAddr{IP: net.IP(append([]byte(nil), name.Addr[:]...)), Port: hostOrder(name.Port)}
	if a.IP.IsLinkLocalUnicast() && name.Scope_id != 0 {
		if i, err := net.InterfaceByIndex(int(name.Scope_id)); err == nil {
			a.Zone = i.Name
		}
	}
	return a
}

// hostOrder is a port that was read as a number of this machine's byte order.
func hostOrder(port uint16) int {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return int(binary.BigEndian.Uint16(b[:]))
}
