package gather

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// teller is a proxy whose streams a test writes.
type teller struct {
	flowpb.UnimplementedFlowsServer
	observe func(req *flowpb.ObserveRequest, send func(reason string, at time.Time), ctx context.Context) error
}

func (t *teller) Observe(req *flowpb.ObserveRequest, s grpc.ServerStreamingServer[flowpb.ObserveResponse]) error {
	return t.observe(req, func(reason string, at time.Time) {
		r := &flowpb.FlowRecord{Reason: reason, Start: timestamppb.New(at)}
		_ = s.Send(&flowpb.ObserveResponse{Response: &flowpb.ObserveResponse_Record{Record: r}})
	}, s.Context())
}

// serve gives the proxy, and what ends it.
func serve(name string, t *teller) (Proxy, func()) {
	// Those of proxies are behind net/http, which takes any number of pings.
	l, g := bufconn.Listen(1<<16), grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second}))
	flowpb.RegisterFlowsServer(g, t)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	return Proxy{Name: name, Dial: l.DialContext}, func() { g.Stop(); <-done }
}

// world is a Source that a test changes.
type world struct {
	mu      sync.Mutex
	proxies []Proxy
	err     error
	changed chan struct{}
}

func newWorld(p ...Proxy) *world { return &world{proxies: p, changed: make(chan struct{}, 1)} }

func (w *world) Proxies(context.Context) ([]Proxy, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.proxies), w.err
}

func (w *world) Changed(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-w.changed:
	}
}

func (w *world) become(err error, p ...Proxy) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.proxies, w.err = p, err
	w.changed <- struct{}{}
}

// heard gathers what is told, as text.
type heard struct {
	mu  sync.Mutex
	all []string
}

func (h *heard) each(t Told) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, fmt.Sprint(t.From, ":", t.Record.GetReason(), t.Problem, t.Change))
}

// take gives what was told since the last time.
func (h *heard) take() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := strings.Join(h.all, " ")
	h.all = nil
	return text
}

func broken(text string) func(context.Context) (net.Conn, error) {
	return func(context.Context) (net.Conn, error) { return nil, errors.New(text) }
}

func TestNobodyIsReached(t *testing.T) {
	for _, follow := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var h heard
			w := newWorld(Proxy{"a", broken("no way")}, Proxy{"b", broken("no way")})
			r := &Reader{Source: w, Request: &flowpb.ObserveRequest{Follow: follow}, Each: h.each, Need: true}
			var none *NoneError
			if err := r.Run(t.Context()); !errors.As(err, &none) || none.Asked != 2 {
				t.Errorf("error %v", err)
			}
			if got := h.take(); !strings.Contains(got, "a:no way") || !strings.Contains(got, "b:no way") {
				t.Errorf("told %q", got)
			}
			w.proxies = nil
			if err := r.Run(t.Context()); !errors.Is(err, ErrNoProxy) {
				t.Errorf("error %v", err)
			}
			w.err = errors.New("no list")
			if err := r.Run(t.Context()); err == nil || err.Error() != "no list" {
				t.Errorf("error %v", err)
			}
			w.err, r.Need = nil, false
			if !follow {
				if err := r.Run(t.Context()); err != nil {
					t.Errorf("error %v", err)
				}
			}
		})
	}
}

// A proxy that cannot be reached is named once, however often it is tried, and again
// after it could be; one that is silent is left some time after it is gone.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		left := make(chan struct{})
		silent, stopSilent := serve("silent", &teller{observe: func(_ *flowpb.ObserveRequest, send func(string, time.Time), ctx context.Context) error {
			send("hello", began)
			<-ctx.Done()
			close(left)
			return nil
		}})
		defer stopSilent()
		var since []time.Time
		flaky, stopFlaky := serve("flaky", &teller{observe: func(req *flowpb.ObserveRequest, send func(string, time.Time), ctx context.Context) error {
			since = append(since, req.GetSince().AsTime())
			send("one", began.Add(time.Minute))
			<-ctx.Done()
			return nil
		}})
		defer stopFlaky()
		var mu sync.Mutex
		var conns []net.Conn
		down := true
		dial := flaky.Dial
		flaky.Dial = func(ctx context.Context) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			if down {
				return nil, errors.New("down")
			}
			c, err := dial(ctx)
			conns = append(conns, c)
			return c, err
		}
		var h heard
		w := newWorld(silent, flaky)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		r := &Reader{Source: w, Request: &flowpb.ObserveRequest{Follow: true}, Each: h.each, Need: true}
		go func() { done <- r.Run(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := h.take(); got != "flaky:down silent:hello" && got != "silent:hello flaky:down" {
			t.Errorf("told %q", got)
		}
		mu.Lock()
		down = false
		mu.Unlock()
		time.Sleep(maxRetry)
		synctest.Wait()
		if got := h.take(); got != "flaky:one" {
			t.Errorf("told %q", got)
		}
		// Broken and up again at once: no word, and nothing twice.
		conns[0].Close()
		time.Sleep(retry)
		synctest.Wait()
		if got := h.take(); got != "" || len(since) != 2 || !since[0].Equal(began) || !since[1].Equal(began.Add(time.Minute-overlap)) {
			t.Errorf("told %q, asked since %v", got, since)
		}
		mu.Lock()
		down = true
		mu.Unlock()
		conns[1].Close()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := h.take(); got != "flaky:down" {
			t.Errorf("told %q", got)
		}

		w.become(errors.New("no list"))
		synctest.Wait()
		w.become(errors.New("no list"))
		synctest.Wait()
		w.become(nil, flaky)
		synctest.Wait()
		if got := h.take(); got != "the list of proxies:no list silent:is gone" {
			t.Errorf("told %q", got)
		}
		time.Sleep(grace - time.Second)
		synctest.Wait()
		if closed(left) {
			t.Error("left too soon")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !closed(left) {
			t.Error("a proxy that is gone was never left")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestSeen(t *testing.T) {
	var s seen
	at := func(i int) *flowpb.FlowRecord {
		return &flowpb.FlowRecord{Start: timestamppb.New(time.Unix(0, int64(i)))}
	}
	for i := range 3 * remembered {
		if !s.add(at(i)) {
			t.Fatalf("%d was never there before", i)
		}
		if i >= 10 && s.add(at(i-10)) {
			t.Fatalf("%d was forgotten at once", i-10)
		}
	}
	if n := len(s.new) + len(s.old); n > 2*remembered {
		t.Errorf("%d are kept", n)
	}
}
