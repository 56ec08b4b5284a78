package jwt

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestCacheBound(t *testing.T) {
	m := NewMetrics(prometheus.NewRegistry())
	c, now := newCache(64<<10, m), time.Now()
	size := (&verified{claims: &Claims{size: 100}}).size()
	for i := range 10_000 {
		c.put(&verified{id: sum(fmt.Sprint(i)), claims: &Claims{size: 100}})
	}
	n, bytes := 0, 0
	for i := range c.shards {
		n += c.shards[i].order.Len()
		bytes += c.shards[i].bytes
		if len(c.shards[i].byID) != c.shards[i].order.Len() {
			t.Error("list and table differ")
		}
	}
	if bytes > 64<<10 || bytes != n*size || n < 64 {
		t.Errorf("%d tokens, %d bytes", n, bytes)
	}
	if got := testutil.ToFloat64(m.evicts); int(got) != 10_000-n {
		t.Errorf("%v evictions", got)
	}
	// What is larger than all the room is not kept.
	c.put(&verified{id: sum("huge"), claims: &Claims{size: 1 << 20}})
	if c.get(sum("huge"), now) != nil {
		t.Error("kept what does not fit")
	}
	c.put(&verified{id: sum("a"), claims: &Claims{expires: now.Add(time.Second)}})
	if c.get(sum("a"), now) == nil || c.get(sum("a"), now.Add(2*time.Second)) != nil || c.get(sum("a"), now) != nil {
		t.Error("expiry")
	}
}

func TestCacheConcurrent(t *testing.T) {
	c, now := newCache(32<<10, nil), time.Now()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 2000 {
				id := sum(fmt.Sprint(i * w % 100))
				if v := c.get(id, now); v != nil && v.id != id {
					t.Error("another token")
				}
				c.put(&verified{id: id, claims: &Claims{size: i}})
			}
		})
	}
	wg.Wait()
}
