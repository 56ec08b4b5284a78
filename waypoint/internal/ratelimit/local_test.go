package ratelimit

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"
)

// start is the beginning of time in tests that have their own.
func start() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

func limit(requests uint32, unit time.Duration, burst uint32) Limit {
	return Limit{Policy: "shop/limits", Rule: "all", Requests: requests, Unit: unit, Burst: burst}
}

// allowed counts what is let through of n requests at one moment.
func allowed(l *Local, limit Limit, key string, now time.Time, n int) int {
	got := 0
	for range n {
		if l.Allow(limit, key, now).OK {
			got++
		}
	}
	return got
}

func TestAllow(t *testing.T) {
	type step struct {
		after time.Duration
		send  int
		want  int
	}
	for _, c := range []struct {
		name  string
		limit Limit
		steps []step
	}{
		{"burst is the requests by default", limit(3, time.Second, 0), []step{{0, 5, 3}}},
		{"burst", limit(1, time.Second, 10), []step{{0, 20, 10}, {time.Second, 5, 1}, {5 * time.Second, 9, 5}}},
		{"burst of one spaces requests", limit(10, time.Second, 1), []step{{0, 2, 1}, {99 * time.Millisecond, 1, 0}, {time.Millisecond, 2, 1}}},
		{"refused requests cost nothing", limit(1, time.Minute, 0), []step{{0, 1000, 1}, {time.Minute, 1000, 1}}},
		{"never more than the bucket holds", limit(2, time.Second, 0), []step{{0, 2, 2}, {time.Hour, 10, 2}}},
		{"no requests", limit(0, time.Second, 5), []step{{0, 3, 0}, {time.Hour, 3, 0}}},
		{"no unit", limit(5, 0, 5), []step{{0, 3, 0}}},
		{"more than one in a nanosecond", limit(4_000_000_000, time.Second, 100), []step{{0, 200, 100}, {time.Second, 200, 100}}},
		{"numbers as large as they go", limit(1, 1<<62, 1<<31), []step{{0, 3, 1}}},
		{"a year", limit(1, 365*24*time.Hour, 0), []step{{0, 2, 1}, {364 * 24 * time.Hour, 1, 0}, {24 * time.Hour, 1, 1}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, now := NewLocal(LocalConfig{Start: start()}), start()
			for i, s := range c.steps {
				now = now.Add(s.after)
				if got := allowed(l, c.limit, "k", now, s.send); got != s.want {
					t.Errorf("step %d: %d of %d let through, want %d", i, got, s.send, s.want)
				}
			}
		})
	}
}

func TestVerdict(t *testing.T) {
	l, now := NewLocal(LocalConfig{Start: start()}), start()
	lim := limit(10, time.Second, 2)
	want := []Verdict{
		{OK: true, Limit: 10, Window: time.Second, Remaining: 1, Reset: 100 * time.Millisecond},
		{OK: true, Limit: 10, Window: time.Second, Remaining: 0, Reset: 200 * time.Millisecond},
		{Limit: 10, Window: time.Second, Reset: 100 * time.Millisecond, RetryAfter: 100 * time.Millisecond},
	}
	for i, w := range want {
		w.Policy, w.Rule = lim.Policy, lim.Rule
		if got := l.Allow(lim, "", now); got != w {
			t.Errorf("request %d:\n got %+v\nwant %+v", i, got, w)
		}
	}
	// Who waits as long as he is told is let through, and not before.
	if l.Allow(lim, "", now.Add(100*time.Millisecond-1)).OK {
		t.Error("let through before RetryAfter")
	}
	if !l.Allow(lim, "", now.Add(100*time.Millisecond)).OK {
		t.Error("refused after RetryAfter")
	}
}

func TestKeysAreApart(t *testing.T) {
	l, now := NewLocal(LocalConfig{Start: start()}), start()
	a, b := limit(1, time.Minute, 0), limit(1, time.Minute, 0)
	b.Rule = "other"
	for _, lim := range []Limit{a, b} {
		for _, key := range []string{"", "x", "y"} {
			if !l.Allow(lim, key, now).OK {
				t.Errorf("%s %q: refused at first", lim.Rule, key)
			}
			if l.Allow(lim, key, now).OK {
				t.Errorf("%s %q: let through twice", lim.Rule, key)
			}
		}
	}
}

// A changed rate applies to the next request, and what was used stays used.
func TestRateChanges(t *testing.T) {
	for _, c := range []struct {
		name   string
		before Limit
		used   int
		after  Limit
		want   int // let through at once
		second int // let through a second later
	}{
		{"nothing else", limit(10, time.Hour, 0), 4, limit(10, time.Hour, 0), 6, 0},
		{"faster", limit(10, time.Hour, 0), 10, limit(100, time.Second, 10), 0, 10},
		{"faster and larger", limit(10, time.Hour, 0), 10, limit(100, time.Second, 0), 90, 100},
		{"slower", limit(100, time.Second, 0), 60, limit(100, time.Hour, 0), 40, 0},
		{"smaller", limit(100, time.Second, 0), 60, limit(10, time.Second, 0), 0, 10},
		{"larger", limit(10, time.Second, 0), 10, limit(10, time.Second, 30), 20, 10},
		{"closed", limit(10, time.Second, 0), 1, limit(0, time.Second, 0), 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, now := NewLocal(LocalConfig{Start: start()}), start()
			allowed(l, c.before, "k", now, c.used)
			if got := allowed(l, c.after, "k", now, 1000); got != c.want {
				t.Errorf("at once: %d, want %d", got, c.want)
			}
			if got := allowed(l, c.after, "k", now.Add(time.Second), 1000); got != c.second {
				t.Errorf("a second later: %d, want %d", got, c.second)
			}
		})
	}
}

// Time that goes back empties a bucket at worst.
func TestClockGoesBack(t *testing.T) {
	l := NewLocal(LocalConfig{Start: start()})
	lim := limit(10, time.Second, 0)
	allowed(l, lim, "k", start().Add(24*time.Hour), 10)
	now := start()
	allowed(l, lim, "k", now, 1)
	if got := allowed(l, lim, "k", now.Add(time.Second), 20); got != 10 {
		t.Errorf("%d let through a second later, want 10", got)
	}
}

// A client that invents keys does not make the waypoint forget what was used, by
// others or by itself, nor what is known to be many.
func TestInventedKeys(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m := NewMetrics(reg)
	l, now := NewLocal(LocalConfig{Start: start(), MaxKeys: 3000, MaxKeysPerLimit: 2000, Metrics: m}), start()
	lim, other := limit(5, time.Hour, 0), limit(5, time.Hour, 0)
	other.Rule = "others"
	allowed(l, lim, "victim", now, 5)
	allowed(l, other, "victim", now, 5)
	let := 0
	for i := range 100_000 {
		if l.Allow(lim, fmt.Sprint(i), now).OK {
			let++
		}
	}
	if n := l.Keys(); n > 2001 {
		t.Errorf("%d keys are kept, more than the 2000 of the limit and the one of the other", n)
	}
	if most := 2000 + shards*5; let > most {
		t.Errorf("%d let through; keys without a bucket of their own should share: at most %d", let, most)
	}
	for _, k := range []Limit{lim, other} {
		if l.Allow(k, "victim", now).OK {
			t.Errorf("%s: the victim's use was forgotten", k.Rule)
		}
	}
	// The other limit has room left for new keys.
	if v := l.Allow(other, "new", now); !v.OK || v.Shared {
		t.Errorf("another limit suffers: %+v", v)
	}
	if got := testutil.ToFloat64(m.shared.WithLabelValues(lim.Policy, lim.Rule)); got < 90_000 {
		t.Errorf("%v shared requests counted", got)
	}
	// All is well when the buckets are full again.
	later := now.Add(2 * time.Hour)
	if v := l.Allow(lim, "newer", later); !v.OK || v.Shared {
		t.Errorf("after the attack: %+v", v)
	}
	l.Sweep(later)
	if n := l.Keys(); n != 1 {
		t.Errorf("%d keys after a sweep, want the one that was just used", n)
	}
	if got := testutil.ToFloat64(m.keys); got != 1 {
		t.Errorf("the metric says %v keys", got)
	}
}

// Keys that are used once and never again do not pile up, even if nobody sweeps.
func TestPassingKeys(t *testing.T) {
	l, now := NewLocal(LocalConfig{Start: start()}), start()
	lim := limit(1000, time.Second, 0)
	for i := range 200_000 {
		now = now.Add(10 * time.Microsecond)
		l.Allow(lim, fmt.Sprint(i), now)
	}
	// 100 are under way at any time.
	if n := l.Keys(); n > 1000 {
		t.Errorf("%d keys are kept", n)
	}
}

func TestRunForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLocal(LocalConfig{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		allowed(l, limit(1, time.Second, 0), "short", time.Now(), 1)
		allowed(l, limit(1, time.Hour, 0), "long", time.Now(), 1)
		time.Sleep(90 * time.Second)
		synctest.Wait()
		if n := l.Keys(); n != 1 {
			t.Errorf("%d keys after a sweep, want the one that is not full", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func ask(rule, key string, requests uint32, unit time.Duration) Ask {
	return Ask{Limit: Limit{Policy: "shop/limits", Rule: rule, Requests: requests, Unit: unit}, Key: key}
}

// All limits are asked; if one refuses, the others have lost nothing.
func TestAllOrNothing(t *testing.T) {
	l, now := NewLocal(LocalConfig{Start: start()}), start()
	asks := []Ask{ask("wide", "", 10, time.Minute), ask("narrow", "x", 2, time.Minute), ask("middle", "", 5, time.Minute)}
	for i := range 50 {
		vs, ok := l.AllowAll(asks, now, nil)
		if len(vs) != 3 || vs[0].Rule != "wide" || vs[1].Rule != "narrow" || vs[2].Rule != "middle" {
			t.Fatalf("verdicts: %+v", vs)
		}
		if want := i < 2; ok != want || vs[1].OK != want || !vs[0].OK || !vs[2].OK {
			t.Errorf("request %d: ok %v: %+v", i, ok, vs)
		}
	}
	if got := allowed(l, asks[0].Limit, "", now, 100); got != 8 {
		t.Errorf("wide has %d left, want 8", got)
	}
	l.Return(asks[:1])
	if got := allowed(l, asks[0].Limit, "", now, 100); got != 1 {
		t.Errorf("%d after one was given back, want 1", got)
	}
}

// Many limits at once take what they should however requests meet.
func TestConcurrent(t *testing.T) {
	l, now := NewLocal(LocalConfig{Start: start(), MaxKeys: 64}), start()
	asks := make([][]Ask, 8)
	for i := range asks {
		asks[i] = []Ask{ask("all", "", 500, time.Hour), ask("each", fmt.Sprint(i), 100, time.Hour), ask("pair", fmt.Sprint(i/2), 1000, time.Hour)}
		if i%2 == 1 {
			asks[i][0], asks[i][2] = asks[i][2], asks[i][0]
		}
	}
	var total atomic.Int64
	var wg sync.WaitGroup
	for i := range asks {
		wg.Go(func() {
			for range 300 {
				if _, ok := l.AllowAll(asks[i], now, nil); ok {
					total.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if total.Load() != 500 {
		t.Errorf("%d let through, want 500", total.Load())
	}
}

// The algorithm gives what counting tokens gives.
func TestLikeTokenBucket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		requests := rapid.Uint32Range(1, 20).Draw(t, "requests")
		burst := rapid.Uint32Range(1, 20).Draw(t, "burst")
		// A multiple of the requests, so that no step is rounded.
		unit := time.Duration(requests) * time.Duration(rapid.IntRange(1, 1000).Draw(t, "unit"))
		lim := limit(requests, unit, burst)
		step := int64(unit) / int64(requests)
		l, now := NewLocal(LocalConfig{Start: start()}), start()
		// In units of one token's time.
		tokens := int64(burst) * step
		for range 50 {
			wait := rapid.Int64Range(0, 3*step).Draw(t, "wait")
			now = now.Add(time.Duration(wait))
			tokens = min(tokens+wait, int64(burst)*step)
			want := tokens >= step
			if want {
				tokens -= step
			}
			v := l.Allow(lim, "", now)
			if v.OK != want {
				t.Fatalf("let through: %v, want %v", v.OK, want)
			}
			if left := tokens / step; v.Remaining != uint64(left) && want {
				t.Fatalf("remaining %d, want %d", v.Remaining, left)
			}
			if !want && v.RetryAfter != time.Duration(step-tokens) {
				t.Fatalf("retry after %d, want %d", v.RetryAfter, step-tokens)
			}
		}
	})
}

func TestNoAllocation(t *testing.T) {
	l, now := NewLocal(LocalConfig{Start: start(), Metrics: NewMetrics(prometheus.NewRegistry())}), start()
	lim := limit(1000, time.Second, 0)
	asks := []Ask{ask("all", "", 1000, time.Second), ask("each", "k", 1000, time.Second)}
	buf := make([]Verdict, 0, 4)
	l.Allow(lim, "k", now)
	l.AllowAll(asks, now, buf)
	if n := testing.AllocsPerRun(100, func() { l.Allow(lim, "k", now) }); n != 0 {
		t.Errorf("Allow allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { l.AllowAll(asks, now, buf) }); n != 0 {
		t.Errorf("AllowAll allocates %v times", n)
	}
}
