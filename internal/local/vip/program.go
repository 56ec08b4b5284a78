package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// TableName is the nftables table that Programmer owns.
const TableName = "ambit-local-services"

// Programmer keeps the table of one network namespace.
type Programmer struct {
	ns      *os.File
	current Table
	done    bool
}

// NewProgrammer programs the given network namespace.
func NewProgrammer(ns *os.File) *Programmer { return &Programmer{ns: ns} }

// Program replaces the table, if it differs from the one in place.
func (p *Programmer) Program(t Table) error {
	t = t.normalize()
	if p.done && equal(p.current, t) {
		return nil
	}
	conn, err := nftables.New(nftables.WithNetNSFd(int(p.ns.Fd())), nftables.WithSockOptions(roomForAll))
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	w := writer{conn: conn, table: &nftables.Table{Family: nftables.TableFamilyINet, Name: TableName}}
	if err := w.write(t); err != nil {
		return fmt.Errorf("virtual service addresses: %w", err)
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("virtual service addresses: nftables: %w; the kernel needs nf_tables with nat, numgen, masq and reject_inet", err)
	}
	lost := t.lostUDP(p.current)
	p.current, p.done = t, true
	return forget(p.ns, lost)
}

// transactionRoom is for a transaction's messages and for the kernel's answers, one
// of nearly 1 KB for each message, all of them before the first can be read.
const transactionRoom = 16 << 20

// roomForAll asks for it. Who may not go beyond the system's limits, which is who
// is not root, gets what they allow.
func roomForAll(c *netlink.Conn) error {
	return errors.Join(c.SetWriteBuffer(transactionRoom), c.SetReadBuffer(transactionRoom))
}

// family holds what differs between IPv4 and IPv6.
type family struct {
	suffix   string
	ipv6     bool
	proto    byte
	addr     nftables.SetDatatype
	src, dst uint32 // offsets in the header
	size     uint32
	port     uint32 // register that follows an address in a concatenation
}

func families() []*family {
	v4 := &family{suffix: "4", proto: unix.NFPROTO_IPV4, addr: nftables.TypeIPAddr, src: 12, dst: 16, size: 4, port: unix.NFT_REG32_01}
	v6 := &family{suffix: "6", ipv6: true, proto: unix.NFPROTO_IPV6, addr: nftables.TypeIP6Addr, src: 8, dst: 24, size: 16, port: unix.NFT_REG32_04}
	return []*family{v4, v6}
}

// writer collects one transaction.
type writer struct {
	conn  *nftables.Conn
	table *nftables.Table
}

func (w *writer) write(t Table) error {
	// Deleting fails where there is nothing; adding first makes sure there is.
	w.conn.AddTable(w.table)
	w.conn.DelTable(w.table)
	w.conn.AddTable(w.table)
	dispatch := w.conn.AddChain(&nftables.Chain{Name: "services", Table: w.table})
	refuse := w.conn.AddChain(&nftables.Chain{Name: "refuse", Table: w.table})
	w.reject(refuse)
	for _, f := range families() {
		if err := w.family(f, t, dispatch); err != nil {
			return err
		}
	}
	w.base(dispatch)
	return nil
}

func (w *writer) base(dispatch *nftables.Chain) {
	for _, b := range []struct {
		name string
		hook *nftables.ChainHook
	}{{"prerouting", nftables.ChainHookPrerouting}, {"output", nftables.ChainHookOutput}} {
		c := w.conn.AddChain(&nftables.Chain{
			Name: b.name, Table: w.table, Type: nftables.ChainTypeNAT,
			Hooknum: b.hook, Priority: nftables.ChainPriorityNATDest,
		})
		w.rule(c, &expr.Verdict{Kind: expr.VerdictJump, Chain: dispatch.Name})
	}
}

func (w *writer) rule(c *nftables.Chain, exprs ...expr.Any) {
	w.conn.AddRule(&nftables.Rule{Table: w.table, Chain: c, Exprs: exprs})
}

// reject answers as a host without that port does.
func (w *writer) reject(c *nftables.Chain) {
	w.rule(c,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
	w.rule(c, &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH})
}

func (w *writer) family(f *family, t Table, dispatch *nftables.Chain) error {
	if err := w.services(f, t, dispatch); err != nil {
		return err
	}
	return w.hairpin(f, t)
}

// services writes the chains of service ports and the rules that lead there.
func (w *writer) services(f *family, t Table, dispatch *nftables.Chain) error {
	var elements []nftables.SetElement
	for i, front := range t.Frontends {
		if front.Address.Addr().Is6() != f.ipv6 {
			continue
		}
		target := "refuse"
		if len(front.Backends) > 0 {
			target = fmt.Sprintf("service%s-%d", f.suffix, i)
			c := w.conn.AddChain(&nftables.Chain{Name: target, Table: w.table})
			if err := w.balance(f, c, front); err != nil {
				return err
			}
		}
		elements = append(elements, nftables.SetElement{
			Key:         key([]byte{byte(front.Protocol)}, front.Address.Addr().AsSlice(), binaryutil.BigEndian.PutUint16(front.Address.Port())),
			VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: target},
		})
	}
	set := &nftables.Set{
		Table: w.table, Name: "services" + f.suffix, IsMap: true, Concatenation: true,
		KeyType:  nftables.MustConcatSetType(nftables.TypeInetProto, f.addr, nftables.TypeInetService),
		DataType: nftables.TypeVerdict,
	}
	if err := w.set(set, elements); err != nil {
		return err
	}
	first := uint32(unix.NFT_REG32_00)
	w.rule(dispatch, append(f.is(),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: first},
		&expr.Payload{DestRegister: first + 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.dst, Len: f.size},
		&expr.Payload{DestRegister: first + 1 + f.size/4, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: first, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: set.Name, SetID: set.ID})...)
	w.refuseOthers(f, t, dispatch)
	return nil
}

// refuseOthers answers for virtual addresses that nobody has, and for ports
// that no service has.
func (w *writer) refuseOthers(f *family, t Table, dispatch *nftables.Chain) {
	for _, a := range t.Exempt {
		if a.Is6() == f.ipv6 {
			w.rule(dispatch, append(f.to(netip.PrefixFrom(a, a.BitLen())), &expr.Verdict{Kind: expr.VerdictReturn})...)
		}
	}
	for _, p := range t.Virtual {
		if p.Addr().Is6() == f.ipv6 {
			w.rule(dispatch, append(f.to(p), &expr.Verdict{Kind: expr.VerdictGoto, Chain: "refuse"})...)
		}
	}
}

// balance picks a backend and rewrites the destination.
func (w *writer) balance(f *family, c *nftables.Chain, front Frontend) error {
	elements := make([]nftables.SetElement, len(front.Backends))
	for i, b := range front.Backends {
		elements[i] = nftables.SetElement{
			Key: binaryutil.NativeEndian.PutUint32(uint32(i)),
			Val: key(b.Addr().AsSlice(), binaryutil.BigEndian.PutUint16(b.Port())),
		}
	}
	backends := &nftables.Set{
		Table: w.table, Anonymous: true, Constant: true, IsMap: true,
		KeyType:  nftables.TypeInteger,
		DataType: nftables.MustConcatSetType(f.addr, nftables.TypeInetService),
	}
	if err := w.set(backends, elements); err != nil {
		return err
	}
	n := uint32(len(front.Backends))
	var pick []expr.Any
	if front.Sticky {
		pick = []expr.Any{
			&expr.Payload{DestRegister: 2, Base: expr.PayloadBaseNetworkHeader, Offset: f.src, Len: f.size},
			&expr.Hash{SourceRegister: 2, DestRegister: 1, Length: f.size, Modulus: n, Seed: 1, Type: expr.HashTypeJenkins},
		}
	} else {
		pick = []expr.Any{&expr.Numgen{Register: 1, Modulus: n, Type: unix.NFT_NG_RANDOM}}
	}
	w.rule(c, append(append(f.is(), pick...),
		&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: backends.Name, SetID: backends.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.proto), RegAddrMin: 1, RegProtoMin: f.port, Specified: true})...)
	return nil
}

// hairpin gives a connection of a pod to itself another source address: the pod
// would take its own for forged.
func (w *writer) hairpin(f *family, t Table) error {
	var elements []nftables.SetElement
	for _, a := range t.Local {
		if a.Is6() == f.ipv6 {
			elements = append(elements, nftables.SetElement{Key: key(a.AsSlice(), a.AsSlice())})
		}
	}
	set := &nftables.Set{
		Table: w.table, Name: "hairpin" + f.suffix, Concatenation: true,
		KeyType: nftables.MustConcatSetType(f.addr, f.addr),
	}
	if err := w.set(set, elements); err != nil {
		return err
	}
	c := w.conn.AddChain(&nftables.Chain{
		Name: "postrouting" + f.suffix, Table: w.table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	first := uint32(unix.NFT_REG32_00)
	w.rule(c, append(f.is(),
		&expr.Payload{DestRegister: first, Base: expr.PayloadBaseNetworkHeader, Offset: f.src, Len: f.size},
		&expr.Payload{DestRegister: first + f.size/4, Base: expr.PayloadBaseNetworkHeader, Offset: f.dst, Len: f.size},
		&expr.Lookup{SourceRegister: first, SetName: set.Name, SetID: set.ID},
		&expr.Masq{})...)
	return nil
}

// chunk bounds the elements of one netlink message, whose attributes hold 64 KB.
const chunk = 700

func (w *writer) set(s *nftables.Set, elements []nftables.SetElement) error {
	n := min(len(elements), chunk)
	if err := w.conn.AddSet(s, elements[:n]); err != nil {
		return err
	}
	for rest := elements[n:]; len(rest) > 0; rest = rest[n:] {
		n = min(len(rest), chunk)
		if err := w.conn.SetAddElements(s, rest[:n]); err != nil {
			return err
		}
	}
	return nil
}

// is matches the family.
func (f *family) is() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f.proto}},
	}
}

// to matches destinations in a block.
func (f *family) to(p netip.Prefix) []expr.Any {
	mask := make([]byte, f.size)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return append(f.is(),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.dst, Len: f.size},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: f.size, Mask: mask, Xor: make([]byte, f.size)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()})
}

// key concatenates, each part filled up to whole registers.
func key(parts ...[]byte) []byte {
	var k []byte
	for _, p := range parts {
		k = append(k, p...)
		for len(k)%4 != 0 {
			k = append(k, 0)
		}
	}
	return k
}
