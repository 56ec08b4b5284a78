package sniff

import "encoding/binary"

// QUIC counts the UDP datagrams of ports that should carry nothing else.
type QUIC struct {
	// Handshake are datagrams that begin with a long header, of a version that can
	// be told (RFC 9000, section 17.2; RFC 9369).
	Handshake int `json:"handshakeDatagrams"`
	// Protected are datagrams that begin with a short header (section 17.3): all of
	// theirs but a connection id is encrypted.
	Protected int `json:"protectedDatagrams"`
	// Foreign are bytes of datagrams that are no QUIC.
	Foreign int `json:"bytesThatAreNotQUIC"`
}

const (
	quicLongHeader = 0x80
	quicFixedBit   = 0x40
	quicVersion1   = 1
	quicVersion2   = 0x6b3343cf
)

// add counts a datagram.
func (q *QUIC) add(b []byte) {
	switch {
	case b[0]&quicFixedBit == 0:
		q.Foreign += len(b)
	case b[0]&quicLongHeader == 0:
		q.Protected++
	case len(b) >= 5 && known(binary.BigEndian.Uint32(b[1:])):
		q.Handshake++
	default:
		q.Foreign += len(b)
	}
}

func known(version uint32) bool { return version == quicVersion1 || version == quicVersion2 }
