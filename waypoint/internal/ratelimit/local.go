package ratelimit

import (
	"context"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of LocalConfig.
const (
	// DefaultMaxKeys is about 60 MB when all are in use.
	DefaultMaxKeys         = 1 << 18
	DefaultMaxKeysPerLimit = 1 << 16
)

// LocalConfig of a Local.
type LocalConfig struct {
	// MaxKeys is how many buckets there are at most, MaxKeysPerLimit how many of
	// one limit; 0: the defaults.
	MaxKeys, MaxKeysPerLimit int
	// Start is the beginning of the clock; zero: the time of NewLocal.
	Start   time.Time
	Metrics *Metrics
}

// Local counts requests in this process.
type Local struct {
	start    time.Time
	maxKeys  int64
	perLimit int64
	metrics  *Metrics
	seed     maphash.Seed
	keys     atomic.Int64
	shards   [shards]shard

	mu       sync.RWMutex
	families map[familyKey]*family // guarded by mu
}

// shards is how many locks there are.
const shards = 64

type shard struct {
	mu      sync.Mutex
	buckets map[bucketKey]*bucket // guarded by mu
	_       [48]byte              // two shards never lie on one cache line
}

// bucketKey names a bucket. A shared bucket has no key.
type bucketKey struct {
	policy, rule, key string
	shared            bool
}

type bucket struct {
	level  level // guarded by the shard's mu
	family *family
	// held says that somebody is about to take from it, so that it is not forgotten
	// in between; guarded by the shard's mu.
	held bool
}

type familyKey struct{ policy, rule string }

// family is the buckets of one limit.
type family struct {
	keys   atomic.Int64
	counts counts
}

// NewLocal makes a Local without buckets.
func NewLocal(cfg LocalConfig) *Local {
	if cfg.MaxKeys <= 0 {
		cfg.MaxKeys = DefaultMaxKeys
	}
	if cfg.MaxKeysPerLimit <= 0 {
		cfg.MaxKeysPerLimit = DefaultMaxKeysPerLimit
	}
	if cfg.Start.IsZero() {
		cfg.Start = time.Now()
	}
	l := &Local{
		start: cfg.Start, maxKeys: int64(cfg.MaxKeys), perLimit: int64(cfg.MaxKeysPerLimit), metrics: cfg.Metrics,
		seed: maphash.MakeSeed(), families: make(map[familyKey]*family),
	}
	for i := range l.shards {
		l.shards[i].buckets = make(map[bucketKey]*bucket)
	}
	return l
}

// clock is monotonic when now is.
func (l *Local) clock(now time.Time) int64 { return int64(now.Sub(l.start)) }

// shardOf spreads limits with many keys, and limits with one.
func (l *Local) shardOf(limit *Limit, key string) int {
	h := maphash.String(l.seed, key) ^ maphash.String(l.seed, limit.Policy)<<1 ^ maphash.String(l.seed, limit.Rule)<<2
	return int((h ^ h>>32) % shards)
}

// Allow takes a token of one limit.
func (l *Local) Allow(limit Limit, key string, now time.Time) Verdict {
	var out Verdict
	at, r := l.clock(now), rateOf(&limit)
	s := &l.shards[l.shardOf(&limit, key)]
	s.mu.Lock()
	b, shared := l.bucket(s, &limit, key, at)
	if b.level.judge(&limit, r, at, &out); out.OK {
		b.level.take(r, at)
	}
	f := b.family
	s.mu.Unlock()
	out.Shared = shared
	f.counts.judged(&out)
	return out
}

// few is how many limits a request may be under without an allocation.
const few = 8

// AllowAll takes a token of each limit that is counted here, or of none if one of
// them refuses. It appends their verdicts to buf.
func (l *Local) AllowAll(asks []Ask, now time.Time, buf []Verdict) ([]Verdict, bool) {
	var (
		at    = l.clock(now)
		first = len(buf)
		index [few]int
		found [few]*bucket
	)
	order, buckets := index[:0], found[:0]
	for i := range asks {
		if asks[i].Global == nil {
			order = append(order, l.shardOf(&asks[i].Limit, asks[i].Key))
		}
	}
	// One order for everybody, so that nobody waits for each other.
	slices.Sort(order)
	order = slices.Compact(order)
	l.lock(order)
	ok := true
	for i := range asks {
		a := &asks[i]
		if a.Global != nil {
			continue
		}
		b, shared := l.bucket(&l.shards[l.shardOf(&a.Limit, a.Key)], &a.Limit, a.Key, at)
		buf = append(buf, Verdict{})
		v := &buf[len(buf)-1]
		b.level.judge(&a.Limit, rateOf(&a.Limit), at, v)
		v.Shared = shared
		ok = ok && v.OK
		b.held = true
		buckets = append(buckets, b)
	}
	if ok {
		take(asks, buckets, at)
	}
	for _, b := range buckets {
		b.held = false
	}
	l.unlock(order)
	for i, b := range buckets {
		if v := &buf[first+i]; ok || !v.OK {
			b.family.counts.judged(v)
		}
	}
	return buf, ok
}

// take uses the buckets of asks; the caller holds their locks.
func take(asks []Ask, buckets []*bucket, at int64) {
	n := 0
	for i := range asks {
		if asks[i].Global == nil {
			buckets[n].level.take(rateOf(&asks[i].Limit), at)
			n++
		}
	}
}

func (l *Local) lock(order []int) {
	for _, i := range order {
		l.shards[i].mu.Lock()
	}
}

func (l *Local) unlock(order []int) {
	for _, i := range order {
		l.shards[i].mu.Unlock()
	}
}

// Return gives back what AllowAll has taken for a request that was refused after
// all.
func (l *Local) Return(asks []Ask) {
	for i := range asks {
		a := &asks[i]
		if a.Global != nil {
			continue
		}
		s := &l.shards[l.shardOf(&a.Limit, a.Key)]
		s.mu.Lock()
		key := bucketKey{policy: a.Limit.Policy, rule: a.Limit.Rule, key: a.Key}
		b := s.buckets[key]
		if b == nil {
			b = s.buckets[key.share()]
		}
		if b != nil {
			b.level.give()
		}
		s.mu.Unlock()
	}
}

// share gives the bucket for keys that have none of their own.
func (k bucketKey) share() bucketKey {
	return bucketKey{policy: k.policy, rule: k.rule, shared: true}
}

// bucket finds the bucket of a key or makes it. The caller holds the shard's lock.
func (l *Local) bucket(s *shard, limit *Limit, key string, at int64) (b *bucket, shared bool) {
	k := bucketKey{policy: limit.Policy, rule: limit.Rule, key: key}
	if b = s.buckets[k]; b != nil {
		return b, false
	}
	f := l.family(limit)
	if !l.room(s, f, at) {
		k, shared = k.share(), true
		if b = s.buckets[k]; b != nil {
			return b, true
		}
	}
	// The key may be a part of something large.
	k.key = strings.Clone(k.key)
	b = &bucket{family: f}
	s.buckets[k] = b
	return b, shared
}

// How many buckets are looked at when one is made, to see whether they can be
// forgotten: so many that there are rarely more idle ones than others, and more
// when there is no room.
const (
	glance = 4
	search = 64
)

// room reserves the place of a bucket. The caller holds the shard's lock.
func (l *Local) room(s *shard, f *family, at int64) bool {
	l.tidy(s, at, glance)
	if l.reserve(f) {
		return true
	}
	l.tidy(s, at, search)
	return l.reserve(f)
}

func (l *Local) reserve(f *family) bool {
	if f.keys.Add(1) <= l.perLimit {
		if l.keys.Add(1) <= l.maxKeys {
			l.metrics.keysChanged(1)
			return true
		}
		l.keys.Add(-1)
	}
	f.keys.Add(-1)
	return false
}

// tidy forgets the idle ones of n buckets that it comes upon (range begins
// anywhere), or of all if n is 0. The caller holds the shard's lock.
func (l *Local) tidy(s *shard, at int64, n int) {
	forgotten, seen := 0, 0
	for k, b := range s.buckets {
		if b.level.idle(at) && !b.held {
			delete(s.buckets, k)
			if !k.shared {
				b.family.keys.Add(-1)
				forgotten++
			}
		}
		if seen++; seen == n {
			break
		}
	}
	l.keys.Add(int64(-forgotten))
	l.metrics.keysForgotten(forgotten)
}

func (l *Local) family(limit *Limit) *family {
	key := familyKey{limit.Policy, limit.Rule}
	l.mu.RLock()
	f := l.families[key]
	l.mu.RUnlock()
	if f != nil {
		return f
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if f = l.families[key]; f == nil {
		f = &family{counts: l.metrics.of(limit.Policy, limit.Rule)}
		l.families[key] = f
	}
	return f
}

// Keys is how many buckets there are, shared ones not counted.
func (l *Local) Keys() int { return int(l.keys.Load()) }

// Sweep forgets every bucket that is full.
func (l *Local) Sweep(now time.Time) {
	at := l.clock(now)
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		l.tidy(s, at, 0)
		s.mu.Unlock()
	}
}

// sweepEvery is how long a bucket that nobody uses is remembered at most, after it
// is full.
const sweepEvery = time.Minute

// Run sweeps until ctx ends.
func (l *Local) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			l.Sweep(now)
		}
	}
}
