package waypoint

import (
	"context"
	"fmt"
	"net"
	"runtime/debug"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/ambit-mesh/ambit/internal/admin"
	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/flow"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/lifecycle"
	"github.com/ambit-mesh/ambit/internal/masque"
	"github.com/ambit-mesh/ambit/internal/revocation"
	"github.com/ambit-mesh/ambit/internal/stats"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/trace/otlp"
	"github.com/ambit-mesh/ambit/internal/tunnel"
	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/internal/xdsclient"
	"github.com/ambit-mesh/ambit/waypoint/internal/extauthz"
	"github.com/ambit-mesh/ambit/waypoint/internal/frontend"
	"github.com/ambit-mesh/ambit/waypoint/internal/jwt"
	"github.com/ambit-mesh/ambit/waypoint/internal/proxy"
	"github.com/ambit-mesh/ambit/waypoint/internal/ratelimit"
	"github.com/ambit-mesh/ambit/waypoint/internal/spans"
	"github.com/ambit-mesh/ambit/waypoint/internal/upstream"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// Waypoint is one waypoint proxy.
type Waypoint struct {
	cfg      Config
	registry *prometheus.Registry
	ready    *lifecycle.Readiness

	store     *wds.Store
	tokens    *jwt.Manager
	frontends *frontend.Table
	certs     *certs.Manager
	revoked   *revocation.Checker
	source    *certs.Source
	release   func()
	dialer    *upstream.Dialer
	upstream  *upstream.Set
	limiter   *ratelimit.Limiter
	tracer    *trace.Tracer
	spans     *spans.Set
	resources *resources
	flows     *flow.Log
	proxy     *proxy.Proxy
	xds       *xdsclient.Client
	conns     []*grpc.ClientConn
	flush     func() // writes what is left of the access log
}

// New builds a waypoint; Run starts it.
func New(cfg Config) (*Waypoint, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	w := &Waypoint{cfg: cfg, registry: prometheus.NewRegistry(), ready: new(lifecycle.Readiness), store: wds.New(), flows: flow.NewLog(cfg.Flows)}
	w.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "istio_build", Help: "What is running."}, []string{"component", "tag"})
	w.registry.MustRegister(build)
	build.WithLabelValues("waypoint", version()).Set(1)
	if err := w.connect(); err != nil {
		return nil, err
	}
	if err := w.assemble(); err != nil {
		for _, cc := range w.conns {
			_ = cc.Close()
		}
		return nil, err
	}
	return w, nil
}

// connect prepares the connections to control plane and authority.
func (w *Waypoint) connect() error {
	for _, target := range []xdsclient.Target{w.cfg.XDS, w.cfg.CA} {
		cc, err := xdsclient.Connect(target)
		if err != nil {
			for _, cc := range w.conns {
				_ = cc.Close()
			}
			return err
		}
		w.conns = append(w.conns, cc)
	}
	w.certs = certs.NewManager(certs.NewClient(w.conns[1], w.cfg.CertTTL), w.cfg.Log, certs.NewMetrics(w.registry))
	w.revoked = revocation.New(w.registry, w.cfg.Log)
	w.certs.Guard(w.revoked.Check)
	w.cfg.HBONE.Watch = w.revoked.Watch
	w.source, w.release = w.certs.Use(w.cfg.identity())
	return nil
}

// assemble puts the parts together.
func (w *Waypoint) assemble() error {
	cfg := w.cfg
	w.dialer = &upstream.Dialer{
		Certificate: w.source.Get, HBONE: cfg.HBONE, Enrolled: w.store.Enrolled, Log: cfg.Log,
		HBONE3: hbone3.Config{Watch: w.revoked.Watch, OnDropped: func() { w.proxy.QueueFull() }}, Reach: tunnel.NewReach(w.registry, cfg.Log), Self: w.self, Workload: w.store.Workload,
	}
	w.dialer.Open()
	w.upstream = upstream.NewSet(upstream.Config{
		Store: w.store, Dialer: w.dialer, HTTP1: cfg.HTTP1, HTTP2: cfg.HTTP2, Self: w.self, Log: cfg.Log, Registerer: w.registry,
	})
	w.tokens = jwt.New(jwt.Config{Fetcher: jwt.NewHTTPFetcher(w.dialName), Log: cfg.Log, Registerer: w.registry})
	measured := otlp.NewMetrics(w.registry)
	w.spans = spans.New(spans.Config{Own: cfg.Tracing, Metrics: measured, Linger: frontend.Linger, Log: cfg.Log})
	w.frontends = frontend.New(w.tokens, w.spans)
	res := &resources{frontends: w.frontends, upstream: w.upstream, limits: make(map[string][]*route.RateLimit)}
	w.resources = res
	var err error
	if w.tracer, err = otlp.New(cfg.Tracing, measured); err != nil {
		return err
	}
	access, flush := telemetry.NewAccessLog(cfg.AccessLog)
	w.flush = flush
	w.proxy = proxy.New(proxy.Config{
		Gateway: cfg.Gateway, Store: w.store, Frontends: w.frontends, Upstream: w.upstream, Dialer: w.dialer, Self: w.self, OwnPorts: cfg.ownPorts(),
		BackendLimits: res.limitsOf, HTTP1: cfg.HTTP1, HTTP2: cfg.HTTP2, UDPSessions: cfg.MaxUDPSessions, Sampling: cfg.Sampling, Tracer: w.tracer,
		Stats: stats.New(w.registry, stats.Config{Istio: cfg.IstioMetrics}), Flows: w.flows,
		Metrics: proxy.NewMetrics(w.registry), Log: cfg.Log, Access: access,
	})
	caller := proxy.Caller{Proxy: w.proxy}
	w.spans.SetCaller(caller)
	w.limiter = ratelimit.New(ratelimit.Config{Caller: caller, Registerer: w.registry, Start: time.Now()})
	w.proxy.SetFilters(w.limiter, extauthz.New(extauthz.Config{Caller: caller, Asker: caller, Registerer: w.registry}))
	w.xds, err = xdsclient.New(w.conns[0], xdsclient.Config{Node: w.node(), Logger: cfg.Log, Metrics: xdsclient.NewMetrics(w.registry)}, append(res.subscriptions(w.store), w.revoked.Subscription())...)
	return err
}

// dialName connects the waypoint itself to what a policy names.
func (w *Waypoint) dialName(ctx context.Context, _, addr string) (net.Conn, error) {
	namespace, _, _ := strings.Cut(w.cfg.Gateway, "/")
	domain := w.clusterDomain()
	return w.upstream.DialName(ctx, addr, namespace, namespace+".svc."+domain, "svc."+domain, domain)
}

// clusterDomain is what the names of services end with, the waypoint's own among
// them.
func (w *Waypoint) clusterDomain() string {
	if self := w.self(); self != nil {
		for _, m := range self.Services {
			if _, domain, ok := strings.Cut(m.Service, ".svc."); ok {
				return domain
			}
		}
	}
	return "cluster.local"
}

// self is the waypoint's own workload.
func (w *Waypoint) self() *wds.Workload {
	namespace, _, _ := strings.Cut(w.cfg.Gateway, "/")
	return w.store.WorkloadByName(namespace, w.cfg.Pod)
}

// node says who asks.
func (w *Waypoint) node() *corev3.Node {
	namespace, name, _ := strings.Cut(w.cfg.Gateway, "/")
	text := func(s string) *structpb.Value { return structpb.NewStringValue(s) }
	return &corev3.Node{
		Id:            fmt.Sprintf("waypoint~%s~%s.%s~%s.svc.cluster.local", "", w.cfg.Pod, namespace, namespace),
		UserAgentName: "ambit-waypoint",
		Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
			"NAME": text(w.cfg.Pod), "NAMESPACE": text(namespace), "NODE_NAME": text(w.cfg.Node), "CLUSTER_ID": text(w.cfg.Cluster), "GATEWAY": text(name),
		}},
	}
}

// Run serves until ctx ends, and then drains.
func (w *Waypoint) Run(ctx context.Context) error {
	defer func() {
		for _, cc := range w.conns {
			_ = cc.Close()
		}
	}()
	defer w.flush()
	defer w.revoked.Close()
	defer w.release()
	group := lifecycle.Group{StopTimeout: max(w.cfg.Drain, 0) + 10*time.Second}
	if w.cfg.Drain < 0 {
		group.StopTimeout = 1<<63 - 1
	}
	awaited, certificate := w.awaited(), w.ready.Task("certificate of "+w.cfg.identity().String())
	if err := w.addServers(&group); err != nil {
		return err
	}
	l, err := net.Listen("tcp", w.cfg.HBONEAddress)
	if err != nil {
		return fmt.Errorf("waypoint: HBONE address: %w", err)
	}
	group.Add("certificates", w.certs)
	group.Add("xds", w.xds)
	group.Add("tokens", w.tokens)
	group.Add("rate limits", w.limiter)
	group.Add("traces", w.tracer)
	group.Add("upstream", lifecycle.RunnerFunc(w.runUpstream))
	group.Add("policy changes", w.proxy)
	// Behind upstream, so that what is left of spans is sent before that ends.
	group.Add("spans", w.spans)
	group.Add("readiness", lifecycle.RunnerFunc(func(ctx context.Context) error { return w.follow(ctx, awaited, certificate) }))
	// Last, so that it is stopped first.
	server := w.cfg.HBONE
	server.Protocol = masque.Protocol
	t := &tunnels{
		listener: l, certificate: w.source.Get, cfg: server, proxy: w.proxy, delay: w.cfg.ShutdownDelay, drain: w.cfg.Drain, log: w.cfg.Log,
		handshakes: make(chan struct{}, w.cfg.MaxHandshakes), conns: make(map[*hbone.ServerConn]struct{}),
	}
	if err := t.listenQUIC(w.cfg.PodUID, hbone3.Config{Watch: w.revoked.Watch}); err != nil {
		_ = l.Close()
		return err
	}
	group.Add("tunnels", t)
	w.cfg.Log.Info("waypoint starts", zap.String("gateway", w.cfg.Gateway), zap.String("pod", w.cfg.Pod), zap.Stringer("identity", w.cfg.identity()), zap.String("version", version()), zap.String("xds", w.cfg.XDS.Address))
	return group.Run(ctx)
}

// runUpstream keeps the connections to endpoints, which end after those of
// clients.
func (w *Waypoint) runUpstream(ctx context.Context) error {
	err := w.upstream.Run(ctx)
	w.proxy.Close()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	w.upstream.Close(over)
	w.dialer.Close(over)
	return err
}

// pending is something that has to happen before the waypoint is ready.
type pending struct {
	task *lifecycle.Task
	done <-chan struct{}
}

// awaited names what readiness waits for.
func (w *Waypoint) awaited() []pending {
	var out []pending
	for _, t := range []struct{ name, url string }{
		{"workloads from the control plane", wds.TypeAddress},
		{"policies from the control plane", wds.TypeAuthorization},
		{"backends from the control plane", typeBackend},
		{"services from the control plane", typeFrontend},
	} {
		out = append(out, pending{w.ready.Task(t.name), w.xds.Synced(t.url)})
	}
	return out
}

// follow keeps readiness.
func (w *Waypoint) follow(ctx context.Context, awaited []pending, certificate *lifecycle.Task) error {
	for _, p := range awaited {
		select {
		case <-p.done:
			p.task.Done()
		case <-ctx.Done():
		}
	}
	if _, err := w.source.Get(ctx); err == nil {
		certificate.Done()
	}
	<-ctx.Done()
	w.ready.Task("shutting down")
	return nil
}

func (w *Waypoint) addServers(g *lifecycle.Group) error {
	mux := admin.NewMux(w.cfg.Level)
	mux.HandleFunc("GET /config_dump", w.configDump)
	mux.HandleFunc("GET /explain", w.explain)
	mux.Handle(flow.Path, flow.NewServer(w.flows, w.cfg.Node, w.registry).Handler())
	adminServer, err := admin.Listen(w.cfg.AdminAddress, true, mux)
	if err != nil {
		return err
	}
	metrics, err := admin.Listen(w.cfg.MetricsAddress, false, admin.MetricsHandler(w.registry))
	if err != nil {
		return err
	}
	ready, err := admin.Listen(w.cfg.ReadyAddress, false, admin.ReadyHandler(w.ready))
	if err != nil {
		return err
	}
	g.Add("admin", adminServer)
	g.Add("metrics", metrics)
	g.Add("ready", ready)
	return nil
}

// version is that of the build.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}
