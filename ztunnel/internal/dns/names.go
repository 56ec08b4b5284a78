package dns

import (
	"container/list"
	"hash/fnv"
	"net/netip"
	"sync"
)

// Ranges of the addresses that stand for the names below a wildcard. They are next
// to those that the control plane gives to hosts (240.240.0.0/16, 2001:2::/64) and
// mean something to one pod alone.
var (
	namesV4 = netip.MustParsePrefix("240.241.0.0/16")
	namesV6 = netip.MustParsePrefix("2001:2:0:1::/64")
)

// maxNames bounds the names of a pod; the one that was used the longest ago goes.
const maxNames = 4096

// names gives virtual addresses to the names below wildcards that a pod has asked
// for. An address follows from the name, so that it is the same one after a
// restart unless two names meet.
type names struct {
	mu     sync.Mutex
	byName map[string]*list.Element // guarded by mu
	bySlot map[uint16]*list.Element // guarded by mu
	used   *list.List               // of *name, latest first; guarded by mu
}

type name struct {
	host, service string
	slot          uint16
}

func newNames() *names {
	return &names{byName: make(map[string]*list.Element), bySlot: make(map[uint16]*list.Element), used: list.New()}
}

// of gives the addresses of a name below the wildcard of a service.
func (n *names) of(host, service string) (v4, v6 netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e := n.byName[host]; e != nil {
		n.used.MoveToFront(e)
		e.Value.(*name).service = service
		return addressesOf(e.Value.(*name).slot)
	}
	if n.used.Len() >= maxNames {
		last := n.used.Back()
		old := n.used.Remove(last).(*name)
		delete(n.byName, old.host)
		delete(n.bySlot, old.slot)
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(host))
	slot := uint16(h.Sum32() ^ h.Sum32()>>16) // #nosec G115 -- folded on purpose
	for n.bySlot[slot] != nil || slot == 0 || slot == 0xffff {
		slot++
	}
	e := n.used.PushFront(&name{host: host, service: service, slot: slot})
	n.byName[host], n.bySlot[slot] = e, e
	return addressesOf(slot)
}

func addressesOf(slot uint16) (v4, v6 netip.Addr) {
	a, b := namesV4.Addr().As4(), namesV6.Addr().As16()
	a[2], a[3] = byte(slot>>8), byte(slot)
	b[14], b[15] = byte(slot>>8), byte(slot)
	return netip.AddrFrom4(a), netip.AddrFrom16(b)
}

// at finds the name that an address stands for. ours says that the address is of the
// ranges, whether or not it stands for a name now.
func (n *names) at(a netip.Addr) (host, service string, ours bool) {
	if !namesV4.Contains(a) && !namesV6.Contains(a) {
		return "", "", false
	}
	b := a.AsSlice()
	slot := uint16(b[len(b)-2])<<8 | uint16(b[len(b)-1])
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.bySlot[slot]
	if e == nil {
		return "", "", true
	}
	n.used.MoveToFront(e)
	found := e.Value.(*name)
	return found.host, found.service, true
}
