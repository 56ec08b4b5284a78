package segment

import (
	"net"
	"sync"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// Conn is a UDP socket for a quic.Transport, which finds WriteMsgUDP and ReadBatch.
// Any number of goroutines may write, one reads.
type Conn struct {
	*net.UDPConn
	send    sender
	receive receiver
	once    sync.Once
	err     error // of closing
}

// New makes a Conn of c, which it owns: nobody else may read from c.
func New(c *net.UDPConn) (*Conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &Conn{UDPConn: c, send: sender{c: c}, receive: receiver{raw: raw}}
	s.send.room.L = &s.send.mu
	// A kernel that has no groups to give (before 5.0) gives packets.
	if err := raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1) }); err != nil {
		return nil, err
	}
	return s, nil
}

// WriteMsgUDP is that of net.UDPConn, except that what is wrong with a packet may
// be told by the next call for the same address.
func (s *Conn) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	rest, size := without(oob)
	if size == 0 {
		size = len(b)
	}
	if err := s.send.write(b, rest, size, addr.AddrPort()); err != nil {
		return 0, 0, err
	}
	return len(b), len(oob), nil
}

// ReadBatch is that of ipv4.PacketConn: it waits for a packet, and gives as many as
// there are, one for each message.
func (s *Conn) ReadBatch(ms []ipv4.Message, _ int) (int, error) { return s.receive.read(ms) }

// Close closes the socket when what was written has left.
func (s *Conn) Close() error {
	s.once.Do(func() {
		s.send.close()
		s.err = s.UDPConn.Close()
	})
	return s.err
}
