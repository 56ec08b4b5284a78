package segment

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxWaiting is how many bytes of packets wait while others are written, and
	// maxSegments how many packets the kernel takes together (UDP_MAX_SEGMENTS).
	maxWaiting, maxSegments = 60000, 64
	// closely is how soon after another a packet is taken for one of many.
	closely = 50 * time.Microsecond
	// closeWithin is for how long Close waits for what is still being written.
	closeWithin = time.Second
)

// group are packets that leave by one system call: all of one size but the last,
// which may be smaller.
type group struct {
	to   netip.AddrPort
	oob  []byte // control messages but UDP_SEGMENT
	size int
	n    int // packets
	end  int // where they end among what waits
	full bool
}

// waiting is what is to be written.
type waiting struct {
	buf    []byte
	groups []group
}

// sender writes packets. Its zero value with a socket is ready.
type sender struct {
	c *net.UDPConn

	mu      sync.Mutex
	room    sync.Cond      // of mu: something has left
	busy    bool           // flush runs; guarded by mu
	next    waiting        // guarded by mu
	spare   waiting        // for reuse; guarded by mu
	last    time.Time      // of the last write; guarded by mu
	failed  netip.AddrPort // to whom a write has failed; guarded by mu
	failure error          // why; guarded by mu
}

// write sends packets to an address, all of size bytes but the last.
func (s *sender) write(b, oob []byte, size int, to netip.AddrPort) error {
	s.mu.Lock()
	now := time.Now()
	soon := now.Sub(s.last) < closely
	s.last = now
	if s.failure != nil && s.failed == to {
		err := s.failure
		s.failure = nil
		s.mu.Unlock()
		return err
	}
	if !s.busy && (len(b) > size || !soon) {
		s.mu.Unlock()
		return s.send(b, oob, size, to)
	}
	for s.busy && len(s.next.buf)+len(b) > maxWaiting {
		s.room.Wait()
	}
	s.next.add(b, oob, size, to)
	start := !s.busy
	s.busy = true
	s.mu.Unlock()
	if start {
		go s.flush()
	}
	return nil
}

// add puts a packet behind what waits, or what is a group already.
func (w *waiting) add(b, oob []byte, size int, to netip.AddrPort) {
	w.buf = append(w.buf, b...)
	if n := len(w.groups); n > 0 && len(b) <= size {
		g := &w.groups[n-1]
		if !g.full && g.to == to && len(b) <= g.size && g.n < maxSegments && string(g.oob) == string(oob) {
			g.n, g.end, g.full = g.n+1, len(w.buf), len(b) < g.size
			return
		}
	}
	g := group{to: to, size: min(size, len(b)), n: 1, end: len(w.buf), full: len(b) > size}
	// The control messages of a group that was there before have room.
	if n := len(w.groups); n < cap(w.groups) {
		g.oob = w.groups[:n+1][n].oob[:0]
	}
	g.oob = append(g.oob, oob...)
	w.groups = append(w.groups, g)
}

// flush writes until nothing waits.
func (s *sender) flush() {
	s.mu.Lock()
	for len(s.next.groups) > 0 {
		now := s.next
		s.next, s.spare = s.spare, waiting{}
		s.mu.Unlock()
		from := 0
		for i := range now.groups {
			g := &now.groups[i]
			if err := s.send(now.buf[from:g.end], g.oob, g.size, g.to); err != nil {
				s.mu.Lock()
				s.failed, s.failure = g.to, err
				s.mu.Unlock()
			}
			from = g.end
		}
		s.mu.Lock()
		s.spare = waiting{now.buf[:0], now.groups[:0]}
		s.room.Broadcast()
	}
	s.busy = false
	s.room.Broadcast()
	s.mu.Unlock()
}

// send writes a group, packet by packet if it has to be so.
func (s *sender) send(b, oob []byte, size int, to netip.AddrPort) error {
	if len(b) <= size {
		_, _, err := s.c.WriteMsgUDPAddrPort(b, oob, to)
		return err
	}
	_, _, err := s.c.WriteMsgUDPAddrPort(b, segmentSize(oob, size), to)
	if err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	// As where checksums are not the device's to make (EIO), or one is too large.
	err = nil
	for p := range slices.Chunk(b, size) {
		if _, _, werr := s.c.WriteMsgUDPAddrPort(p, oob, to); err == nil {
			err = werr
		}
	}
	return err
}

// close waits for what is being written.
func (s *sender) close() {
	_ = s.c.SetWriteDeadline(time.Now().Add(closeWithin))
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.busy {
		s.room.Wait()
	}
}

// segmentSize gives control messages with the one that says how large packets are.
func segmentSize(oob []byte, size int) []byte {
	out := make([]byte, len(oob)+unix.CmsgSpace(2))
	n := copy(out, oob)
	h := (*unix.Cmsghdr)(unsafe.Pointer(&out[n]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(out[n+unix.CmsgLen(0):], uint16(size))
	return out
}

// without gives control messages without the one that says how large packets are, and
// what it says; 0 if there is none.
func without(oob []byte) (rest []byte, size int) {
	for at := oob; len(at) >= unix.SizeofCmsghdr; {
		h, data, after, err := unix.ParseOneSocketControlMessage(at)
		if err != nil {
			break
		}
		if h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_SEGMENT && len(data) >= 2 {
			before := oob[:len(oob)-len(at)]
			return slices.Concat(before, after), int(binary.NativeEndian.Uint16(data))
		}
		at = after
	}
	return oob, 0
}
