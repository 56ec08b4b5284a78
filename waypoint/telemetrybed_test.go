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
	"sync"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
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
	"github.com/ambit-mesh/ambit/internal/testkit/spans"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/internal/xdsclient"
)

// spanOf is a span as a collector got it.
type spanOf struct {
	spans.Span
	token []string
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
	for _, s := range spans.Of(req) {
		c.got = append(c.got, spanOf{s, md.Get("x-token")})
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
			if s.Text("url.path") == path {
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
