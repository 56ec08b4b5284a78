package hpack

import (
	"hash/maphash"
	"strings"
)

// slotCount is how many fields the encoder finds in its table. Two that share a
// slot cost a few bytes more on the wire, nothing else.
const slotCount = 128

// Encoder encodes the header blocks of one connection, in order. The table is made
// for fields that come again: a field enters it when it is seen for the second
// time while its slot remembers the first.
type Encoder struct {
	seed  maphash.Seed
	ring  []item
	total uint64 // entries that ever were; entry i lies in ring[i%ringLen]
	count uint64
	size  int

	max    int  // what the peer allows, at most tableSize
	resize bool // the peer has to be told

	slots [slotCount]uint64 // 1 + the number of an entry, by hash; checked when used
	names [slotCount]uint64 // the same by the hash of the name alone
	once  [slotCount]uint32 // fields seen once, by hash
}

// item is an entry of the encoder's table.
type item struct {
	name, value string
}

// NewEncoder makes an encoder for a peer that has not said anything about its
// table.
func NewEncoder() *Encoder {
	return &Encoder{seed: maphash.MakeSeed(), max: tableSize}
}

// SetPeerTable is for what the peer says about its table's size. Of several
// changes between two blocks the lowest counts: RFC 7541 section 4.2 wants it told,
// and not every decoder takes two updates in a row.
func (e *Encoder) SetPeerTable(n uint32) {
	size := int(min(n, tableSize))
	if size == e.max || e.resize && size > e.max {
		return
	}
	e.max, e.resize = size, true
	e.evict(size)
}

// Begin begins a block; an update of the table's size comes first, RFC 7541 section
// 4.2.
func (e *Encoder) Begin(b []byte) []byte {
	if !e.resize {
		return b
	}
	e.resize = false
	return appendInteger(b, 0x20, 5, uint64(e.max))
}

// secret reports whether a field must never be in a table, where others who share
// the connection could find out by trial what it is, RFC 7541 section 7.1.
func secret(name string) bool {
	switch name {
	case "authorization", "proxy-authorization", "cookie", "set-cookie":
		return true
	}
	return false
}

// Append encodes one field of a block.
func (e *Encoder) Append(b []byte, name, value string) []byte {
	if strings.HasPrefix(name, ":") {
		if i := staticPairs[pair{name, value}]; i > 0 {
			return appendInteger(b, 0x80, 7, i)
		}
	}
	if secret(name) {
		return appendString(appendInteger(b, 0x10, 4, staticNames[name]), value)
	}
	size := len(name) + len(value) + overhead
	if size > e.max/4 {
		return e.literal(b, 0, 4, maphash.String(e.seed, name), name, value)
	}
	nameHash := maphash.String(e.seed, name)
	hash := nameHash*0x9e3779b97f4a7c15 ^ maphash.String(e.seed, value)
	slot := hash % slotCount
	if at, ok := e.entry(e.slots[slot]); ok && at.value == value && at.name == name {
		return appendInteger(b, 0x80, 7, e.index(e.slots[slot]))
	}
	mark := uint32(hash >> 32)
	if e.once[slot] != mark {
		e.once[slot] = mark
		return e.literal(b, 0, 4, nameHash, name, value)
	}
	b = e.literal(b, 0x40, 6, nameHash, name, value)
	e.insert(name, value, size)
	e.slots[slot], e.names[nameHash%slotCount] = e.total, e.total
	return b
}

// literal encodes a field with its value, and its name unless a table has it.
func (e *Encoder) literal(b []byte, form byte, prefix uint, nameHash uint64, name, value string) []byte {
	i := staticNames[name]
	if i == 0 {
		if at, ok := e.entry(e.names[nameHash%slotCount]); ok && at.name == name {
			i = e.index(e.names[nameHash%slotCount])
		}
	}
	b = appendInteger(b, form, prefix, i)
	if i == 0 {
		b = appendString(b, name)
	}
	return appendString(b, value)
}

// entry gives the entry that a slot means, if the table still has it.
func (e *Encoder) entry(slot uint64) (*item, bool) {
	if slot == 0 || slot+e.count <= e.total {
		return nil, false
	}
	return &e.ring[(slot-1)%ringLen], true
}

// index of the entry that a slot means, RFC 7541 section 2.3.3.
func (e *Encoder) index(slot uint64) uint64 { return uint64(staticLen) + 1 + e.total - slot }

func (e *Encoder) insert(name, value string, size int) {
	e.evict(e.max - size)
	if e.ring == nil {
		e.ring = make([]item, ringLen)
	}
	// The text may be part of a larger one, which the table must not keep alive.
	e.ring[e.total%ringLen] = item{strings.Clone(name), strings.Clone(value)}
	e.total++
	e.count++
	e.size += size
}

func (e *Encoder) evict(size int) {
	for e.size > size {
		at := &e.ring[(e.total-e.count)%ringLen]
		e.size -= len(at.name) + len(at.value) + overhead
		*at = item{}
		e.count--
	}
}

// appendInteger encodes RFC 7541 section 5.1.
func appendInteger(b []byte, form byte, prefix uint, n uint64) []byte {
	mask := uint64(1)<<prefix - 1
	if n < mask {
		return append(b, form|byte(n))
	}
	b = append(b, form|byte(mask))
	for n -= mask; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

func appendString(b []byte, s string) []byte {
	return append(appendInteger(b, 0, 7, uint64(len(s))), s...)
}
