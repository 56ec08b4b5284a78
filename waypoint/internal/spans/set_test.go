package spans

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/internal/testkit"
	"github.com/ambit-mesh/ambit/internal/testkit/spans"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/trace/otlp"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mesh is the collectors that are called.
type mesh struct {
	mu  sync.Mutex
	got []string // "<service>:<port> <metadata> <service.name> <span>"; guarded by mu
}

func (m *mesh) UnaryWith(_ context.Context, ref *waypoint.BackendRef, method string, metadata message.Fields, request []byte, _ time.Duration) ([]byte, error) {
	var req collectorpb.ExportTraceServiceRequest
	if err := proto.Unmarshal(request, &req); err != nil || method != "/opentelemetry.proto.collector.trace.v1.TraceService/Export" {
		return nil, errors.Join(err, errors.New(method))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range spans.Of(&req) {
		m.got = append(m.got, fmt.Sprintf("%s:%d %s %s %s", ref.GetService(), ref.GetPort(), metadata.Get("x-token"), s.Service, s.GetName()))
	}
	return nil, nil
}

// had waits for a span and says whether that is all that came.
func (m *mesh) had(t *testing.T, want string) {
	t.Helper()
	testkit.Until(t, want+" has come", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return slices.Contains(m.got, want)
	})
}

// bed is a set that runs until stop.
func bed(t *testing.T, linger time.Duration) (s *Set, m *mesh, logs *observer.ObservedLogs, stop func()) {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	s, m = New(Config{
		Own: trace.Config{Interval: time.Millisecond, Resource: trace.Resource{Service: "wp"}}, Metrics: otlp.NewMetrics(prometheus.NewRegistry()), Linger: linger, Log: zap.New(core),
	}), new(mesh)
	s.SetCaller(m)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return s, m, logs, stop
}

func to(service, token, name string) *route.Telemetry {
	return &route.Telemetry{ServiceName: name, Collector: &route.Collector{Service: service, Port: 4317, Headers: message.Fields{{Name: "x-token", Value: token}}}}
}

// span makes one, if there is a tracer.
func span(c *Collector, name string) bool {
	s := c.Tracer(nil).Start(trace.Decide(trace.Context{}, trace.Sampling{Millionths: trace.One}), name, trace.Server, time.Now())
	s.End(time.Now())
	return s != nil
}

// state is what a set holds.
func (s *Set) state() (collectors, running int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.collectors), s.running
}

// Services that say the same share a collector; a header or a name makes another.
func TestCollectorsAreShared(t *testing.T) {
	s, m, _, _ := bed(t, time.Hour)
	web := s.Use("shop/web", to("obs/otel", "t", ""))
	if s.Use("shop/cart", to("obs/otel", "t", "")) != web || s.Use("shop/web", to("obs/otel", "t", "")) != web {
		t.Error("the same is not shared")
	}
	others := []*Collector{s.Use("a", to("obs/otel", "u", "")), s.Use("b", to("obs/otel", "t", "n")), s.Use("c", to("obs/other", "t", ""))}
	for i, c := range others {
		if c == web || slices.Index(others, c) != i {
			t.Error("what differs is shared")
		}
	}
	if _, n := s.state(); n != 4 {
		t.Errorf("%d run", n)
	}
	for i, c := range append(others, web) {
		if !span(c, fmt.Sprint(i)) {
			t.Error("no span")
		}
	}
	for _, want := range []string{"obs/otel:4317 u wp 0", "obs/otel:4317 t n 1", "obs/other:4317 t wp 2", "obs/otel:4317 t wp 3"} {
		m.had(t, want)
	}
}

// What needs no collector has none: the waypoint's own tracer is used.
func TestOwnCollector(t *testing.T) {
	s, _, _, _ := bed(t, time.Hour)
	own := trace.NewTracer(nil)
	for name, tel := range map[string]*route.Telemetry{
		"nothing": nil, "a span's name": {SpanName: "x"}, "another service of a waypoint that sends nowhere": {ServiceName: "n"},
		"what cannot be read": {Invalid: "no", Collector: &route.Collector{Service: "obs/otel", Port: 1}},
	} {
		if c := s.Use("shop/web", tel); c != nil || c.Tracer(own) != own {
			t.Errorf("%s: %v", name, c)
		}
	}
	if (*Set)(nil).Use("shop/web", to("obs/otel", "", "")) != nil {
		t.Error("a set that is none gives a collector")
	}
}

// A collector goes on while it has users, and for a moment longer; what waits is sent.
func TestCollectorEnds(t *testing.T) {
	s, m, _, _ := bed(t, 0)
	web := s.Use("shop/web", to("obs/otel", "t", ""))
	s.Use("shop/cart", to("obs/otel", "t", ""))
	s.Use("shop/web", nil)
	if !span(web, "with one user") {
		t.Error("it ended with the first of two users")
	}
	m.had(t, "obs/otel:4317 t wp with one user")
	s.Use("shop/cart", to("obs/new", "t", ""))
	testkit.Until(t, "the first has ended", func() bool { return web.Tracer(nil) == nil })
	if n, running := s.state(); n != 1 || running != 1 {
		t.Errorf("%d collectors, %d run", n, running)
	}
	if again := s.Use("shop/web", to("obs/otel", "t", "")); again == web || !span(again, "again") {
		t.Error("it does not come back")
	}
	m.had(t, "obs/otel:4317 t wp again")
}

// One that is used again in time stays.
func TestCollectorIsUsedAgain(t *testing.T) {
	s, _, _, _ := bed(t, time.Hour)
	web := s.Use("shop/web", to("obs/otel", "t", ""))
	s.Use("shop/web", nil)
	if !span(web, "lingers") || s.Use("shop/cart", to("obs/otel", "t", "")) != web || web.idle != nil {
		t.Error("it is another one")
	}
}

// Beyond the bound there are no spans, which is said once; those that are idle make
// room, and who had none gets it.
func TestBound(t *testing.T) {
	s, m, logs, _ := bed(t, time.Hour)
	for i := range Max {
		if !span(s.Use(fmt.Sprint("svc-", i), to(fmt.Sprint("obs/", i), "secret", "")), "x") {
			t.Fatalf("the collector %d does not run", i)
		}
	}
	late := s.Use("shop/late", to("obs/late", "secret", ""))
	s.Use("shop/late", to("obs/late", "secret", ""))
	if late == nil || span(late, "late") || late.Tracer(trace.NewTracer(nil)) != nil {
		t.Error("there is one more than there may be")
	}
	if all := logs.FilterField(zap.String("service", "shop/late")).All(); len(all) != 1 || logs.Len() != 1 {
		t.Errorf("logged: %v", logs.All())
	}
	for _, l := range logs.All() {
		if strings.Contains(fmt.Sprint(l.Message, l.ContextMap()), "secret") {
			t.Error("the log has a header")
		}
	}
	s.Use("svc-0", nil) // idle for an hour
	if next := s.Use("shop/next", to("obs/next", "secret", "")); !span(next, "next") {
		t.Error("an idle one makes no room")
	}
	m.had(t, "obs/next:4317 secret wp next")
	s.mu.Lock()
	s.cfg.Linger = 0
	s.mu.Unlock()
	s.Use("shop/next", nil)
	testkit.Until(t, "who had no room has it", func() bool { return late.Tracer(nil) != nil })
	span(late, "late")
	m.had(t, "obs/late:4317 secret wp late")
	if _, n := s.state(); n != Max {
		t.Errorf("%d run", n)
	}
}

// What waits when the set ends is sent, and nothing begins after that.
func TestSetEnds(t *testing.T) {
	s, m, _, stop := bed(t, time.Hour)
	s.mu.Lock()
	s.cfg.Own.Interval = time.Hour
	s.mu.Unlock()
	web := s.Use("shop/web", to("obs/otel", "t", ""))
	span(web, "last")
	s.Use("shop/web", nil)
	stop()
	m.had(t, "obs/otel:4317 t wp last")
	if c := s.Use("shop/cart", to("obs/otel", "u", "")); span(c, "too late") {
		t.Error("a collector begins after the end")
	}
	s.Use("shop/cart", nil)
}

// Whoever looks for the tracer takes no lock and makes nothing.
func TestTracerDoesNotAllocate(t *testing.T) {
	s, _, _, _ := bed(t, time.Hour)
	c := s.Use("shop/web", to("obs/otel", "t", ""))
	s.mu.Lock() // or this would hang
	defer s.mu.Unlock()
	if n := testing.AllocsPerRun(100, func() { _ = c.Tracer(nil) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
