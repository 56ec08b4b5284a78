package capture

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	nfnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/netns"
)

const hostTable = "ambit-node"

// One before the usual priority of source NAT: nobody else has to say where a
// probe comes from.
const hostPriority = nftables.ChainPriority(99)

// Host lets the health probes of the node's kubelet through to captured pods, by
// rules in the node's own network namespace: what a process of the node's root
// sends to a captured pod comes from the probe address, which the pod's rules let
// through. Packets that come to the node with that address are dropped, so that
// nobody else has it.
//
// The node's own addresses would not do as the mark of a probe: what comes through
// a node port is masqueraded to them.
type Host struct {
	ns *netns.Namespace

	mu   sync.Mutex
	want []netip.Addr // guarded by mu; sorted
	have *shape       // guarded by mu; nil until rules are in place
}

// NewHost works in ns, which stays the caller's.
func NewHost(ns *netns.Namespace) *Host { return &Host{ns: ns} }

// Sync makes the captured pods' addresses those given, sorted, and mends the rules
// if they are damaged. Without addresses there are no rules.
func (h *Host) Sync(addrs []netip.Addr) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(addrs) == 0 {
		if h.have == nil && h.want == nil {
			return nil
		}
		return h.removeLocked()
	}
	err := inside(h.ns, func(k *kernel) error {
		intact, err := h.intactLocked(k, addrs)
		if err != nil || intact {
			return err
		}
		if err := writeHost(k.nft, addrs); err != nil {
			return err
		}
		if h.have, err = readNamed(k.raw, hostTable); err != nil {
			return err
		}
		h.want = slices.Clone(addrs)
		return nil
	})
	if err != nil {
		return fmt.Errorf("rules of the node's probes: %w", err)
	}
	return nil
}

// Remove takes the rules away, whoever left them.
func (h *Host) Remove() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.removeLocked()
}

func (h *Host) removeLocked() error {
	err := inside(h.ns, func(k *kernel) error {
		s, err := readNamed(k.raw, hostTable)
		if err != nil || s == nil {
			return err
		}
		return deleteNamed(k.nft, hostTable)
	})
	if err != nil {
		return fmt.Errorf("rules of the node's probes: %w", err)
	}
	h.want, h.have = nil, nil
	return nil
}

// intactLocked compares what the kernel has with what it was given.
func (h *Host) intactLocked(k *kernel, addrs []netip.Addr) (bool, error) {
	if h.have == nil || !slices.Equal(h.want, addrs) {
		return false, nil
	}
	now, err := readNamed(k.raw, hostTable)
	if err != nil || now == nil || len(now.diff(h.have)) > 0 {
		return false, err
	}
	var elements []netip.Addr
	table := &nftables.Table{Name: hostTable, Family: nftables.TableFamilyINet}
	for _, name := range []string{"pods4", "pods6"} {
		got, err := k.nft.GetSetElements(&nftables.Set{Table: table, Name: name})
		if errors.Is(err, unix.ENOENT) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		for _, e := range got {
			if a, ok := netip.AddrFromSlice(e.Key); ok {
				elements = append(elements, a)
			}
		}
	}
	slices.SortFunc(elements, netip.Addr.Compare)
	return slices.Equal(elements, addrs), nil
}

// writeHost replaces the table in one transaction.
func writeHost(conn *nftables.Conn, addrs []netip.Addr) error {
	table := &nftables.Table{Name: hostTable, Family: nftables.TableFamilyINet}
	conn.AddTable(table) // so that there is one to delete
	conn.DelTable(table)
	conn.AddTable(table)
	priority := hostPriority
	from := conn.AddChain(&nftables.Chain{
		Name: "probes", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: &priority,
	})
	guard := conn.AddChain(&nftables.Chain{
		Name: "guard", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
	})
	for _, f := range []struct {
		set   string
		key   nftables.SetDatatype
		probe netip.Addr
	}{{"pods4", nftables.TypeIPAddr, probeV4}, {"pods6", nftables.TypeIP6Addr, probeV6}} {
		set := &nftables.Set{Table: table, Name: f.set, KeyType: f.key}
		var elements []nftables.SetElement
		for _, a := range addrs {
			if a.Is4() == f.probe.Is4() {
				elements = append(elements, nftables.SetElement{Key: a.AsSlice()})
			}
		}
		if err := conn.AddSet(set, elements); err != nil {
			return err
		}
		conn.AddRule(&nftables.Rule{Table: table, Chain: from, Exprs: probeRule(set, f.probe)})
		conn.AddRule(&nftables.Rule{Table: table, Chain: guard, Exprs: slices.Concat(
			addressIs(f.probe, saddr, f.probe.BitLen()), []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nftables table inet %s (needs CONFIG_NFT_NAT and CONFIG_NF_TABLES): %w", hostTable, err)
	}
	return nil
}

// probeRule gives TCP connections of the node's root to addresses of the set
// another source. What is forwarded has no socket here, and so no owner.
func probeRule(set *nftables.Set, probe netip.Addr) []expr.Any {
	family, length, offset := byte(unix.NFPROTO_IPV4), uint32(4), uint32(16)
	if probe.Is6() {
		family, length, offset = unix.NFPROTO_IPV6, 16, 24
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{family}},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Meta{Key: expr.MetaKeySKUID, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: u32(0)},
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Lookup{SourceRegister: reg, SetName: set.Name, SetID: set.ID},
		&expr.Immediate{Register: reg, Data: probe.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(family), RegAddrMin: reg, RegAddrMax: reg},
	}
}

func deleteNamed(conn *nftables.Conn, name string) error {
	table := &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
	conn.AddTable(table)
	conn.DelTable(table)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("delete nftables table inet %s: %w", name, err)
	}
	return nil
}

// readTable gives the shape of the pods' table, nil if there is none.
func readTable(conn *nfnetlink.Conn) (*shape, error) { return readNamed(conn, tableName) }
