package waypoint

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	waypointpb "github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/testkit"
	"github.com/ambit-mesh/ambit/internal/trace"
)

// telemetryOfWeb has a collector in the mesh take the spans.
func telemetryOfWeb() *waypointpb.Telemetry {
	return &waypointpb.Telemetry{
		Collector:   &waypointpb.Collector{Service: "obs/otel.obs", Port: 4317, Headers: []*waypointpb.Header{{Name: "X-Token", Value: token}}},
		ServiceName: "front door", SpanName: "a visit",
		Attributes: []*waypointpb.SpanAttribute{
			{Name: "user", Source: &waypointpb.SpanAttribute_Header{Header: "X-User"}},
			{Name: "missing", Source: &waypointpb.SpanAttribute_Header{Header: "x-none"}},
			{Name: "team", Source: &waypointpb.SpanAttribute_Literal{Literal: "shop"}},
			{Name: "how", Source: &waypointpb.SpanAttribute_Attribute{Attribute: "http.request.method"}},
		},
	}
}

// The spans of a service go to its collector, say what it wants them to say, and those
// of another one to the waypoint's own; and so do its own when it has none any more.
func TestTelemetryOfAService(t *testing.T) {
	b := newSpansBed(t, time.Millisecond)
	b.serve("web.shop", webIP, telemetryOfWeb())
	b.serve("cart.shop", cartIP, nil)
	b.get(webIP, "/a")
	b.get(cartIP, "/b")

	a := b.inMesh.spans(t, "/a", 2)
	if a[0].GetName() != "a visit" || a[1].GetName() != "GET" || a[0].GetKind() != tracepb.Span_SPAN_KIND_SERVER || a[1].GetKind() != tracepb.Span_SPAN_KIND_CLIENT {
		t.Errorf("spans %q, %q", a[0].GetName(), a[1].GetName())
	}
	for _, s := range a {
		if s.Service != "front door" || !slices.Equal(s.token, []string{token}) {
			t.Errorf("service.name %q, token %q", s.Service, s.token)
		}
		if s.Text("user") != "ada" || s.Text("team") != "shop" || s.Text("how") != "GET" || slices.ContainsFunc(s.GetAttributes(), keyed("missing")) {
			t.Errorf("attributes %v", s.GetAttributes())
		}
	}
	for _, s := range b.own.spans(t, "/b", 2) {
		if s.Service != "wp" || s.Text("team") != "" || s.GetName() == "a visit" {
			t.Errorf("%s %q %v", s.Service, s.GetName(), s.GetAttributes())
		}
	}

	b.serve("cart.shop", cartIP, &waypointpb.Telemetry{ServiceName: "till"})
	b.get(cartIP, "/c")
	if s := b.own.spans(t, "/c", 2)[0]; s.Service != "till" {
		t.Errorf("service.name %q", s.Service)
	}

	b.serve("web.shop", webIP, nil)
	b.get(webIP, "/d")
	if s := b.own.spans(t, "/d", 2)[0]; s.Service != "wp" || s.Text("team") != "" {
		t.Errorf("after it was taken away: %s %v", s.Service, s.GetAttributes())
	}
	// Two for each request: what carries spans makes none.
	if b.inMesh.count() != 2 || b.own.count() != 6 {
		t.Errorf("%d and %d spans, want 2 and 6", b.inMesh.count(), b.own.count())
	}
	b.counted(8)
	testkit.Until(t, "the requests are logged", func() bool { return strings.Count(b.access.String(), "\n") >= 4 })
	if n := strings.Count(b.access.String(), "\n"); n > 4 {
		t.Errorf("%d lines of the access log for 4 requests:\n%s", n, b.access.String())
	}
	if text := b.logs.String() + b.access.String(); strings.Contains(text, token) {
		t.Errorf("a log has the token:\n%s", text)
	}
}

// keyed finds an attribute by its key.
func keyed(key string) func(*commonpb.KeyValue) bool {
	return func(a *commonpb.KeyValue) bool { return a.GetKey() == key }
}

// counted waits until so many spans are counted as taken, and none as lost.
func (b *spansBed) counted(spans float64) {
	b.t.Helper()
	testkit.Until(b.t, "all spans are counted", func() bool {
		return testutil.CollectAndCount(b.w.registry, "ambit_trace_spans_exported_total") == 1 && b.sum("ambit_trace_spans_exported_total") == spans
	})
	if lost := b.sum("ambit_trace_spans_dropped_total"); lost != 0 {
		b.t.Errorf("%v spans dropped", lost)
	}
}

// sum of a family of counters.
func (b *spansBed) sum(name string) (total float64) {
	b.t.Helper()
	families, err := b.w.registry.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				total += m.GetCounter().GetValue()
			}
		}
	}
	return total
}

// Who has no rule is traced as the service is, not as the waypoint by itself, which here
// samples nothing.
func TestTelemetryWithoutRoute(t *testing.T) {
	b := newSpansBed(t, time.Millisecond)
	if err := b.send("web.shop", webIP, telemetryOfWeb(), &waypointpb.RouteTable{}); err != nil {
		t.Fatal(err)
	}
	if status := b.ask(webIP, "/none", ""); status != http.StatusNotFound {
		t.Fatalf("status %d", status)
	}
	if s := b.inMesh.spans(t, "/none", 1)[0]; s.GetName() != "a visit" || s.Text("user") != "ada" {
		t.Errorf("%q %v", s.GetName(), s.GetAttributes())
	}
}

// What others have decided about a trace counts as far as telemetry lets it.
func TestTelemetryAndParents(t *testing.T) {
	b := newSpansBed(t, time.Millisecond)
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	came := "00-" + id + "-00f067aa0ba902b7-01"
	tel := telemetryOfWeb()
	tel.Parent = &waypointpb.ParentSampling{} // of those that are sampled, none
	b.serve("web.shop", webIP, tel)
	b.ask(webIP, "/limited", came)
	if got, _ := b.contexts.Load("/limited"); got != came {
		t.Errorf("passed on: %v, want %s", got, came)
	}
	tel.Parent = &waypointpb.ParentSampling{Ignored: true}
	b.serve("web.shop", webIP, tel)
	b.ask(webIP, "/ignored", "00-"+id+"-00f067aa0ba902b7-00")
	s := b.inMesh.spans(t, "/ignored", 2)
	if trace.TraceID(s[0].GetTraceId()).String() != id || trace.SpanID(s[0].GetParentSpanId()).String() != "00f067aa0ba902b7" {
		t.Errorf("%v", s[0])
	}
	want := "00-" + id + "-" + trace.SpanID(s[1].GetSpanId()).String() + "-01"
	if got, _ := b.contexts.Load("/ignored"); got != want {
		t.Errorf("passed on: %v, want %s", got, want)
	}
	if n := b.inMesh.count(); n != 2 {
		t.Errorf("%d spans, want those of one request", n)
	}
}

// Telemetry that cannot be carried out is refused by its name, and the last good one
// stays; without one there are no spans, and requests are served.
func TestBrokenTelemetry(t *testing.T) {
	b := newSpansBed(t, time.Millisecond)
	b.serve("web.shop", webIP, telemetryOfWeb())
	broken := telemetryOfWeb()
	broken.Collector.Port = 0
	names(t, b.send("web.shop", webIP, broken, nil), "shop/web.shop", "telemetry.collector.port")
	b.get(webIP, "/kept")
	b.inMesh.spans(t, "/kept", 2)
	names(t, b.send("cart.shop", cartIP, broken, nil), "shop/cart.shop", "telemetry.collector.port")
	b.get(cartIP, "/broken")
	b.serve("cart.shop", cartIP, nil)
	b.get(cartIP, "/mended")
	b.own.spans(t, "/mended", 2)
	if b.own.count() != 2 || b.inMesh.count() != 2 {
		t.Errorf("%d and %d spans, want 2 each", b.own.count(), b.inMesh.count())
	}
}

// When the waypoint stops, what waits for a collector in the mesh still reaches it.
func TestTelemetryWhenTheWaypointStops(t *testing.T) {
	var b *spansBed
	t.Run("serving", func(t *testing.T) {
		b = newSpansBed(t, time.Hour)
		b.serve("web.shop", webIP, telemetryOfWeb())
		b.get(webIP, "/last")
	})
	if n := b.inMesh.count(); n != 2 {
		t.Errorf("%d spans came, want 2", n)
	}
}

// The dump shows telemetry, and of headers the names alone.
func TestDumpHidesCredentials(t *testing.T) {
	b := newSpansBed(t, time.Millisecond)
	b.serve("web.shop", webIP, telemetryOfWeb())
	rec := httptest.NewRecorder()
	b.w.configDump(rec, httptest.NewRequest(http.MethodGet, "/config_dump", nil))
	text := rec.Body.String()
	if strings.Contains(text, token) || !strings.Contains(text, redacted) || !strings.Contains(text, "X-Token") || !strings.Contains(text, "a visit") {
		t.Errorf("dump: %s", text)
	}
	if e := b.w.frontends.Key("shop/web.shop"); e.Config.GetTelemetry().GetCollector().GetHeaders()[0].GetValue() != token {
		t.Error("the configuration itself has lost the value")
	}
}
