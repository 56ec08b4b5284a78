package hbone3_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

// More streams than a peer takes on one connection go on others, at once.
func TestPoolGoesBeyondTheStreamsOfAConnection(t *testing.T) {
	const perConn, streams = 8, 60
	var dials atomic.Int64
	tn := newTunnel(t, hbone3.Config{MaxStreams: perConn}, byAuthority)
	pool := hbone3.NewPool(func(ctx context.Context, _ string) (*hbone3.ClientConn, error) {
		dials.Add(1)
		return hbone3.Dial(ctx, tn.tr, tn.addr, tn.client, hbone3.Config{MaxStreams: perConn})
	})
	defer pool.Drain(t.Context())
	var open []*hbone3.Stream
	for range streams {
		s, _, _, err := pool.Open(t.Context(), "k", hbone.Request{Authority: "parked:1"})
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
	}
	if n, least := dials.Load(), int64(streams/perConn); n < least || n > least+int64(runtime.GOMAXPROCS(0))+1 {
		t.Errorf("%d connections for %d streams", n, streams)
	}
	for _, s := range open {
		s.Reset(hbone.CodeCancel)
	}
}

// A few streams share one connection, more have one for two cores, and a further one that
// cannot be had does no harm.
func TestPoolSpreads(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	tn := newTunnel(t, hbone3.Config{}, byAuthority)
	for name, broken := range map[string]bool{"one for two cores": false, "only one to be had": true} {
		t.Run(name, func(t *testing.T) {
			var dials atomic.Int64
			pool := hbone3.NewPool(func(ctx context.Context, _ string) (*hbone3.ClientConn, error) {
				if dials.Add(1) > 1 && broken {
					return nil, errors.New("no more")
				}
				return hbone3.Dial(ctx, tn.tr, tn.addr, tn.client, hbone3.Config{})
			})
			t.Cleanup(func() { pool.Drain(context.Background()) }) // after the streams have ended
			ask := func() *hbone3.ClientConn {
				t.Helper()
				s, _, cc, err := pool.Open(t.Context(), "k", hbone.Request{Authority: "parked:1"})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { s.Reset(hbone.CodeCancel) })
				return cc
			}
			first := ask()
			if ask() != first || dials.Load() != 1 {
				t.Errorf("two streams have %d connections", dials.Load())
			}
			want := int64(4)
			if broken {
				want = 2 // and no other within the pause
			}
			testkit.Until(t, "more streams have more connections", func() bool { ask(); return dials.Load() >= want })
			for range 20 {
				ask()
			}
			if n := dials.Load(); n != want {
				t.Errorf("%d connections were tried, want %d", n, want)
			}
			if broken {
				return
			}
			pool.Retire(func(string) bool { return true })
			if ask() == first {
				t.Error("a retired connection got a stream")
			}
		})
	}
}

// On a long path few streams share a connection, also when all of them are opened at
// once and before anything is known of it.
func TestPoolSpreadsOnLongPaths(t *testing.T) {
	const streams = 30
	tn := newTunnel(t, hbone3.Config{}, byAuthority)
	nat := newRebinder(t, tn.addr)
	nat.mu.Lock()
	nat.delay = 20 * time.Millisecond
	nat.mu.Unlock()
	var dials atomic.Int64
	pool := hbone3.NewPool(func(ctx context.Context, _ string) (*hbone3.ClientConn, error) {
		dials.Add(1)
		return hbone3.Dial(ctx, tn.tr, nat.addr, tn.client, hbone3.Config{})
	})
	t.Cleanup(func() { pool.Drain(context.Background()) })
	var mu sync.Mutex
	on := make(map[*hbone3.ClientConn]int)
	var wg sync.WaitGroup
	for range streams {
		wg.Go(func() {
			s, _, cc, err := pool.Open(t.Context(), "k", hbone.Request{Authority: "parked:1"})
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { s.Reset(hbone.CodeCancel) })
			mu.Lock()
			defer mu.Unlock()
			on[cc]++
		})
	}
	wg.Wait()
	for _, n := range on {
		if n > 8 {
			t.Errorf("%d streams share a connection", n)
		}
	}
	if len(on) < streams/8 || int64(len(on)) > dials.Load() || dials.Load() > 16 {
		t.Errorf("%d connections for %d streams, %d dialled", len(on), streams, dials.Load())
	}
}
