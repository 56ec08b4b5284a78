package otlp

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/internal/testkit/spans"
	"github.com/ambit-mesh/ambit/internal/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	tid = "4bf92f3577b34da6a3ce929d0e0e4736"
	sid = "00f067aa0ba902b7"
)

var now = time.Unix(1_700_000_000, 0)

// collector is an OTLP endpoint.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	address string
	spans   chan *tracepb.Span
	refuse  atomic.Bool
	asked   chan struct{} // holds one token once it has been asked
}

func (c *collector) Export(_ context.Context, req *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	refuse := c.refuse.Load() // before whoever waits for asked changes it
	select {
	case c.asked <- struct{}{}:
	default:
	}
	if refuse {
		return nil, status.Error(codes.InvalidArgument, "not today")
	}
	for _, s := range spans.Of(req) {
		c.spans <- s.Span
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

func collect(t *testing.T) *collector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{address: l.Addr().String(), spans: make(chan *tracepb.Span, 1000), asked: make(chan struct{}, 1)}
	srv := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(srv, c)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		srv.Stop()
		<-done
	})
	return c
}

// run gives a tracer that runs until stop is called or the test ends, and its
// queue.
func run(t *testing.T, cfg trace.Config) (tr *trace.Tracer, q *queue, stop func()) {
	t.Helper()
	cfg = cfg.WithDefaults()
	client, err := dialed(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return runWith(t, cfg, client, NewMetrics(prometheus.NewRegistry()))
}

func runWith(t *testing.T, cfg trace.Config, client otlptrace.Client, m *Metrics) (tr *trace.Tracer, q *queue, stop func()) {
	t.Helper()
	b := newBackend(cfg.WithDefaults(), client, m)
	tr = trace.NewTracer(b)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tr.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return tr, b.queue, stop
}

func attributes(kv []*commonpb.KeyValue) map[string]string {
	m := map[string]string{}
	for _, a := range kv {
		v := a.GetValue()
		switch v.GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			m[a.GetKey()] = v.GetStringValue()
		default:
			m[a.GetKey()] = v.String()
		}
	}
	return m
}

// A request that a waypoint sends on makes two spans, one below the other, below
// the client's.
func TestSpansReachTheCollector(t *testing.T) {
	c := collect(t)
	tr, q, stop := run(t, trace.Config{Endpoint: "http://" + c.address, Resource: trace.Resource{Service: "waypoint"}, Interval: time.Millisecond})
	f := message.Fields{{Name: "traceparent", Value: "00-" + tid + "-" + sid + "-01"}, {Name: "tracestate", Value: "a=1"}}
	parent := trace.Decide(trace.Extract(f), trace.Sampling{})
	server := tr.Start(parent, "GET", trace.Server, now)
	client := tr.Start(server.Or(parent), "GET", trace.Client, now.Add(time.Millisecond))
	client.Or(parent).Inject(&f)
	client.Attributes = trace.Attributes{Kind: trace.Client, Method: "GET", Status: 404, Resend: 1}
	client.End(now.Add(2 * time.Millisecond))
	server.Attributes.Method, server.Attributes.Status, server.Attributes.Route, server.Attributes.Path = "BREW", 404, "HTTPRoute shop/web", "/pot"
	server.SetName("BREW shop/web")
	server.Event(now.Add(time.Millisecond), "retry")
	server.End(now.Add(3 * time.Millisecond))

	first, second := <-c.spans, <-c.spans
	stop()
	if first.GetName() != "GET" || second.GetName() != "BREW shop/web" {
		t.Fatalf("names %q, %q", first.GetName(), second.GetName())
	}
	if got := trace.SpanID(second.GetParentSpanId()).String(); got != sid {
		t.Errorf("the server's span is below %s, want the client's %s", got, sid)
	}
	if string(first.GetParentSpanId()) != string(second.GetSpanId()) {
		t.Error("the second span is not below the first")
	}
	for _, s := range []*tracepb.Span{first, second} {
		if got := trace.TraceID(s.GetTraceId()).String(); got != tid || s.GetTraceState() != "a=1" {
			t.Errorf("trace %s, state %q", got, s.GetTraceState())
		}
	}
	if want := "00-" + tid + "-" + trace.SpanID(first.GetSpanId()).String() + "-01"; f.Get("traceparent") != want || f.Get("tracestate") != "a=1" {
		t.Errorf("sent on: %v, want %s", f, want)
	}
	if first.GetStatus().GetCode() != tracepb.Status_STATUS_CODE_ERROR || second.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR {
		t.Error("404 is an error to a client and none to a server")
	}
	want := map[string]string{
		"http.request.method": "_OTHER", "http.request.method_original": "BREW", "url.path": "/pot",
		"http.response.status_code": "int_value:404", "ambit.route": "HTTPRoute shop/web",
	}
	if diff := cmp.Diff(want, attributes(second.GetAttributes())); diff != "" {
		t.Error(diff)
	}
	if len(second.GetEvents()) != 1 || second.GetEndTimeUnixNano()-second.GetStartTimeUnixNano() != 3_000_000 {
		t.Errorf("%v", second)
	}
	if got := testutil.ToFloat64(q.exported); got != 2 {
		t.Errorf("%v exported, want 2", got)
	}
}

func TestMetricNames(t *testing.T) {
	g := prometheus.NewRegistry()
	NewMetrics(g).dropped.WithLabelValues("queue_full")
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

func TestATraceThatBeginsHereHasNoParent(t *testing.T) {
	c := collect(t)
	tr, _, _ := run(t, trace.Config{Endpoint: c.address, Interval: time.Millisecond})
	ctx := trace.Decide(trace.Context{}, trace.Sampling{Millionths: trace.One})
	tr.Start(ctx, "GET", trace.Server, now).End(now)
	if s := <-c.spans; len(s.GetParentSpanId()) != 0 || trace.TraceID(s.GetTraceId()) != ctx.TraceID {
		t.Errorf("%v", s)
	}
}

// What waits when the process ends is still sent.
func TestLastSpansAreSent(t *testing.T) {
	c := collect(t)
	tr, _, stop := run(t, trace.Config{Endpoint: c.address, Interval: time.Hour})
	for range 10 {
		tr.Start(trace.Decide(trace.Context{}, trace.Sampling{Millionths: trace.One}), "GET", trace.Server, now).End(now)
	}
	stop()
	if len(c.spans) != 10 {
		t.Errorf("%d spans came, want 10", len(c.spans))
	}
}

// A collector that is away costs spans, and nothing else.
func TestCollectorAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	tr, q, stop := run(t, trace.Config{Endpoint: address, Queue: 4, Batch: 2, Interval: time.Millisecond, Timeout: 50 * time.Millisecond})
	const spans = 100
	for range spans {
		tr.Start(trace.Decide(trace.Context{}, trace.Sampling{Millionths: trace.One}), "GET", trace.Server, now).End(now)
	}
	stop()
	lost := testutil.ToFloat64(q.dropped.WithLabelValues("queue_full")) + testutil.ToFloat64(q.dropped.WithLabelValues("export_failed"))
	if lost != spans || testutil.ToFloat64(q.overflown) == 0 {
		t.Errorf("%v of %d counted as dropped", lost, spans)
	}
}

// A collector that refuses, and takes spans again later.
func TestCollectorComesBack(t *testing.T) {
	c := collect(t)
	c.refuse.Store(true)
	tr, q, _ := run(t, trace.Config{Endpoint: c.address, Batch: 1, Interval: time.Millisecond})
	one := func() {
		tr.Start(trace.Decide(trace.Context{}, trace.Sampling{Millionths: trace.One}), "GET", trace.Server, now).End(now)
	}
	one()
	<-c.asked
	c.refuse.Store(false)
	one()
	<-c.spans
	if testutil.ToFloat64(q.dropped.WithLabelValues("export_failed")) != 1 {
		t.Error("the refused span was not counted")
	}
}

func TestWithoutEndpoint(t *testing.T) {
	tr, err := New(trace.Config{}, NewMetrics(prometheus.NewRegistry()))
	if err != nil || tr.Enabled() || (*trace.Tracer)(nil).Enabled() {
		t.Error("enabled", err)
	}
	if s := tr.Start(trace.Decide(trace.Context{}, trace.Sampling{Millionths: trace.One}), "GET", trace.Server, now); s != nil {
		t.Error("a span for nobody")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tr.Run(ctx); err != nil {
		t.Error(err)
	}
	if _, err := New(trace.Config{Endpoint: "nonsense"}, NewMetrics(prometheus.NewRegistry())); err == nil {
		t.Error("an endpoint that is none")
	}
}
