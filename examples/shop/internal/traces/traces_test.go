package traces

import (
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/trace/otlp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The spans that waypoints make of one trace are shown as a tree.
func TestTraceAcrossServices(t *testing.T) {
	c, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// Those who send are stopped first.
	collecting, stop := context.WithCancel(t.Context())
	ctx, cancel := context.WithCancel(collecting)
	done, collected := make(chan error, 2), make(chan error, 1)
	go func() { collected <- c.Run(collecting) }()
	tracer := func(service string) *trace.Tracer {
		tr, err := otlp.New(trace.Config{Endpoint: c.Addr().String(), Resource: trace.Resource{Service: service}, Interval: time.Millisecond}, otlp.NewMetrics(prometheus.NewRegistry()))
		if err != nil {
			t.Fatal(err)
		}
		go func() { done <- tr.Run(ctx) }()
		return tr
	}
	defer func() {
		cancel()
		errs := errors.Join(<-done, <-done)
		stop()
		if err := errors.Join(errs, <-collected); err != nil {
			t.Error(err)
		}
	}()
	web, cart := tracer("waypoint-web"), tracer("waypoint-cart")
	at := func(ms int) time.Time {
		return time.Unix(1_700_000_000, 0).Add(time.Duration(ms) * time.Millisecond)
	}
	began := trace.Decide(trace.Context{}, trace.Sampling{Millionths: trace.One})
	server := web.Start(began, "GET shop/web", trace.Server, at(0))
	first := web.Start(server.Or(began), "GET", trace.Client, at(1))
	first.Attributes.Status = 503
	first.End(at(3))
	second := web.Start(server.Or(began), "GET", trace.Client, at(4))
	second.Attributes.Resend, second.Attributes.Status, second.Attributes.Backend = 1, 200, "shop/cart"
	inner := cart.Start(second.Or(began), "GET shop/cart", trace.Server, at(5))
	inner.Attributes.Status, inner.Attributes.Route = 200, "HTTPRoute shop/cart"
	inner.End(at(8))
	second.End(at(9))
	server.Event(at(3), "retry")
	server.Attributes.Status, server.Attributes.Retries = 200, 1
	server.Attributes.Method, server.Attributes.Path = "GET", "/buy"
	server.Attributes.SourceWorkload, server.Attributes.DestinationWorkload = "shop/load-1", "shop/web-1"
	server.End(at(10))

	spans, err := c.Await(ctx, began.TraceID.String(), func(s []Span) bool { return len(s) == 4 })
	if err != nil {
		t.Fatal(err)
	}
	want := "trace " + began.TraceID.String() + `, 10ms, 4 spans
└─ waypoint-web  GET /buy  shop/load-1 → shop/web-1  10ms  200  retries 1  (retry)
   ├─ waypoint-web  GET  2ms  503  error 503  FAILED
   └─ waypoint-web  GET → shop/cart  5ms  200  try again 1
      └─ waypoint-cart  GET shop/cart  3ms  200  HTTPRoute shop/cart
`
	if diff := cmp.Diff(want, Tree(spans)); diff != "" {
		t.Error(diff)
	}
	for path, body := range map[string]string{"/": began.TraceID.String() + "\n", "/trace/" + began.TraceID.String(): want, "/trace/x": "no span of this trace has come\n"} {
		rec := httptest.NewRecorder()
		c.Handler().ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
		if got, _ := io.ReadAll(rec.Body); string(got) != body {
			t.Errorf("%s: %q, want %q", path, got, body)
		}
	}
	short, cancelShort := context.WithCancel(ctx)
	cancelShort()
	if _, err := c.Await(short, "x", func([]Span) bool { return false }); err == nil {
		t.Error("an unknown trace was found")
	}
}

func TestTreeOfOddSpans(t *testing.T) {
	at := time.Unix(0, 0)
	if Tree(nil) != "" {
		t.Error("a tree of nothing")
	}
	got := Tree([]Span{
		{Trace: "t", ID: "a", Parent: "elsewhere", Service: "s", Name: "orphan", Start: at, End: at},
		{Trace: "t", ID: "b", Parent: "b", Service: "s", Name: "circle", Start: at, End: at},
	})
	if want := "trace t, 0s, 2 spans\n└─ s  orphan  0s\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestTracesAreBounded(t *testing.T) {
	c := &Collector{traces: make(map[string][]Span)}
	for i := range maxTraces + 10 {
		c.keep(Span{Trace: string(rune(i + 1000))})
	}
	if len(c.traces) != maxTraces || len(c.order) != maxTraces {
		t.Errorf("%d traces are kept", len(c.traces))
	}
}
