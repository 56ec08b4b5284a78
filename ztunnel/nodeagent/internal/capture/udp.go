package capture

import (
	"net/netip"
	"slices"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Where datagrams never leave the link, or concern the host itself: broadcast and
// multicast, link-local IPv6 (its addresses mean something on one link only).
var localOnly = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("ff00::/8"), netip.MustParsePrefix("fe80::/10"),
}

// dhcpPorts are those of DHCP for both families: an address must be had before
// there is a mesh.
var dhcpPorts = []uint16{67, 68, 546, 547}

// outboundUDPRules mark what the pod's programs send. DNS queries are for
// outboundRules, unless the pod's are to be left alone by it.
func outboundUDPRules(o Options) [][]expr.Any {
	rules := [][]expr.Any{
		slices.Concat(markIs(expr.CmpOpEq), accept()),
		slices.Concat(markCmp(expr.CmpOpEq, PlainMark), accept()),
		slices.Concat(outputIsLoopback(), accept()),
		// Answers to what came in: those to ztunnel have got their mark already.
		slices.Concat(isReply(), accept()),
	}
	for _, p := range localOnly {
		rules = append(rules, slices.Concat(addressIs(p.Addr(), daddr, p.Bits()), accept()))
	}
	for _, p := range dhcpPorts {
		rules = append(rules, slices.Concat(isUDP(), udpPortIs(p), accept()))
	}
	if !o.DNSLeftAlone {
		rules = append(rules, slices.Concat(isUDP(), udpPortIs(resolverPort), accept()))
	}
	return append(rules, setMark())
}

// inboundUDPRules bring to ztunnel what outboundUDPRules have marked, and what
// comes from elsewhere.
func inboundUDPRules() [][]expr.Any {
	rules := [][]expr.Any{
		slices.Concat(inputIsLoopback(), markCmp(expr.CmpOpEq, deliveryMark), isUDP(), ctDirection(0), tproxy(OutboundPort), accept()),
		slices.Concat(inputIsLoopback(), accept()),
		slices.Concat(addressIs(probeV4, saddr, 32), accept()),
		slices.Concat(addressIs(probeV6, saddr, 128), accept()),
		slices.Concat(isReply(), accept()),
		slices.Concat(isUDP(), udpPortIs(TunnelPort), accept()),
	}
	for _, p := range localOnly {
		rules = append(rules, slices.Concat(addressIs(p.Addr(), daddr, p.Bits()), accept()))
	}
	rules = append(rules, slices.Concat(notForThisHost(), accept()))
	for _, p := range dhcpPorts {
		rules = append(rules, slices.Concat(isUDP(), udpPortIs(p), accept()))
	}
	return append(rules, slices.Concat(isUDP(), tproxy(InboundPort), accept()))
}

func isUDP() []expr.Any { return protocolIs(unix.IPPROTO_UDP) }

// udpPortIs compares the destination port.
func udpPortIs(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}

func inputIsLoopback() []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, "lo")
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: name},
	}
}

// notForThisHost matches what the link layer sent to several, or to somebody else.
func notForThisHost() []expr.Any {
	const toHost = 0 // PACKET_HOST
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPKTTYPE, Register: reg},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: []byte{toHost}},
	}
}

// tproxy hands the packet to the socket that is connected to its sender, or else
// to the one that listens on port. Neither changes the packet.
func tproxy(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: reg, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.TProxy{Family: unix.NFPROTO_UNSPEC, RegPort: reg},
	}
}
