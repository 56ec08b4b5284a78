package relay

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/relay/end"
	"github.com/ambit-mesh/ambit/internal/segment"
)

// MaxFormer is how many former processes of a port are served at a time. More that
// still drain lose their connections, those of the oldest first.
const MaxFormer = 8

// maxQueue is how many relayed datagrams wait to be read; more are lost.
const maxQueue = 1024

// Socket is a UDP socket for a server of quic-go. Received are the datagrams of its
// own connections, whichever process the kernel gives them to, and those that begin
// new ones while it is the newest at its port.
type Socket struct {
	*segment.Conn
	me    end.Hello
	stays *os.File // from where a successor's datagrams come
	given *os.File // for successors

	mu     sync.Mutex // guards changes of former
	former atomic.Pointer[[]former]

	superseded atomic.Bool
	takeOver   sync.Once
	queue      chan *packet
	free       sync.Pool // of *packet
	closed     chan struct{}
	closeOnce  sync.Once
	closeErr   error
	readers    sync.WaitGroup

	deadlineMu sync.Mutex
	passed     chan struct{} // closed while a deadline has passed; guarded by deadlineMu
}

// packet is a message of a relay.
type packet struct {
	n int
	b [maxPacket]byte
}

// former is a process that had the port before.
type former struct {
	tag uint32
	end *os.File
}

// Open makes a Socket of c, which it owns, the newest at its address: opened after
// those of other processes. The descriptors are what FDs of the latest of those has
// given; Open owns them whatever it returns.
func Open(c *net.UDPConn, fds ...int) (*Socket, error) {
	groups, err := segment.New(c)
	if err != nil {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		return nil, errors.Join(err, c.Close())
	}
	s := &Socket{Conn: groups, queue: make(chan *packet, maxQueue), closed: make(chan struct{}), passed: make(chan struct{})}
	s.free.New = func() any { return new(packet) }
	all, key := adopt(fds)
	s.former.Store(&all)
	fail := func(err error) (*Socket, error) {
		for _, f := range all {
			_ = f.end.Close()
		}
		return nil, errors.Join(err, c.Close())
	}
	var tag [tagLen]byte
	_, _ = rand.Read(tag[:]) // never fails
	s.me.Tag = binary.BigEndian.Uint32(tag[:])
	if s.me.Key = key; key == [len(key)]byte{} {
		_, _ = rand.Read(s.me.Key[:])
	}
	if s.stays, s.given, err = end.Pair(s.me); err != nil {
		return fail(err)
	}
	s.readers.Go(s.receive)
	return s, nil
}

// adopt sorts what a predecessor has given, the oldest first, and gives the key.
func adopt(fds []int) (all []former, key [32]byte) {
	for _, fd := range fds {
		h, err := end.Look(fd)
		if err != nil {
			_ = unix.Close(fd)
			continue
		}
		_ = unix.SetNonblock(fd, true)
		all = append(all, former{h.Tag, os.NewFile(uintptr(fd), "relay")})
		key = h.Key
	}
	for len(all) > MaxFormer {
		_ = all[0].end.Close()
		all = all[1:]
	}
	return all, key
}

// FDs gives the descriptors that a successor needs, which the caller closes: those of
// former processes that still live, the oldest first, and its own.
func (s *Socket) FDs() (fds []int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ends := []*os.File{s.given}
	if all := *s.former.Load(); len(all) > 0 {
		ends = ends[:0]
		for _, f := range all {
			ends = append(ends, f.end)
		}
		ends = append(ends, s.given)
	}
	for _, e := range ends {
		fd, err := end.Dup(e)
		if err != nil {
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
			return nil, fmt.Errorf("hand over a relay: %w", err)
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// ConnectionIDs generates the ids of connections, for quic.Transport.
func (s *Socket) ConnectionIDs() quic.ConnectionIDGenerator { return ids(s.me.Tag) }

// ResetKey is that of all processes of the port, for quic.Transport.
func (s *Socket) ResetKey() *quic.StatelessResetKey { return (*quic.StatelessResetKey)(&s.me.Key) }

// ids generates connection ids with a tag.
type ids uint32

// GenerateConnectionID implements quic.ConnectionIDGenerator.
func (t ids) GenerateConnectionID() (quic.ConnectionID, error) {
	var b [idLen]byte
	binary.BigEndian.PutUint32(b[:], uint32(t))
	_, _ = rand.Read(b[tagLen:])
	return quic.ConnectionIDFromBytes(b[:]), nil
}

// ConnectionIDLen implements quic.ConnectionIDGenerator.
func (ids) ConnectionIDLen() int { return idLen }

// ReadBatch is that of ipv4.PacketConn, by which quic-go reads.
func (s *Socket) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	for !s.superseded.Load() {
		n, err := s.Conn.ReadBatch(ms, flags)
		if err != nil {
			if s.superseded.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
				break // woken by supersede
			}
			return n, err
		}
		if n = s.sort(ms[:n]); n > 0 {
			return n, nil
		}
	}
	return s.next(ms)
}

// sort hands on what is of former processes, and gives how many are left, which it
// moves to the front: what belongs to an element of ms, its buffers, stays where it is.
func (s *Socket) sort(ms []ipv4.Message) int {
	all := *s.former.Load()
	if len(all) == 0 {
		return len(ms)
	}
	n := 0
	for i := range ms {
		m := &ms[i]
		if tag, ok := tagOf(m.Buffers[0][:m.N]); ok && s.handOn(all, tag, m) {
			continue
		}
		if to := &ms[n]; to != m {
			to.N, to.NN = copy(to.Buffers[0], m.Buffers[0][:m.N]), copy(to.OOB, m.OOB[:m.NN])
			to.Addr, to.Flags = m.Addr, m.Flags
		}
		n++
	}
	return n
}

// handOn hands a datagram to the former process with a tag, and reports whether there
// is one.
func (s *Socket) handOn(all []former, tag uint32, m *ipv4.Message) bool {
	i := slices.IndexFunc(all, func(f former) bool { return f.tag == tag })
	if i < 0 {
		return false
	}
	p := s.take()
	defer s.free.Put(p)
	b, err := appendPacket(p.b[:0], m)
	if err != nil {
		return true // of nobody's use
	}
	err = end.Send(all[i].end, b)
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, os.ErrClosed) {
		// It has ended. Who still sends to it is told so, as of any unknown connection.
		s.forget(tag)
		return false
	}
	return true
}

func (s *Socket) forget(tag uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(*s.former.Load())
	for i, f := range all {
		if f.tag == tag {
			_ = f.end.Close()
			all = slices.Delete(all, i, i+1)
			break
		}
	}
	s.former.Store(&all)
}

func (s *Socket) take() *packet { return s.free.Get().(*packet) }

// receive queues what a successor hands on.
func (s *Socket) receive() {
	for {
		p := s.take()
		var err error
		if p.n, err = s.stays.Read(p.b[:]); err != nil {
			return // closed
		}
		s.supersede()
		s.enqueue(p)
	}
}

// enqueue keeps a packet until it is read, or drops it.
func (s *Socket) enqueue(p *packet) {
	select {
	case s.queue <- p:
	default:
		s.free.Put(p)
	}
}

// supersede has all be read from the queue from now on.
func (s *Socket) supersede() {
	if s.superseded.CompareAndSwap(false, true) {
		_ = s.UDPConn.SetReadDeadline(longAgo) // wakes ReadBatch
	}
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// next gives what is queued. From the first call on what the kernel still gives to this
// socket is queued, too: what it had before the successor, and what comes when that has
// ended.
func (s *Socket) next(ms []ipv4.Message) (int, error) {
	s.takeOver.Do(func() {
		_ = s.UDPConn.SetReadDeadline(time.Time{})
		s.readers.Go(s.pump)
	})
	s.deadlineMu.Lock()
	passed := s.passed
	s.deadlineMu.Unlock()
	for {
		select {
		case p := <-s.queue:
			err := readPacket(p.b[:p.n], &ms[0])
			s.free.Put(p)
			if err == nil {
				return 1, nil
			}
		case <-passed:
			return 0, os.ErrDeadlineExceeded
		case <-s.closed:
			return 0, net.ErrClosed
		}
	}
}

// pump queues what the kernel gives to this socket.
func (s *Socket) pump() {
	const control = 256
	ms := []ipv4.Message{{Buffers: [][]byte{make([]byte, maxPacket-packetHeader-control)}, OOB: make([]byte, control)}}
	for {
		n, err := s.Conn.ReadBatch(ms, 0)
		select {
		case <-s.closed:
			return
		default:
		}
		if err != nil || s.sort(ms[:n]) == 0 {
			continue
		}
		p := s.take()
		if b, err := appendPacket(p.b[:0], &ms[0]); err == nil {
			p.n = len(b)
			s.enqueue(p)
		}
	}
}

// SetReadDeadline implements net.PacketConn.
func (s *Socket) SetReadDeadline(t time.Time) error {
	s.deadlineMu.Lock()
	defer s.deadlineMu.Unlock()
	select {
	case <-s.passed:
		s.passed = make(chan struct{})
	default:
	}
	// quic-go stops its reader in this way, and has no other use for it.
	if !t.IsZero() && !t.After(time.Now()) {
		close(s.passed)
	}
	if s.superseded.Load() {
		return nil
	}
	return s.UDPConn.SetReadDeadline(t)
}

// Close closes the socket and forgets former processes.
func (s *Socket) Close() error {
	s.closeOnce.Do(func() {
		close(s.closed)
		err := errors.Join(s.Conn.Close(), s.stays.Close(), s.given.Close())
		s.readers.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, f := range *s.former.Swap(&[]former{}) {
			err = errors.Join(err, f.end.Close())
		}
		s.closeErr = err
	})
	return s.closeErr
}
