package hbone3_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"

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

// A few streams share one connection, more share one a core, and a further one that
// cannot be had does no harm.
func TestPoolSpreads(t *testing.T) {
	tn := newTunnel(t, hbone3.Config{}, byAuthority)
	for name, broken := range map[string]bool{"one a core": false, "only one to be had": true} {
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
			want := int64(runtime.GOMAXPROCS(0))
			if broken && want > 1 {
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
