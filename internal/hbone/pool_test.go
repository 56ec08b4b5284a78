package hbone_test

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/hbonetest"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

var errDial = errors.New("no route")

// poolOf makes a pool whose dials go through before.
func (tn *tunnel) poolOf(t testing.TB, cfg hbone.Config, before func(ctx context.Context, key string) error) (*hbone.Pool[string], *atomic.Int32) {
	var dials atomic.Int32
	p := hbone.NewPool(func(ctx context.Context, key string) (*hbone.ClientConn, error) {
		dials.Add(1)
		if before != nil {
			if err := before(ctx, key); err != nil {
				return nil, err
			}
		}
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", tn.addr)
		if err != nil {
			return nil, err
		}
		return hbone.NewClientConn(ctx, c, tn.client, cfg)
	}, nil)
	t.Cleanup(func() { p.Drain(ended()) })
	return p, &dials
}

func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

var parkedRequest = hbone.Request{Authority: "parked:1"}

func TestPoolDialFailureReachesEveryWaiter(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, byAuthority)
	release := make(chan struct{})
	var fail atomic.Bool
	fail.Store(true)
	p, dials := tn.poolOf(t, hbone.Config{}, func(context.Context, string) error {
		<-release
		if fail.Load() {
			return errDial
		}
		return nil
	})
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if _, _, _, err := p.Open(t.Context(), "a", parkedRequest); !errors.Is(err, errDial) {
				t.Errorf("got %v", err)
			}
		})
	}
	testkit.Until(t, "a dial begins", func() bool { return dials.Load() > 0 })
	close(release)
	wg.Wait()
	fail.Store(false)
	if _, _, _, err := p.Open(t.Context(), "a", parkedRequest); err != nil {
		t.Fatalf("after the failure: %v", err)
	}
}

func TestPoolWaitersLeaveWithTheirContext(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, byAuthority)
	release, dialing := make(chan struct{}), make(chan struct{}, 1)
	p, _ := tn.poolOf(t, hbone.Config{}, func(_ context.Context, key string) error {
		if key == "slow" {
			dialing <- struct{}{}
			<-release
		}
		return nil
	})
	opened := make(chan error, 1)
	go func() {
		_, _, _, err := p.Open(t.Context(), "slow", parkedRequest)
		opened <- err
	}()
	<-dialing
	if _, _, _, err := p.Open(ended(), "slow", parkedRequest); !errors.Is(err, context.Canceled) {
		t.Fatalf("a waiter whose context has ended: %v", err)
	}
	// Nor does one key wait for another.
	if _, _, _, err := p.Open(t.Context(), "fast", parkedRequest); err != nil {
		t.Fatal(err)
	}
	close(release)
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
}

func TestPoolRetire(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	app := echo(t)
	p, dials := tn.poolOf(t, hbone.Config{}, nil)
	addr := listen(t, func(ctx context.Context, c net.Conn) {
		if s, _, _, err := p.Open(ctx, "a", hbone.Request{Authority: app}); err == nil {
			_ = s.Splice(c)
		}
	})
	old := dial(t, addr)
	roundTrip(t, old)
	p.Retire(func(k string) bool { return k == "b" })
	roundTrip(t, dial(t, addr))
	if n := dials.Load(); n != 1 {
		t.Fatalf("%d connections after another key was retired, want 1", n)
	}
	p.Retire(func(k string) bool { return k == "a" })
	roundTrip(t, dial(t, addr))
	roundTrip(t, old)
	if n := dials.Load(); n != 2 {
		t.Fatalf("%d connections, want 2", n)
	}
}

// A connection that was being set up when its key was retired is of no use either:
// it may have been set up with what made others go.
func TestPoolRetiresWhatIsBeingSetUp(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, byAuthority)
	release, dialing := make(chan struct{}), make(chan struct{}, 4)
	p, dials := tn.poolOf(t, hbone.Config{}, func(context.Context, string) error {
		dialing <- struct{}{}
		<-release
		return nil
	})
	opened := make(chan *hbone.ClientConn, 1)
	go func() {
		_, _, cc, err := p.Open(t.Context(), "a", parkedRequest)
		if err != nil {
			t.Error(err)
		}
		opened <- cc
	}()
	<-dialing
	p.Retire(func(string) bool { return true })
	close(release)
	<-opened
	if n := dials.Load(); n != 2 {
		t.Fatalf("%d set-ups, want 2", n)
	}
	testkit.Until(t, "the retired one goes away", func() bool { return p.Len() == 1 })
}

func TestPoolDrainWaitsForStreams(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, byAuthority)
	p, _ := tn.poolOf(t, hbone.Config{}, nil)
	s, _, _, err := p.Open(t.Context(), "a", parkedRequest)
	if err != nil {
		t.Fatal(err)
	}
	drained := make(chan struct{})
	go func() {
		p.Drain(context.Background())
		close(drained)
	}()
	testkit.Until(t, "nothing new is taken", func() bool {
		s, _, _, err := p.Open(t.Context(), "a", parkedRequest)
		if err == nil {
			s.Reset(hbone.CodeCancel) // the drain had not begun yet
		}
		return errors.Is(err, hbone.ErrClosed)
	})
	select {
	case <-drained:
		t.Fatal("drained with a stream open")
	case <-s.Done():
		t.Fatal("the stream was ended")
	default:
	}
	s.Reset(hbone.CodeCancel)
	<-drained
}

func TestPoolDrainEndsWithItsContext(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, byAuthority)
	p, _ := tn.poolOf(t, hbone.Config{}, func(ctx context.Context, key string) error {
		if key == "stuck" {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	s, _, _, err := p.Open(t.Context(), "a", parkedRequest)
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() {
		_, _, _, err := p.Open(t.Context(), "stuck", parkedRequest)
		waited <- err
	}()
	p.Drain(ended())
	<-s.Done()
	if err := <-waited; err == nil {
		t.Fatal("a stream was opened on a pool that is gone")
	}
	if p.Len() != 0 {
		t.Fatal("a connection is left")
	}
}

func TestPoolOpensMoreConnectionsThanOneCanCarry(t *testing.T) {
	const limit, streams = 4, 40
	tn := newTunnel(t, hbone.Config{MaxStreams: limit}, byAuthority)
	p, dials := tn.poolOf(t, hbone.Config{MaxStreams: limit}, nil)
	var wg sync.WaitGroup
	for range streams {
		wg.Go(func() {
			if _, _, _, err := p.Open(t.Context(), "a", parkedRequest); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := int(dials.Load()); n < streams/limit || n > streams {
		t.Fatalf("%d connections for %d streams of at most %d", n, streams, limit)
	}
}

func TestPoolUsesMoreCores(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, byAuthority)
	p, _ := tn.poolOf(t, hbone.Config{}, nil)
	open := func() {
		if _, _, _, err := p.Open(t.Context(), "a", parkedRequest); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		open()
	}
	if n := p.Len(); n != 1 {
		t.Fatalf("%d connections for few streams, want 1", n)
	}
	want := min(2, runtime.GOMAXPROCS(0))
	testkit.Until(t, "another connection is used", func() bool {
		open()
		return p.Len() == want
	})
	// Those that are being left, whose streams may go on for days, count no more.
	p.Retire(func(string) bool { return true })
	for n := 0; p.Len() < 2*want; n++ {
		if n == 50 {
			t.Fatalf("%d connections for %d more streams, want %d and as many that are left", p.Len(), n, want)
		}
		open()
	}
}

// A connection that cannot be set up beside others, or takes its time, is no
// reason to fail a stream.
func TestPoolKeepsBusyConnections(t *testing.T) {
	for name, second := range map[string]func(context.Context) error{
		"failing": func(context.Context) error { return errors.New("no more") },
		"slow":    func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			tn := newTunnel(t, hbone.Config{}, byAuthority)
			var n atomic.Int32
			p, _ := tn.poolOf(t, hbone.Config{}, func(ctx context.Context, _ string) error {
				if n.Add(1) == 1 {
					return nil
				}
				return second(ctx)
			})
			for i := range 12 {
				if _, _, _, err := p.Open(t.Context(), "a", parkedRequest); err != nil {
					t.Fatalf("stream %d: %v", i, err)
				}
			}
		})
	}
}

func TestPoolGivesUpOnAPeerThatTakesNoStreams(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	tn.addr = tn.rawServer(t, func(p *hbonetest.Peer) {
		p.OK(p.Framer.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0}))
		for {
			f, err := p.Framer.ReadFrame()
			if err != nil {
				return
			}
			if h, ok := f.(*http2.MetaHeadersFrame); ok {
				_ = p.Framer.WriteRSTStream(h.StreamID, http2.ErrCodeRefusedStream)
			}
		}
	})
	p, dials := tn.poolOf(t, hbone.Config{}, nil)
	_, _, _, err := p.Open(t.Context(), "a", parkedRequest)
	if err == nil || !hbone.Unprocessed(err) {
		t.Fatalf("got %v, want that nothing was processed", err)
	}
	if n := dials.Load(); n > 12 {
		t.Fatalf("%d connections were set up for one stream", n)
	}
}

// Streams that a GOAWAY says were not looked at are opened elsewhere.
func TestPoolRetriesWhatGoAwayLeavesOut(t *testing.T) {
	for name, code := range map[string]http2.ErrCode{"draining": http2.ErrCodeNo, "failing": http2.ErrCodeInternal} {
		t.Run(name, func(t *testing.T) {
			tn := newTunnel(t, hbone.Config{}, nil)
			var first atomic.Bool
			tn.addr = tn.rawServer(t, func(p *hbonetest.Peer) {
				p.OK(p.Framer.WriteSettings())
				id := p.Request()
				if first.CompareAndSwap(false, true) {
					p.OK(p.Framer.WriteGoAway(id-1, code, nil))
				} else {
					p.OK(p.Headers(id, false, ":status", "200"))
				}
				p.Rest()
			})
			p, dials := tn.poolOf(t, hbone.Config{}, nil)
			if _, _, _, err := p.Open(t.Context(), "a", parkedRequest); err != nil {
				t.Fatal(err)
			}
			if n := dials.Load(); n != 2 {
				t.Fatalf("%d connections, want 2", n)
			}
		})
	}
}

// A stream that the peer may have acted on is not opened twice.
func TestPoolDoesNotRepeat(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	tn.addr = tn.rawServer(t, func(p *hbonetest.Peer) {
		p.OK(p.Framer.WriteSettings())
		p.Request()
		p.Conn.Close()
	})
	p, dials := tn.poolOf(t, hbone.Config{}, nil)
	_, _, _, err := p.Open(t.Context(), "a", parkedRequest)
	if err == nil || hbone.Unprocessed(err) || !strings.Contains(err.Error(), "closed by peer") || dials.Load() != 1 {
		t.Fatalf("got %v after %d set-ups", err, dials.Load())
	}
}

// Connections that end under those who open streams cost none of them an error
// that says more than "not processed", and leave nothing behind.
func TestOpenRacesTheEndOfItsConnection(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, byAuthority)
	p, _ := tn.poolOf(t, hbone.Config{}, nil)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				s, _, _, err := p.Open(t.Context(), "a", parkedRequest)
				switch {
				case err == nil:
					s.Reset(hbone.CodeCancel)
				case !hbone.Unprocessed(err):
					t.Error(err)
				}
			}
		})
	}
	for range 30 {
		sc := <-tn.conns
		sc.Drain()
	}
	close(stop)
	wg.Wait()
}
