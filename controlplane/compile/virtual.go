package compile

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// virtual gives hosts outside the addresses by which the mesh knows them, of
// 240.240.0.0/16 and 2001:2::/64.
//
// They follow from the set of hosts alone, and not from the order in which it came
// about, so that all replicas of a control plane agree: each host has slots of its own
// preference, by its hash, and the older of two that want the same one has it. So a
// new host never takes the address of one that is there, where objects have a time of
// creation; and only hosts that have met one that goes may move.
type virtual struct {
	slots int // of which the first and the last are nobody's
	hosts map[string]virtualHost
	given map[string]uint16
	stale bool // hosts have changed since given was worked out
}

// virtualHost is a host that has an address.
type virtualHost struct {
	owner   types.NamespacedName
	created time.Time
}

func newVirtual(slots int) virtual {
	return virtual{slots: slots, hosts: make(map[string]virtualHost), given: make(map[string]uint16)}
}

// virtualSlots is how many there are in 240.240.0.0/16.
const virtualSlots = 1 << 16

// want notes a host, <namespace>/<host>, and the ExternalService that has it.
func (v *virtual) want(key string, h virtualHost) {
	if old, ok := v.hosts[key]; !ok || old != h {
		v.hosts[key], v.stale = h, true
	}
}

// drop forgets the host of an owner.
func (v *virtual) drop(key string, owner types.NamespacedName) {
	if h, ok := v.hosts[key]; ok && h.owner == owner {
		delete(v.hosts, key)
		v.stale = true
	}
}

// settle gives out the addresses anew, and the owners of hosts whose address has
// become another one.
func (v *virtual) settle() []types.NamespacedName {
	if !v.stale {
		return nil
	}
	keys := make([]string, 0, len(v.hosts))
	for key := range v.hosts {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Or(v.hosts[a].created.Compare(v.hosts[b].created), strings.Compare(a, b))
	})
	given, taken := make(map[string]uint16, len(keys)), make([]bool, v.slots)
	var moved []types.NamespacedName
	for _, key := range keys {
		slot, ok := v.free(key, taken)
		if !ok {
			continue
		}
		given[key], taken[slot] = slot, true
	}
	for key, h := range v.hosts {
		old, had := v.given[key]
		if now, has := given[key]; had && (!has || now != old) || !had && has {
			moved = append(moved, h.owner)
		}
	}
	v.given, v.stale = given, false
	return moved
}

// free gives the first slot of the host's preference that is not taken: from one on
// by steps of an odd number, which lead to all of them.
func (v *virtual) free(key string, taken []bool) (uint16, bool) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	sum := int(h.Sum32())
	last := v.slots - 1
	slot, step := (sum^sum>>16)&last, sum>>7|1
	for range v.slots {
		if slot != 0 && slot != last && !taken[slot] {
			return uint16(slot), true // #nosec G115 -- below slots, at most 1<<16
		}
		slot = (slot + step) & last
	}
	return 0, false
}

// of gives the addresses of a host; none where there are more hosts than addresses.
func (v *virtual) of(key string) []netip.Addr {
	slot, ok := v.given[key]
	if !ok {
		return nil
	}
	four, six := [4]byte{240, 240}, [16]byte{0x20, 0x01, 0, 2}
	binary.BigEndian.PutUint16(four[2:], slot)
	binary.BigEndian.PutUint16(six[14:], slot)
	return []netip.Addr{netip.AddrFrom4(four), netip.AddrFrom16(six)}
}
