package jwt

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"time"
)

// tokenID is the SHA-256 of a token.
type tokenID [sha256.Size]byte

// sum allocates only for long tokens.
func sum(token string) tokenID {
	var buf [2048]byte
	if len(token) <= len(buf) {
		return sha256.Sum256(buf[:copy(buf[:], token)])
	}
	return sha256.Sum256([]byte(token))
}

// verified is a token whose signature was good by a key.
type verified struct {
	id     tokenID
	key    keyID
	claims *Claims
}

// size in bytes, about.
func (v *verified) size() int { return v.claims.size + 512 }

// cache is verified tokens, those that were used least recently forgotten first.
// Only signed tokens come in here, so that strangers cannot fill it.
type cache struct {
	shards  [cacheShards]cacheShard
	metrics *Metrics
}

const cacheShards = 16

type cacheShard struct {
	mu    sync.Mutex
	most  int                       // bytes
	bytes int                       // guarded by mu
	byID  map[tokenID]*list.Element // guarded by mu
	order list.List                 // of *verified, the last used first; guarded by mu
}

func newCache(bytes int, m *Metrics) *cache {
	c := &cache{metrics: m}
	for i := range c.shards {
		c.shards[i].most = bytes / cacheShards
		c.shards[i].byID = make(map[tokenID]*list.Element)
	}
	return c
}

func (c *cache) shard(id *tokenID) *cacheShard { return &c.shards[id[0]%cacheShards] }

// get gives a token that was verified, unless it has expired by now.
func (c *cache) get(id tokenID, now time.Time) *verified {
	s := c.shard(&id)
	s.mu.Lock()
	e := s.byID[id]
	var v *verified
	if e != nil {
		v = e.Value.(*verified)
		if exp := v.claims.expires; !exp.IsZero() && now.After(exp) {
			s.drop(e)
			v = nil
		} else {
			s.order.MoveToFront(e)
		}
	}
	s.mu.Unlock()
	c.metrics.looked(v != nil)
	return v
}

func (c *cache) put(v *verified) {
	s := c.shard(&v.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byID[v.id]; e != nil {
		s.drop(e)
	}
	s.byID[v.id] = s.order.PushFront(v)
	s.bytes += v.size()
	for s.bytes > s.most && s.order.Len() > 0 {
		s.drop(s.order.Back())
		c.metrics.evicted()
	}
}

// drop forgets a token. The caller holds mu.
func (s *cacheShard) drop(e *list.Element) {
	v := s.order.Remove(e).(*verified)
	delete(s.byID, v.id)
	s.bytes -= v.size()
}
