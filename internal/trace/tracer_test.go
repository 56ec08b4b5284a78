package trace

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Unix(1_700_000_000, 0)

func enabled() oteltrace.Tracer { return sdktrace.NewTracerProvider().Tracer("test") }

// collector is an OTLP endpoint.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	address string
	spans   chan *tracepb.Span
	refuse  atomic.Bool
	asked   chan struct{} // holds one token once it has been asked
}

func (c *collector) Export(_ context.Context, req *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	select {
	case c.asked <- struct{}{}:
	default:
	}
	if c.refuse.Load() {
		return nil, status.Error(codes.InvalidArgument, "not today")
	}
	for _, r := range req.GetResourceSpans() {
		for _, s := range r.GetScopeSpans() {
			for _, span := range s.GetSpans() {
				c.spans <- span
			}
		}
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

// run gives a tracer that runs until stop is called or the test ends.
func run(t *testing.T, cfg Config) (tr *Tracer, stop func()) {
	t.Helper()
	tr, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
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
	return tr, stop
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
	reg := prometheus.NewRegistry()
	tr, stop := run(t, Config{Endpoint: "http://" + c.address, Resource: Resource{Service: "waypoint"}, Interval: time.Millisecond, Registerer: reg})
	f := fields("traceparent: 00-"+tid+"-"+sid+"-01", "tracestate: a=1")
	parent := Decide(Extract(f), Sampling{})
	server := tr.Start(parent, "GET", Server, now)
	client := tr.Start(server.Or(parent), "GET", Client, now.Add(time.Millisecond))
	client.Or(parent).Inject(&f)
	client.Attributes = Attributes{kind: Client, Method: "GET", Status: 404, Resend: 1}
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
	if got := SpanID(second.GetParentSpanId()).String(); got != sid {
		t.Errorf("the server's span is below %s, want the client's %s", got, sid)
	}
	if string(first.GetParentSpanId()) != string(second.GetSpanId()) {
		t.Error("the second span is not below the first")
	}
	for _, s := range []*tracepb.Span{first, second} {
		if got := TraceID(s.GetTraceId()).String(); got != tid || s.GetTraceState() != "a=1" {
			t.Errorf("trace %s, state %q", got, s.GetTraceState())
		}
	}
	if want := "00-" + tid + "-" + SpanID(first.GetSpanId()).String() + "-01"; f.Get("traceparent") != want || f.Get("tracestate") != "a=1" {
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
	if got := testutil.ToFloat64(tr.queue.exported); got != 2 {
		t.Errorf("%v exported, want 2", got)
	}
	lint(t, reg)
}

func lint(t *testing.T, g prometheus.Gatherer) {
	t.Helper()
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
	tr, _ := run(t, Config{Endpoint: c.address, Interval: time.Millisecond})
	ctx := Decide(Context{}, Sampling{Millionths: One})
	tr.Start(ctx, "GET", Server, now).End(now)
	if s := <-c.spans; len(s.GetParentSpanId()) != 0 || TraceID(s.GetTraceId()) != ctx.TraceID {
		t.Errorf("%v", s)
	}
}

// What waits when the process ends is still sent.
func TestLastSpansAreSent(t *testing.T) {
	c := collect(t)
	tr, stop := run(t, Config{Endpoint: c.address, Interval: time.Hour})
	for range 10 {
		tr.Start(Decide(Context{}, Sampling{Millionths: One}), "GET", Server, now).End(now)
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
	tr, stop := run(t, Config{Endpoint: address, Queue: 4, Batch: 2, Interval: time.Millisecond, Timeout: 50 * time.Millisecond})
	const spans = 100
	for range spans {
		tr.Start(Decide(Context{}, Sampling{Millionths: One}), "GET", Server, now).End(now)
	}
	stop()
	lost := testutil.ToFloat64(tr.queue.dropped.WithLabelValues("queue_full")) + testutil.ToFloat64(tr.queue.dropped.WithLabelValues("export_failed"))
	if lost != spans || testutil.ToFloat64(tr.queue.overflown) == 0 {
		t.Errorf("%v of %d counted as dropped", lost, spans)
	}
}

// A collector that refuses, and takes spans again later.
func TestCollectorComesBack(t *testing.T) {
	c := collect(t)
	c.refuse.Store(true)
	tr, _ := run(t, Config{Endpoint: c.address, Batch: 1, Interval: time.Millisecond})
	one := func() { tr.Start(Decide(Context{}, Sampling{Millionths: One}), "GET", Server, now).End(now) }
	one()
	<-c.asked
	c.refuse.Store(false)
	one()
	<-c.spans
	if testutil.ToFloat64(tr.queue.dropped.WithLabelValues("export_failed")) != 1 {
		t.Error("the refused span was not counted")
	}
}

func TestWithoutEndpoint(t *testing.T) {
	tr, stop := run(t, Config{})
	if tr.Enabled() || (*Tracer)(nil).Enabled() {
		t.Error("enabled")
	}
	if s := tr.Start(Decide(Context{}, Sampling{Millionths: One}), "GET", Server, now); s != nil {
		t.Error("a span for nobody")
	}
	stop()
}

func TestValidate(t *testing.T) {
	for endpoint, want := range map[string]string{
		"":                         "",
		"collector:4317":           "",
		"http://collector:4317":    "",
		"https://[::1]:4317/":      "",
		"collector":                "want host:port",
		"ftp://collector:1":        "want host:port, http",
		"http://collector:1/v1":    "want host:port, http",
		"http://collector":         "want host:port",
		":4317":                    "want host:port",
		"http://user@collector:99": "want host:port, http",
	} {
		err := Config{Endpoint: endpoint}.Validate()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", endpoint, err, want)
		}
	}
}
