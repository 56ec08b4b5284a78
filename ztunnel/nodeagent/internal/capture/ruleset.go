package capture

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The ports of a captured pod.
const (
	OutboundPort = 15001
	InboundPort  = 15006
	TunnelPort   = 15008
	DNSPort      = 15053
)

// Marks. The other bits of a mark belong to others and are kept.
const (
	// ProxyMark is on every packet that ztunnel's sockets send.
	ProxyMark = 0x539
	// PlainMark is on datagrams that ztunnel hands to the pod as they came: what
	// the pod answers goes to their sender straight away.
	PlainMark = 0x53a
	// deliveryMark is on connections that ztunnel opens over loopback, and on
	// the replies to them.
	deliveryMark = 0x111
	markMask     = 0xfff
)

const tableName = "ambit"

// Where the kubelet's probes come from. They must reach a pod that has no
// identity to offer to them.
var (
	probeV4 = netip.MustParseAddr("169.254.7.127")
	probeV6 = netip.MustParseAddr("fd16:9254:7127:1337:ffff:ffff:ffff:ffff")
)

// phase is which rules a namespace should have.
type phase int

const (
	phaseCaptured phase = iota
	phaseDraining       // the same without the redirects
)

// Options are in what the capture of one pod differs from that of another.
type Options struct {
	// DNSLeftAlone does not redirect the pod's queries to its proxy.
	DNSLeftAlone bool
}

// target is what a namespace should have: the options mean nothing while draining.
type target struct {
	phase   phase
	options Options
}

// targets are all there are.
func targets() []target {
	out := []target{{phase: phaseDraining}}
	for _, left := range []bool{false, true} {
		out = append(out, target{phaseCaptured, Options{left}})
	}
	return out
}

// One before the usual priority: a redirect of the pod's own decides about what
// ztunnel sends, not about what ztunnel is to be sent.
const natPriority = nftables.ChainPriority(-101)

// chain is a chain and its rules.
type chain struct {
	nftables.Chain
	rules [][]expr.Any
}

// Names of the chains that only datagrams go through.
const (
	inboundUDP  = "inbound-udp"
	outboundUDP = "outbound-udp"
)

// ruleset is what the table holds in a phase, each chain before those that go to it.
// Every packet of every connection passes the two chains of priority mangle, so
// that there is one for each hook, and what datagrams alone need lies elsewhere.
func ruleset(t target) []chain {
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	priority := natPriority
	prerouting := chain{
		Chain: nftables.Chain{
			Name: "mark-delivery", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle,
		},
		rules: [][]expr.Any{
			slices.Concat(markIs(expr.CmpOpEq), setConnMark()),
		},
	}
	output := chain{
		// Of type route, so that the packet is routed by its new mark: replies to
		// ztunnel's socket, datagrams to loopback, where inbound-udp finds them.
		Chain: nftables.Chain{
			Name: "mark-replies", Table: table, Type: nftables.ChainTypeRoute,
			Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityMangle,
		},
		rules: [][]expr.Any{
			slices.Concat(isReply(), connMarkIsDelivery(), setMark()),
		},
	}
	inbound := chain{
		Chain: nftables.Chain{
			Name: "inbound", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPrerouting, Priority: &priority,
		},
	}
	outbound := chain{
		Chain: nftables.Chain{
			Name: "outbound", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookOutput, Priority: &priority,
		},
	}
	if t.phase != phaseCaptured {
		return []chain{prerouting, output, inbound, outbound}
	}
	prerouting.rules = append(prerouting.rules, slices.Concat(isUDP(), goTo(inboundUDP)))
	output.rules = append(output.rules, slices.Concat(isUDP(), goTo(outboundUDP)))
	inbound.rules, outbound.rules = inboundRules(), outboundRules(t.options)
	return []chain{
		{Chain: nftables.Chain{Name: inboundUDP, Table: table}, rules: inboundUDPRules()},
		{Chain: nftables.Chain{Name: outboundUDP, Table: table}, rules: outboundUDPRules(t.options)},
		prerouting, output, inbound, outbound,
	}
}

func inboundRules() [][]expr.Any {
	return [][]expr.Any{
		slices.Concat(addressIs(probeV4, saddr, 32), accept()),
		slices.Concat(addressIs(probeV6, saddr, 128), accept()),
		slices.Concat(isSYN(), portIsNot(TunnelPort), markIs(expr.CmpOpNeq), redirect(InboundPort)),
	}
}

// leftAlone are the rules for what is never redirected on the way out.
func leftAlone() [][]expr.Any {
	return [][]expr.Any{
		slices.Concat(markIs(expr.CmpOpEq), accept()),
		// To one's own addresses: a pod that calls itself.
		slices.Concat(outputIsLoopback(), accept()),
		slices.Concat(addressIs(netip.MustParseAddr("127.0.0.0"), daddr, 8), accept()),
		slices.Concat(addressIs(netip.IPv6Loopback(), daddr, 128), accept()),
	}
}

func outboundRules(o Options) [][]expr.Any {
	rules := leftAlone()
	if !o.DNSLeftAlone {
		rules = append(rules,
			slices.Concat(protocolIs(unix.IPPROTO_UDP), portIs(expr.CmpOpEq, resolverPort), redirect(DNSPort)),
			slices.Concat(isSYN(), portIs(expr.CmpOpEq, resolverPort), redirect(DNSPort)),
		)
	}
	return append(rules, slices.Concat(isSYN(), redirect(OutboundPort)))
}

// resolverPort is that of DNS.
const resolverPort = 53

func protocolIs(p byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{p}},
	}
}

// reg is the one register that the rules use.
const reg = 1

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

func goTo(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}

func redirect(port uint16) []expr.Any {
	const rangeProtoSpecified = 2 // NF_NAT_RANGE_PROTO_SPECIFIED
	return []expr.Any{
		&expr.Immediate{Register: reg, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Redir{RegisterProtoMin: reg, Flags: rangeProtoSpecified},
	}
}

// isSYN matches the first packet of a TCP connection: SYN, and none of ACK, RST
// and FIN.
func isSYN() []expr.Any {
	const flagsOffset, fin, syn, rst, ack = 13, 0x01, 0x02, 0x04, 0x10
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: flagsOffset, Len: 1},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{fin | syn | rst | ack}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{syn}},
	}
}

// portIsNot compares the destination port of TCP or UDP.
func portIsNot(port uint16) []expr.Any { return portIs(expr.CmpOpNeq, port) }

func portIs(op expr.CmpOp, port uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: op, Register: reg, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}

func outputIsLoopback() []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, "lo")
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: name},
	}
}

type direction int

const (
	saddr direction = iota
	daddr
)

// addressIs matches the first bits of an address of the IP header.
func addressIs(addr netip.Addr, which direction, bits int) []expr.Any {
	// Offsets of RFC 791 and RFC 8200.
	family, length, offset := byte(unix.NFPROTO_IPV4), 4, 12
	if addr.Is6() {
		family, length, offset = unix.NFPROTO_IPV6, 16, 8
	}
	if which == daddr {
		offset += length
	}
	match := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{family}},
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: uint32(offset), Len: uint32(length)},
	}
	if bits < length*8 {
		mask := make([]byte, length)
		for i := range bits {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		match = append(match, &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(length), Mask: mask, Xor: make([]byte, length)})
	}
	return append(match, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: addr.AsSlice()})
}

func u32(v uint32) []byte { return binaryutil.NativeEndian.PutUint32(v) }

// masked keeps the bits of keep and sets those of set.
func masked(keep, set uint32) expr.Any {
	return &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: u32(keep), Xor: u32(set)}
}

// markIs compares the packet's mark with ztunnel's.
func markIs(op expr.CmpOp) []expr.Any { return markCmp(op, ProxyMark) }

func markCmp(op expr.CmpOp, mark uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg},
		masked(markMask, 0),
		&expr.Cmp{Op: op, Register: reg, Data: u32(mark)},
	}
}

func setMark() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg},
		masked(^uint32(markMask), deliveryMark),
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg},
	}
}

func setConnMark() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: reg},
		masked(^uint32(markMask), deliveryMark),
		&expr.Ct{Key: expr.CtKeyMARK, SourceRegister: true, Register: reg},
	}
}

func connMarkIsDelivery() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: reg},
		masked(markMask, 0),
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: u32(deliveryMark)},
	}
}

func isReply() []expr.Any { return ctDirection(1) } // IP_CT_DIR_REPLY

func ctDirection(d byte) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{d}},
	}
}
