package vip

import (
	"cmp"
	"net/netip"
	"slices"
)

// Protocol is an IP protocol number.
type Protocol uint8

// The protocols that are balanced.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// Frontend is one port of a service at one of its virtual addresses.
type Frontend struct {
	Protocol Protocol
	Address  netip.AddrPort
	// Backends are of Address's family. Without any, connections are refused.
	Backends []netip.AddrPort
	// Sticky sends a client address to the same backend while the list stays.
	Sticky bool
}

// Table is what one node does with virtual addresses.
type Table struct {
	Frontends []Frontend
	// Local are the addresses of the node's pods, which can meet themselves
	// behind a virtual address.
	Local []netip.Addr
	// Virtual are the blocks of virtual addresses. What is in them and is not a
	// frontend's is refused, except for Exempt.
	Virtual []netip.Prefix
	Exempt  []netip.Addr
}

// normalize sorts, so that equal tables are written alike.
func (t Table) normalize() Table {
	fs := slices.Clone(t.Frontends)
	for i := range fs {
		fs[i].Backends = slices.Clone(fs[i].Backends)
		slices.SortFunc(fs[i].Backends, netip.AddrPort.Compare)
		fs[i].Backends = slices.Compact(fs[i].Backends)
	}
	key := func(a, b Frontend) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), a.Address.Compare(b.Address))
	}
	slices.SortFunc(fs, key)
	t.Frontends = slices.CompactFunc(fs, func(a, b Frontend) bool { return key(a, b) == 0 })
	t.Local = slices.Clone(t.Local)
	slices.SortFunc(t.Local, netip.Addr.Compare)
	t.Local = slices.Compact(t.Local)
	return t
}

func equal(a, b Table) bool {
	return slices.EqualFunc(a.Frontends, b.Frontends, func(x, y Frontend) bool {
		return x.Protocol == y.Protocol && x.Address == y.Address && x.Sticky == y.Sticky && slices.Equal(x.Backends, y.Backends)
	}) && slices.Equal(a.Local, b.Local) && slices.Equal(a.Virtual, b.Virtual) && slices.Equal(a.Exempt, b.Exempt)
}

// lostUDP gives the UDP backends of old that no frontend of t has.
func (t Table) lostUDP(old Table) []netip.AddrPort {
	have := make(map[netip.AddrPort]bool)
	for _, f := range t.Frontends {
		for _, b := range f.Backends {
			have[b] = have[b] || f.Protocol == UDP
		}
	}
	var lost []netip.AddrPort
	for _, f := range old.Frontends {
		for _, b := range f.Backends {
			if f.Protocol == UDP && !have[b] {
				lost = append(lost, b)
			}
		}
	}
	return lost
}
