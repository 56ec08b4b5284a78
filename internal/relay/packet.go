package relay

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
)

const (
	// idLen is the length of the connection ids that are issued, in bytes, of which
	// tagLen are the tag. All versions have to agree on them.
	idLen, tagLen = 8, 4
	// packetHeader is what stands before a relayed datagram: address, port, and the
	// length of the control messages, which come next.
	packetHeader = 16 + 2 + 2
	// maxPacket is the largest message of a relay, in bytes: one datagram, of which
	// quic-go reads 1452 bytes at most, with its control messages.
	maxPacket = 2 << 10
)

// tagOf gives the tag in the destination connection id of a QUIC packet (RFC 9000,
// sections 17.2 and 17.3), and false if there is none: the client has chosen the id,
// or it is no QUIC.
func tagOf(b []byte) (tag uint32, ok bool) {
	const longHeader, idLenAt = 0x80, 5 // behind the first byte and the version
	switch {
	case len(b) == 0:
		return 0, false
	case b[0]&longHeader == 0:
		b = b[1:]
	case len(b) <= idLenAt || b[idLenAt] != idLen:
		return 0, false
	default:
		b = b[idLenAt+1:]
	}
	if len(b) < idLen {
		return 0, false
	}
	return binary.BigEndian.Uint32(b), true
}

// appendPacket appends a received datagram as it goes through a relay.
func appendPacket(to []byte, m *ipv4.Message) ([]byte, error) {
	from, ok := m.Addr.(*net.UDPAddr)
	if !ok {
		return nil, errors.New("a datagram without a UDP address")
	}
	if packetHeader+m.NN+m.N > maxPacket {
		return nil, errPacket
	}
	ap := from.AddrPort()
	addr := ap.Addr().As16()
	to = append(to, addr[:]...)
	to = binary.BigEndian.AppendUint16(to, ap.Port())
	to = binary.BigEndian.AppendUint16(to, uint16(m.NN))
	to = append(to, m.OOB[:m.NN]...)
	return append(to, m.Buffers[0][:m.N]...), nil
}

var errPacket = errors.New("malformed message of a relay")

// readPacket puts a relayed datagram where a received one would stand. What does not
// fit is cut, as the kernel does.
func readPacket(b []byte, m *ipv4.Message) error {
	if len(b) < packetHeader {
		return errPacket
	}
	addr := netip.AddrFrom16([16]byte(b[:16])).Unmap()
	port, oob := binary.BigEndian.Uint16(b[16:]), int(binary.BigEndian.Uint16(b[18:]))
	b = b[packetHeader:]
	if oob > len(b) || oob > len(m.OOB) {
		return errPacket
	}
	m.NN = copy(m.OOB, b[:oob])
	m.N = copy(m.Buffers[0], b[oob:])
	m.Addr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port))
	m.Flags = 0
	return nil
}
