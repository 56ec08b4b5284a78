package waypoint

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	waypointpb "github.com/ambit-mesh/ambit/apis/waypoint"
	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/lifecycle"
	"github.com/ambit-mesh/ambit/internal/testkit"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/internal/xdsclient"
)

// spanOf is a span as a collector got it.
type spanOf struct {
	service string // service.name
	token   []string
	*tracepb.Span
}

// attribute gives a string attribute; "" for none.
func (s spanOf) attribute(key string) string {
	for _, a := range s.GetAttributes() {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

// collector is an OTLP endpoint.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	addr netip.AddrPort
	mu   sync.Mutex
	got  []spanOf // guarded by mu
}

// Export implements collectorpb.TraceServiceServer.
func (c *collector) Export(ctx context.Context, req *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range req.GetResourceSpans() {
		service := ""
		for _, a := range r.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				service = a.GetValue().GetStringValue()
			}
		}
		for _, s := range r.GetScopeSpans() {
			for _, span := range s.GetSpans() {
				c.got = append(c.got, spanOf{service, md.Get("x-token"), span})
			}
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

// spans waits for those of a path.
func (c *collector) spans(t *testing.T, path string, n int) []spanOf {
	t.Helper()
	var out []spanOf
	testkit.Until(t, "the spans of "+path+" have come", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		out = nil
		for _, s := range c.got {
			if s.attribute("url.path") == path {
				out = append(out, s)
			}
		}
		return len(out) >= n
	})
	slices.SortFunc(out, func(a, b spanOf) int { return int(a.GetKind()) - int(b.GetKind()) })
	return out
}

func (c *collector) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.got)
}

func listenOTLP(t *testing.T) *collector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{addr: netip.MustParseAddrPort(l.Addr().String())}
	srv := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(srv, c)
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() { srv.Stop(); wg.Wait() })
	return c
}

// spansBed is a waypoint with two services, a collector in the mesh and one of its own,
// and a client with a tunnel to it. Where it gets configuration from is the test.
type spansBed struct {
	t            *testing.T
	w            *Waypoint
	own, inMesh  *collector
	client       *hbone.ClientConn
	logs, access lines
	contexts     sync.Map // traceparent that the backend got, by path
}

// lines is a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

var (
	webIP  = netip.MustParseAddr("10.96.0.1")
	cartIP = netip.MustParseAddr("10.96.0.2")
)

const token = "s3cr3t-of-the-collector"

func newSpansBed(t *testing.T, interval time.Duration) *spansBed {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) })
	b := &spansBed{t: t, own: listenOTLP(t), inMesh: listenOTLP(t)}
	backend := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		b.contexts.Store(r.URL.Path, r.Header.Get("traceparent"))
		rw.WriteHeader(http.StatusTeapot)
	}))
	t.Cleanup(backend.Close)
	w, err := New(Config{
		Gateway: "shop/wp", Pod: "wp", ServiceAccount: "wp", XDS: xdsclient.Target{Address: "127.0.0.1:1", RootFile: "none", TokenFile: "none"},
		Tracing: trace.Config{Endpoint: b.own.addr.String(), Interval: interval}, Drain: time.Millisecond,
		Log: zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&b.logs), zap.DebugLevel)), AccessLog: &b.access,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.w = w
	b.mesh(netip.MustParseAddrPort(backend.Listener.Addr().String()))
	ca := testkit.NewCA(t)
	own := ca.Workload("shop", "wp")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := lifecycle.Group{}
	g.Add("traces", w.tracer)
	g.Add("upstream", lifecycle.RunnerFunc(w.runUpstream))
	g.Add("spans", w.spans)
	g.Add("tunnels", &tunnels{
		listener: l, certificate: func(context.Context) (*identity.Certificate, error) { return own, nil }, proxy: w.proxy, drain: time.Millisecond, log: w.cfg.Log,
		handshakes: make(chan struct{}, 16), conns: make(map[*hbone.ServerConn]struct{}),
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		w.flush()
		w.revoked.Close()
		w.release()
		for _, cc := range w.conns {
			_ = cc.Close()
		}
	})
	b.tunnel(ca, own, l.Addr().String())
	return b
}

// mesh puts services and workloads in place: web and cart are one backend.
func (b *spansBed) mesh(backend netip.AddrPort) {
	b.t.Helper()
	service := func(namespace, host string, port uint32) *workloadpb.Address {
		return &workloadpb.Address{Type: &workloadpb.Address_Service{Service: &workloadpb.Service{
			Name: host, Namespace: namespace, Hostname: host, Ports: []*workloadpb.Port{{ServicePort: port, TargetPort: port}},
		}}}
	}
	workload := func(uid, namespace string, at netip.AddrPort, port uint32, services ...string) *workloadpb.Address {
		w := &workloadpb.Workload{Uid: uid, Name: uid, Namespace: namespace, Addresses: [][]byte{at.Addr().AsSlice()}, Services: map[string]*workloadpb.PortList{}}
		for _, s := range services {
			w.Services[s] = &workloadpb.PortList{Ports: []*workloadpb.Port{{ServicePort: port, TargetPort: uint32(at.Port())}}}
		}
		return &workloadpb.Address{Type: &workloadpb.Address_Workload{Workload: w}}
	}
	b.w.store.Update(func(c wds.Change) {
		for name, a := range map[string]*workloadpb.Address{
			"shop/web.shop": service("shop", "web.shop", 80), "shop/cart.shop": service("shop", "cart.shop", 80), "obs/otel.obs": service("obs", "otel.obs", 4317),
			"shop-pod": workload("shop-pod", "shop", backend, 80, "shop/web.shop", "shop/cart.shop"), "otel-pod": workload("otel-pod", "obs", b.inMesh.addr, 4317, "obs/otel.obs"),
		} {
			if err := c.Put(name, a); err != nil {
				b.t.Fatal(err)
			}
		}
	})
}

// tunnel opens the client's.
func (b *spansBed) tunnel(ca *testkit.CA, own *identity.Certificate, addr string) {
	b.t.Helper()
	cfg, err := ca.Workload("shop", "client").ClientConfig(own.ID)
	if err != nil {
		b.t.Fatal(err)
	}
	sock, err := net.Dial("tcp", addr)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if b.client, err = hbone.NewClientConn(ctx, sock, cfg, hbone.Config{}); err != nil {
		b.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = b.client.Run(ctx) })
	b.t.Cleanup(func() { cancel(); wg.Wait() })
}

// serve gives the waypoint a service, as the control plane does.
func (b *spansBed) serve(host string, ip netip.Addr, t *waypointpb.Telemetry) {
	b.t.Helper()
	if err := b.send(host, ip, t, nil); err != nil {
		b.t.Fatal(err)
	}
}

func (b *spansBed) send(host string, ip netip.Addr, t *waypointpb.Telemetry, routes *waypointpb.RouteTable) error {
	b.t.Helper()
	key, kind := "shop/"+host, waypointpb.RouteKind_ROUTE_KIND_UNSPECIFIED
	if routes != nil {
		kind = waypointpb.RouteKind_ROUTE_KIND_HTTP
	}
	return b.w.resources.onFrontends(update(b.t, map[string]proto.Message{key: &waypointpb.Frontend{
		Namespace: "shop", Name: host, Hostname: host, Addresses: [][]byte{ip.AsSlice()}, Tracing: &waypointpb.Tracing{Sampling: trace.One}, Telemetry: t,
		Ports: []*waypointpb.Port{{
			Number: 80, Protocol: waypointpb.Protocol_PROTOCOL_HTTP1, Kind: kind, Producer: routes,
			Fallback: &waypointpb.Rule{Backends: []*waypointpb.WeightedBackend{{Weight: 1, Backend: &waypointpb.BackendRef{Service: key, Port: 80}}}},
		}},
	}}))
}

// get has a request answered by the backend.
func (b *spansBed) get(ip netip.Addr, path string) {
	b.t.Helper()
	if status := b.ask(ip, path, ""); status != http.StatusTeapot {
		b.t.Fatalf("%s: status %d", path, status)
	}
}

// ask sends a request through the tunnel and gives the status of the answer.
func (b *spansBed) ask(ip netip.Addr, path, traceparent string) int {
	b.t.Helper()
	s, _, err := b.client.Open(b.t.Context(), hbone.Request{Authority: netip.AddrPortFrom(ip, 80).String()})
	if err != nil {
		b.t.Fatal(err)
	}
	conn := s.Conn(b.client.LocalAddr(), net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 80)))
	defer func() { _ = conn.Close() }()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, "http://shop"+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("x-user", "ada")
	if traceparent != "" {
		req.Header.Set("traceparent", traceparent)
	}
	if err := req.Write(conn); err != nil {
		b.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		b.t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

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
		if s.service != "front door" || !slices.Equal(s.token, []string{token}) {
			t.Errorf("service.name %q, token %q", s.service, s.token)
		}
		if s.attribute("user") != "ada" || s.attribute("team") != "shop" || s.attribute("how") != "GET" || slices.ContainsFunc(s.GetAttributes(), keyed("missing")) {
			t.Errorf("attributes %v", s.GetAttributes())
		}
	}
	for _, s := range b.own.spans(t, "/b", 2) {
		if s.service != "wp" || s.attribute("team") != "" || s.GetName() == "a visit" {
			t.Errorf("%s %q %v", s.service, s.GetName(), s.GetAttributes())
		}
	}

	b.serve("cart.shop", cartIP, &waypointpb.Telemetry{ServiceName: "till"})
	b.get(cartIP, "/c")
	if s := b.own.spans(t, "/c", 2)[0]; s.service != "till" {
		t.Errorf("service.name %q", s.service)
	}

	b.serve("web.shop", webIP, nil)
	b.get(webIP, "/d")
	if s := b.own.spans(t, "/d", 2)[0]; s.service != "wp" || s.attribute("team") != "" {
		t.Errorf("after it was taken away: %s %v", s.service, s.GetAttributes())
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
	if s := b.inMesh.spans(t, "/none", 1)[0]; s.GetName() != "a visit" || s.attribute("user") != "ada" {
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
