package upstream

import (
	"cmp"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// snapshot is the endpoints of a cluster at one generation of the store.
type snapshot struct {
	generation uint64
	policy     *waypoint.Backend
	svc        *wds.Service // nil when it is not known
	endpoints  []*Endpoint
	tiers      []*tier // the same, by how near they are
	err        error   // why there are none
}

// tier is endpoints that are as near as each other. Those of the next one are for
// when none of them is well.
type tier struct {
	endpoints []*Endpoint
	turn      atomic.Uint64
	ring      []point  // ring hash
	table     []uint32 // Maglev
}

func newTier(endpoints []*Endpoint, algorithm waypoint.LoadBalancing_Algorithm) *tier {
	t := &tier{endpoints: endpoints}
	switch algorithm {
	case waypoint.LoadBalancing_ALGORITHM_RING_HASH:
		t.ring = newRing(endpoints)
	case waypoint.LoadBalancing_ALGORITHM_MAGLEV:
		t.table = newTable(endpoints)
	}
	return t
}

// tries is how often two endpoints are drawn before all of them are looked at.
const tries = 4

// choose picks an endpoint that avoid does not reject, or nil: of the nearest that
// has one which is well. Of endpoints that are all out, any is better than none.
func (s *snapshot) choose(hash uint64, hashed bool, slow time.Duration, avoid func(*Endpoint) bool) *Endpoint {
	now := time.Now()
	ok := func(e *Endpoint) bool { return !e.health.out(now) && (avoid == nil || !avoid(e)) }
	for _, t := range s.tiers {
		if e := s.byAlgorithm(t, hash, hashed, slow, now, ok); e != nil {
			return e
		}
	}
	for _, t := range s.tiers {
		if e := t.scan(func(e *Endpoint) bool { return avoid == nil || !avoid(e) }); e != nil {
			return e
		}
	}
	return nil
}

func (s *snapshot) byAlgorithm(t *tier, hash uint64, hashed bool, slow time.Duration, now time.Time, ok func(*Endpoint) bool) *Endpoint {
	n := uint64(len(t.endpoints))
	if n == 0 {
		return nil
	}
	switch lb := s.policy.GetLoadBalancing(); lb.GetAlgorithm() {
	case waypoint.LoadBalancing_ALGORITHM_RING_HASH:
		if hashed {
			return t.onRing(hash, ok)
		}
	case waypoint.LoadBalancing_ALGORITHM_MAGLEV:
		if hashed {
			return t.inTable(hash, ok)
		}
	case waypoint.LoadBalancing_ALGORITHM_ROUND_ROBIN:
		// A turn that is not taken is over: the one that comes next must not have it
		// each time.
		for range n {
			if e := t.endpoints[t.turn.Add(1)%n]; ok(e) && e.takesTurn(slow, now) {
				return e
			}
		}
		return t.scan(ok)
	case waypoint.LoadBalancing_ALGORITHM_RANDOM:
		for range tries {
			if e := t.endpoints[rand.Uint64N(n)]; ok(e) && e.takesTurn(slow, now) {
				return e
			}
		}
		return t.scan(ok)
	}
	for range tries {
		a, b := t.endpoints[rand.Uint64N(n)], t.endpoints[rand.Uint64N(n)]
		switch okA, okB := ok(a), ok(b); {
		case okA && okB:
			if b.cost(slow, now) < a.cost(slow, now) {
				return b
			}
			return a
		case okA:
			return a
		case okB:
			return b
		}
	}
	return t.scan(ok)
}

// scan gives the first that will do, from a random one on.
func (t *tier) scan(ok func(*Endpoint) bool) *Endpoint {
	n := len(t.endpoints)
	if n == 0 {
		return nil
	}
	from := rand.N(n)
	for i := range n {
		if e := t.endpoints[(from+i)%n]; ok(e) {
			return e
		}
	}
	return nil
}

// firstShare is the part of its share that a new endpoint begins with.
const firstShare = 0.1

// warmth is the part of its share that an endpoint gets: 1, or less as long as it
// is new.
func (e *Endpoint) warmth(slow time.Duration, now time.Time) float64 {
	if age := now.Sub(e.born); slow > 0 && age < slow {
		return max(firstShare, float64(age)/float64(slow))
	}
	return 1
}

// takesTurn reports whether an endpoint whose turn it is takes it: a new one does
// so more often the longer it is there.
func (e *Endpoint) takesTurn(slow time.Duration, now time.Time) bool {
	w := e.warmth(slow, now)
	return w == 1 || rand.Float64() < w
}

// cost of one more request: what is under way, by how fast the endpoint answers,
// by its weight, which a new one has not reached yet.
func (e *Endpoint) cost(slow time.Duration, now time.Time) float64 {
	c := e.latency.cost(e.inflight.Load()) / float64(max(1, e.Workload().Capacity))
	if w := e.warmth(slow, now); w < 1 {
		return (c + float64(time.Microsecond)) / w
	}
	return c
}

// point of the hash ring.
type point struct {
	hash uint64
	at   uint32
}

// pointsPerEndpoint is how often an endpoint is on the ring.
const pointsPerEndpoint = 160

func newRing(endpoints []*Endpoint) []point {
	ring := make([]point, 0, len(endpoints)*pointsPerEndpoint)
	for i, e := range endpoints {
		h := e.Hash
		for range pointsPerEndpoint {
			h = mix(h)
			ring = append(ring, point{h, uint32(i)})
		}
	}
	slices.SortFunc(ring, func(a, b point) int { return cmp.Compare(a.hash, b.hash) })
	return ring
}

func (t *tier) onRing(hash uint64, ok func(*Endpoint) bool) *Endpoint {
	hash = mix(hash)
	from, _ := slices.BinarySearchFunc(t.ring, hash, func(p point, h uint64) int { return cmp.Compare(p.hash, h) })
	for i := range t.ring {
		if e := t.endpoints[t.ring[(from+i)%len(t.ring)].at]; ok(e) {
			return e
		}
	}
	return nil
}

// tableSize of Maglev is prime and far above the number of endpoints.
const tableSize = 65537

// newTable fills a lookup table in turns (Eisenbud et al., Maglev, section 3.4).
func newTable(endpoints []*Endpoint) []uint32 {
	n := len(endpoints)
	if n == 0 {
		return nil
	}
	const empty = ^uint32(0)
	table := make([]uint32, tableSize)
	for i := range table {
		table[i] = empty
	}
	next := make([]uint64, n)
	skip := make([]uint64, n)
	for i, e := range endpoints {
		next[i] = mix(e.Hash) % tableSize
		skip[i] = mix(e.Hash^0x5bd1e995)%(tableSize-1) + 1
	}
	for filled := 0; ; {
		for i := range n {
			for table[next[i]] != empty {
				next[i] = (next[i] + skip[i]) % tableSize
			}
			table[next[i]] = uint32(i)
			if filled++; filled == tableSize {
				return table
			}
		}
	}
}

func (t *tier) inTable(hash uint64, ok func(*Endpoint) bool) *Endpoint {
	for i := uint64(0); i < tableSize; i++ {
		// What falls on an endpoint that is out is spread over the others.
		if e := t.endpoints[t.table[mix(hash+i)%tableSize]]; ok(e) {
			return e
		}
		if i > 8*uint64(len(t.endpoints)) {
			break
		}
	}
	return nil
}

// mix spreads the bits of a hash (the finaliser of SplitMix64).
func mix(h uint64) uint64 {
	h += 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return bits.RotateLeft64(h, 31) ^ h
}

// HashString hashes what requests are told apart by.
func HashString(s string) uint64 { return xxhash.Sum64String(s) }
