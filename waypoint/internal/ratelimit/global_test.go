package ratelimit

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rlspb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/internal/guard"
)

// grpcCaller calls over a connection of grpc-go.
type grpcCaller struct{ conn *grpc.ClientConn }

var _ Caller = grpcCaller{}

func (c grpcCaller) Unary(ctx context.Context, _ *waypoint.BackendRef, method string, request []byte, timeout time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var answer []byte
	err := c.conn.Invoke(ctx, method, request, &answer, grpc.ForceCodecV2(rawCodec{}))
	return answer, err
}

// rawCodec passes messages as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// service counts like a rate limit service: by descriptor, with the override as
// the limit, and also what it refuses.
type service struct {
	rlspb.UnimplementedRateLimitServiceServer
	mu       sync.Mutex
	counts   map[string]uint32
	requests []*rlspb.RateLimitRequest
	block    chan struct{}
}

func (s *service) ShouldRateLimit(_ context.Context, req *rlspb.RateLimitRequest) (*rlspb.RateLimitResponse, error) {
	if s.block != nil {
		<-s.block // and not until ctx ends: the call's deadline is the client's to keep
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, req)
	out := &rlspb.RateLimitResponse{OverallCode: rlspb.RateLimitResponse_OK, ResponseHeadersToAdd: []*corepb.HeaderValue{{Key: "X-Counted-By", Value: "rls"}}}
	for _, d := range req.GetDescriptors() {
		key := req.GetDomain()
		for _, e := range d.GetEntries() {
			key += "|" + e.GetKey() + "=" + e.GetValue()
		}
		s.counts[key]++
		most := d.GetLimit().GetRequestsPerUnit()
		st := &rlspb.RateLimitResponse_DescriptorStatus{
			Code:               rlspb.RateLimitResponse_OK,
			CurrentLimit:       &rlspb.RateLimitResponse_RateLimit{RequestsPerUnit: most, Unit: rlspb.RateLimitResponse_RateLimit_MINUTE},
			DurationUntilReset: durationpb.New(42 * time.Second),
		}
		if s.counts[key] > most {
			st.Code, out.OverallCode = rlspb.RateLimitResponse_OVER_LIMIT, rlspb.RateLimitResponse_OVER_LIMIT
		} else {
			st.LimitRemaining = most - s.counts[key]
		}
		out.Statuses = append(out.Statuses, st)
	}
	return out, nil
}

func serve(t *testing.T, s *service) grpcCaller {
	t.Helper()
	s.counts = make(map[string]uint32)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	rlspb.RegisterRateLimitServiceServer(srv, s)
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(lis) }()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); srv.Stop(); <-done })
	return grpcCaller{conn}
}

func globalAsk(rule string, requests uint32, global *Global, entries ...Entry) Ask {
	return Ask{Limit: Limit{Policy: "shop/limits", Rule: rule, Requests: requests, Unit: time.Minute}, Global: global, Entries: entries}
}

func rls(domain string) *Global {
	return &Global{Backend: &waypoint.BackendRef{Service: "infra/rls.infra.svc.cluster.local", Port: 8081}, Domain: domain, Timeout: 30 * time.Second}
}

// Two limits of a service are one call; the answer's numbers become headers; what
// it refuses is given back here.
func TestGlobal(t *testing.T) {
	s := &service{}
	l, now := New(Config{Caller: serve(t, s), Start: start()}), start()
	g := rls("shop")
	asks := []Ask{
		globalAsk("wide", 10, g, Entry{"policy", "shop/limits"}, Entry{"rule", "wide"}),
		ask("local", "", 5, time.Minute),
		globalAsk("narrow", 2, g, Entry{"policy", "shop/limits"}, Entry{"rule", "narrow"}, Entry{"header:x", "ümlaut\xff"}),
	}
	for i := range 2 {
		if out := l.Check(t.Context(), asks, now, nil); !out.OK || len(out.Verdicts) != 3 {
			t.Fatalf("request %d: %+v", i, out)
		}
	}
	out := l.Check(t.Context(), asks, now, nil)
	if out.OK || out.Status != 429 || out.Rule != "narrow" || !strings.Contains(out.Reason, "shop/limits/narrow of 2 requests in 1m") {
		t.Errorf("third: %+v", out)
	}
	var f message.Fields
	out.Headers(&f)
	want := message.Fields{
		{Name: "ratelimit-policy", Value: `"shop/limits/local";q=5;w=60, "shop/limits/wide";q=10;w=60, "shop/limits/narrow";q=2;w=60`},
		{Name: "ratelimit", Value: `"shop/limits/narrow";r=0;t=42`},
		{Name: "retry-after", Value: "42"},
		{Name: "x-counted-by", Value: "rls"},
	}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Error(diff)
	}
	if got := allowed(l.local, asks[1].Limit, "", now, 100); got != 3 {
		t.Errorf("the local limit has %d left, want 3: the third request was refused", got)
	}
	if n := len(s.requests); n != 3 {
		t.Errorf("%d calls for 3 requests", n)
	}
	d := s.requests[0].GetDescriptors()[1]
	if d.GetEntries()[2].GetValue() != "ümlaut!" || d.GetLimit().GetRequestsPerUnit() != 2 || d.GetLimit().GetUnit().String() != "MINUTE" {
		t.Errorf("descriptor: %v", d)
	}
}

// A request that a local limit refuses is not counted anywhere.
func TestLocalFirst(t *testing.T) {
	s := &service{}
	l, now := New(Config{Caller: serve(t, s), Start: start()}), start()
	asks := []Ask{globalAsk("g", 10, rls("shop"), Entry{"k", "v"}), ask("local", "", 1, time.Minute)}
	l.Check(t.Context(), asks, now, nil)
	if out := l.Check(t.Context(), asks, now, nil); out.OK || out.Rule != "local" || out.Status != 429 {
		t.Errorf("%+v", out)
	}
	if len(s.requests) != 1 {
		t.Errorf("%d calls, want 1", len(s.requests))
	}
}

// away is a service that answers with an error, or with what is no answer.
type away struct {
	answer []byte
	err    error
	calls  int
}

func (a *away) Unary(context.Context, *waypoint.BackendRef, string, []byte, time.Duration) ([]byte, error) {
	a.calls++
	return a.answer, a.err
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A service that cannot be asked: closed, or open where that is said, counted and
// named.
func TestAway(t *testing.T) {
	for _, c := range []struct {
		name    string
		caller  Caller
		invalid string
		outcome string
	}{
		{"refused", &away{err: errors.New("connection refused")}, "", "unavailable"},
		{"late", &away{err: context.DeadlineExceeded}, "", "timeout"},
		{"not protobuf", &away{answer: []byte{0xff, 0xff}}, "", "malformed"},
		{"nothing", &away{}, "", "malformed"},
		{"undecided", &away{answer: encode(t, &rlspb.RateLimitResponse{OverallCode: 7})}, "", "malformed"},
		{"huge", &away{answer: make([]byte, maxAnswer+1)}, "", "malformed"},
		{"no caller", nil, "", "unavailable"},
		{"invalid reference", &away{}, "Service infra/rls is not there", "unavailable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := prometheus.NewRegistry()
			l := New(Config{Caller: c.caller, Start: start(), Registerer: m})
			g := rls("shop")
			g.Backend.Invalid = c.invalid
			asks := []Ask{ask("local", "", 1, time.Minute), globalAsk("g", 1, g, Entry{"k", "v"})}
			out := l.Check(t.Context(), asks, start(), nil)
			if out.OK || out.Status != 503 || out.Policy != "shop/limits" || out.Rule != "g" ||
				!strings.Contains(out.Reason, "shop/limits/g") || !strings.Contains(out.Reason, "infra/rls.infra.svc.cluster.local") {
				t.Errorf("closed: %+v", out)
			}
			if got := testutil.ToFloat64(l.metrics.calls.WithLabelValues(g.Backend.GetService(), c.outcome)); got != 1 {
				t.Errorf("%v calls counted as %s", got, c.outcome)
			}
			if got := testutil.ToFloat64(l.metrics.requests.WithLabelValues("shop/limits", "g", outcomeFailed)); got != 1 {
				t.Errorf("%v counted as failed", got)
			}
			var f message.Fields
			if out.Headers(&f); f.Has("retry-after") {
				t.Errorf("a 503 says Retry-After: %v", f)
			}
			// The local token was given back.
			g.FailOpen = true
			if out = l.Check(t.Context(), asks, start(), nil); !out.OK {
				t.Errorf("open: %+v", out)
			}
			if got := testutil.ToFloat64(l.metrics.requests.WithLabelValues("shop/limits", "g", outcomeFailedOpen)); got != 1 {
				t.Errorf("%v counted as failed_open", got)
			}
		})
	}
}

// A service that does not answer in time is away.
func TestSlow(t *testing.T) {
	s := &service{block: make(chan struct{})}
	caller := serve(t, s)
	defer close(s.block)
	l := New(Config{Caller: caller, Start: start(), Registerer: prometheus.NewRegistry()})
	g := rls("shop")
	g.Timeout = 10 * time.Millisecond
	if out := l.Check(t.Context(), []Ask{globalAsk("g", 1, g, Entry{"k", "v"})}, start(), nil); out.OK || out.Status != 503 {
		t.Errorf("%+v", out)
	}
	if got := testutil.ToFloat64(l.metrics.calls.WithLabelValues(g.Backend.GetService(), "timeout")); got != 1 {
		t.Errorf("%v calls counted as late", got)
	}
}

// Calls are made in the order of the limits and end with the first refusal.
func TestGroups(t *testing.T) {
	over := &away{answer: encode(t, &rlspb.RateLimitResponse{OverallCode: rlspb.RateLimitResponse_OVER_LIMIT})}
	l := New(Config{Caller: over, Start: start()})
	asks := []Ask{globalAsk("a", 1, rls("one")), globalAsk("b", 1, rls("two")), globalAsk("c", 1, rls("one"))}
	if gs := groups(asks); len(gs) != 2 || len(gs[0].asks) != 2 || gs[0].asks[1].Limit.Rule != "c" {
		t.Errorf("%d groups", len(gs))
	}
	// Nothing says which of them is exceeded: the first stands for it.
	out := l.Check(t.Context(), asks, start(), nil)
	if out.OK || out.Status != 429 || out.Rule != "a" || over.calls != 1 {
		t.Errorf("%d calls: %+v", over.calls, out)
	}
}

func TestAnswers(t *testing.T) {
	const (
		ok   = rlspb.RateLimitResponse_OK
		over = rlspb.RateLimitResponse_OVER_LIMIT
	)
	status := func(code rlspb.RateLimitResponse_Code) *rlspb.RateLimitResponse_DescriptorStatus {
		return &rlspb.RateLimitResponse_DescriptorStatus{Code: code}
	}
	two := []*Ask{{Limit: Limit{Policy: "p", Rule: "a"}}, {Limit: Limit{Policy: "p", Rule: "b"}}}
	for _, c := range []struct {
		name string
		in   *rlspb.RateLimitResponse
		ok   bool
		each [2]bool
	}{
		{"ok", &rlspb.RateLimitResponse{OverallCode: ok}, true, [2]bool{true, true}},
		{"one is over", &rlspb.RateLimitResponse{OverallCode: over, Statuses: []*rlspb.RateLimitResponse_DescriptorStatus{status(ok), status(over)}}, false, [2]bool{true, false}},
		{"over, and all are fine", &rlspb.RateLimitResponse{OverallCode: over, Statuses: []*rlspb.RateLimitResponse_DescriptorStatus{status(ok), status(ok)}}, false, [2]bool{false, true}},
		{"ok, but one is over", &rlspb.RateLimitResponse{OverallCode: ok, Statuses: []*rlspb.RateLimitResponse_DescriptorStatus{status(ok), status(over)}}, false, [2]bool{true, false}},
		{"ok, but one that was not asked for is over", &rlspb.RateLimitResponse{OverallCode: ok, Statuses: []*rlspb.RateLimitResponse_DescriptorStatus{status(ok), status(ok), status(over)}}, false, [2]bool{false, true}},
		{"too few statuses", &rlspb.RateLimitResponse{OverallCode: over, Statuses: []*rlspb.RateLimitResponse_DescriptorStatus{status(over)}}, false, [2]bool{false, true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := parse(encode(t, c.in), two, func(guard.Fault) {})
			if err != nil || a.ok != c.ok || a.verdicts[0].OK != c.each[0] || a.verdicts[1].OK != c.each[1] {
				t.Errorf("%+v, %v", a, err)
			}
		})
	}
}

// A rate limit service cannot forge messages, nor say nonsense about time.
func TestHostileAnswer(t *testing.T) {
	ignored := map[guard.Fault]int{}
	headers := []*corepb.HeaderValue{
		{Key: "X-Fine", Value: "1"},
		{Key: "x-raw", RawValue: []byte("2")},
		{Key: ":path", Value: "/admin"},
		{Key: "host", Value: "evil"},
		{Key: "content-length", Value: "0"},
		{Key: "transfer-encoding", Value: "chunked"},
		{Key: "x-split", Value: "a\r\nset-cookie: b"},
		{Key: "", Value: "a"},
	}
	raw := encode(t, &rlspb.RateLimitResponse{
		OverallCode: rlspb.RateLimitResponse_OVER_LIMIT, RequestHeadersToAdd: headers, ResponseHeadersToAdd: headers, RawBody: make([]byte, maxBody+1),
		Statuses: []*rlspb.RateLimitResponse_DescriptorStatus{
			{Code: rlspb.RateLimitResponse_OVER_LIMIT, DurationUntilReset: &durationpb.Duration{Seconds: 1 << 62}, CurrentLimit: &rlspb.RateLimitResponse_RateLimit{RequestsPerUnit: 1, Unit: 99}},
			{Code: rlspb.RateLimitResponse_OVER_LIMIT, DurationUntilReset: &durationpb.Duration{Seconds: -5}},
		},
	})
	a, err := parse(raw, []*Ask{{}, {}}, func(f guard.Fault) { ignored[f]++ })
	if err != nil {
		t.Fatal(err)
	}
	fine := message.Fields{{Name: "x-fine", Value: "1"}, {Name: "x-raw", Value: "2"}}
	if diff := cmp.Diff(fine, a.request) + cmp.Diff(fine, a.response); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[guard.Fault]int{guard.Pseudo: 4, guard.Connection: 4, guard.BadValue: 2, guard.BadName: 2}, ignored); diff != "" {
		t.Error(diff)
	}
	if a.body != nil || a.verdicts[0].RetryAfter != maxWindow || a.verdicts[1].RetryAfter != 0 || a.verdicts[0].Window != 0 {
		t.Errorf("%d bytes of body; %+v", len(a.body), a.verdicts)
	}
}

func TestOverride(t *testing.T) {
	for _, c := range []struct {
		requests uint32
		unit     time.Duration
		want     string
	}{
		{0, time.Second, "none"},
		{5, 0, "none"},
		{5, time.Second, "5 SECOND 0"},
		{5, time.Minute, "5 MINUTE 0"},
		{5, 24 * time.Hour, "5 DAY 0"},
		{5, 90 * time.Second, "5 SECOND 90"},
		{5, 2 * time.Hour, "5 HOUR 2"},
		{10, 100 * time.Millisecond, "100 SECOND 0"},
		{10, 1500 * time.Millisecond, "13 SECOND 2"},
	} {
		got := "none"
		if o := override(&Limit{Requests: c.requests, Unit: c.unit}); o != nil {
			got = strings.Join([]string{itoa(o.GetRequestsPerUnit()), o.GetUnit().String(), itoa(o.GetUnitMultiplier().GetValue())}, " ")
		}
		if got != c.want {
			t.Errorf("%d in %v: %s, want %s", c.requests, c.unit, got, c.want)
		}
	}
}
