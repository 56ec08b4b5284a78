package sniff

import (
	"encoding/binary"
	"net/netip"
)

// segment is a TCP segment, or a UDP datagram.
type segment struct {
	src, dst netip.AddrPort
	udp      bool
	seq      uint32 // of TCP, as the flags are
	syn, fin bool
	rst      bool
	payload  []byte
}

const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	protoTCP  = 6
	protoUDP  = 17
)

// parseFrame finds the TCP segment or UDP datagram of an Ethernet frame; false for
// anything else. The payload is a part of the frame.
func parseFrame(f []byte) (segment, bool) {
	if len(f) < 14 {
		return segment{}, false
	}
	switch binary.BigEndian.Uint16(f[12:]) {
	case etherIPv4:
		return parseIPv4(f[14:])
	case etherIPv6:
		return parseIPv6(f[14:])
	}
	return segment{}, false
}

func parseIPv4(p []byte) (segment, bool) {
	if len(p) < 20 || p[0]>>4 != 4 {
		return segment{}, false
	}
	header := int(p[0]&0xf) * 4
	total := int(binary.BigEndian.Uint16(p[2:]))
	if total == 0 {
		total = len(p) // a segment larger than the field, as offloading makes them
	}
	fragmented := binary.BigEndian.Uint16(p[6:])&0x3fff != 0
	if header < 20 || fragmented || total < header || total > len(p) {
		return segment{}, false
	}
	return parseTransport(p[9], p[header:total], netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])))
}

func parseIPv6(p []byte) (segment, bool) {
	if len(p) < 40 || p[0]>>4 != 6 {
		return segment{}, false
	}
	payload := int(binary.BigEndian.Uint16(p[4:]))
	if payload == 0 || payload > len(p)-40 {
		payload = len(p) - 40
	}
	next, rest := p[6], p[40:40+payload]
	// Large segments carry a hop-by-hop header with their length (RFC 2675).
	for next == 0 || next == 60 || next == 43 {
		if len(rest) < 8 || len(rest) < 8+int(rest[1])*8 {
			return segment{}, false
		}
		next, rest = rest[0], rest[8+int(rest[1])*8:]
	}
	return parseTransport(next, rest, netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40])))
}

func parseTransport(protocol byte, b []byte, src, dst netip.Addr) (segment, bool) {
	switch protocol {
	case protoTCP:
		return parseTCP(b, src, dst)
	case protoUDP:
		return parseUDP(b, src, dst)
	}
	return segment{}, false
}

// parseUDP takes what a link carries of a datagram, which is more than its length
// says where offloading has put several together.
func parseUDP(u []byte, src, dst netip.Addr) (segment, bool) {
	if len(u) < 8 {
		return segment{}, false
	}
	return segment{
		src:     netip.AddrPortFrom(src, binary.BigEndian.Uint16(u[0:])),
		dst:     netip.AddrPortFrom(dst, binary.BigEndian.Uint16(u[2:])),
		udp:     true,
		payload: u[8:],
	}, true
}

func parseTCP(t []byte, src, dst netip.Addr) (segment, bool) {
	if len(t) < 20 {
		return segment{}, false
	}
	header := int(t[12]>>4) * 4
	if header < 20 || header > len(t) {
		return segment{}, false
	}
	return segment{
		src: netip.AddrPortFrom(src, binary.BigEndian.Uint16(t[0:])),
		dst: netip.AddrPortFrom(dst, binary.BigEndian.Uint16(t[2:])),
		seq: binary.BigEndian.Uint32(t[4:]),
		fin: t[13]&0x01 != 0, syn: t[13]&0x02 != 0, rst: t[13]&0x04 != 0,
		payload: t[header:],
	}, true
}
