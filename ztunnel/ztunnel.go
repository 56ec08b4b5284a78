package ztunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"syscall"
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
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/lifecycle"
	"github.com/ambit-mesh/ambit/internal/revocation"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/internal/tunnel"
	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/internal/xdsclient"
	"github.com/ambit-mesh/ambit/internal/zds"
	"github.com/ambit-mesh/ambit/ztunnel/internal/dns"
	"github.com/ambit-mesh/ambit/ztunnel/internal/proxy"
)

// Ztunnel is one node's proxy.
type Ztunnel struct {
	cfg      Config
	version  string
	registry *prometheus.Registry
	ready    *lifecycle.Readiness
	store    *wds.Store
	certs    *certs.Manager
	revoked  *revocation.Checker
	prefetch *prefetch
	pods     *pods
	xds      *xdsclient.Client
	zds      *zds.Client
	conns    []*grpc.ClientConn
	flush    func() // writes what is left of the access log
	flows    *flow.Log
	memory   *memory
}

// New builds a ztunnel; Run starts it.
func New(cfg Config) (*Ztunnel, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	z := &Ztunnel{cfg: cfg, version: version(), registry: prometheus.NewRegistry(), ready: new(lifecycle.Readiness), store: wds.New(), flows: flow.NewLog(cfg.Flows)}
	z.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "istio_build", Help: "What is running."}, []string{"component", "tag"})
	z.registry.MustRegister(build)
	build.WithLabelValues("ztunnel", z.version).Set(1)

	xdsConn, err := xdsclient.Connect(cfg.XDS)
	if err != nil {
		return nil, err
	}
	caConn, err := xdsclient.Connect(cfg.CA)
	if err != nil {
		_ = xdsConn.Close()
		return nil, err
	}
	z.conns = []*grpc.ClientConn{xdsConn, caConn}
	z.certs = certs.NewManager(certs.NewClient(caConn, cfg.CertTTL), cfg.Log, certs.NewMetrics(z.registry))
	z.revoked = revocation.New(z.registry, cfg.Log)
	z.certs.Guard(z.revoked.Check)
	cfg.HBONE.Watch = z.revoked.Watch
	z.prefetch = newPrefetch(z.store, z.certs, cfg.Node)
	access, flush := telemetry.NewAccessLog(cfg.AccessLog)
	z.flush = flush
	z.pods = newPods(proxy.Config{
		Store: z.store, Metrics: proxy.NewMetrics(z.registry), Log: cfg.Log, Access: access, Flows: z.flows,
		HBONE: cfg.HBONE, HBONE3: hbone3.Config{Watch: z.revoked.Watch}, Reach: tunnel.NewReach(z.registry, cfg.Log), Cluster: cfg.Cluster, Network: cfg.Network, Drain: cfg.Drain,
		ClusterDomain: strings.TrimSuffix(cfg.ClusterDomain, ".") + ".", Resolvers: cfg.Resolvers, DNSMetrics: dns.NewMetrics(z.registry),
	}, cfg.TrustDomain, z.certs, z.ready, z.registry)
	if z.memory, err = newMemory(cfg, z.registry); err != nil {
		return nil, z.abandon(err)
	}
	z.xds, err = xdsclient.New(xdsConn, xdsclient.Config{Node: z.node(), Logger: cfg.Log, Metrics: xdsclient.NewMetrics(z.registry)}, append(z.memory.keep(wds.Subscriptions(z.store, z.prefetch.changed)), z.revoked.Subscription())...)
	if err != nil {
		return nil, z.abandon(err)
	}
	z.memory.xds = z.xds
	z.zds, err = zds.NewClient(zds.ClientConfig{Path: cfg.ZDSSocket, Handler: z.pods, Logger: cfg.Log, Registerer: z.registry})
	if err != nil {
		return nil, z.abandon(err)
	}
	return z, nil
}

func (z *Ztunnel) abandon(err error) error {
	for _, cc := range z.conns {
		_ = cc.Close()
	}
	return err
}

// node says who asks: the id has the form that control planes know a ztunnel by.
func (z *Ztunnel) node() *corev3.Node {
	return &corev3.Node{
		Id:            fmt.Sprintf("ztunnel~%s~ztunnel-%s.ambit-system~ambit-system.svc.cluster.local", localIP(), z.cfg.Node),
		UserAgentName: "ambit-ztunnel", Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
			"NAME":       structpb.NewStringValue("ztunnel-" + z.cfg.Node),
			"NAMESPACE":  structpb.NewStringValue("ambit-system"),
			"NODE_NAME":  structpb.NewStringValue(z.cfg.Node),
			"CLUSTER_ID": structpb.NewStringValue(z.cfg.Cluster),
		}},
	}
}

// localIP is an address of this node, for the node id only.
func localIP() string {
	addrs, err := net.InterfaceAddrs()
	if err == nil {
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
				return n.IP.String()
			}
		}
	}
	return "127.0.0.1"
}

// Run serves until ctx ends, and then drains.
func (z *Ztunnel) Run(ctx context.Context) error {
	defer func() {
		for _, cc := range z.conns {
			_ = cc.Close()
		}
	}()
	defer z.flush()
	defer z.revoked.Close()
	group := lifecycle.Group{StopTimeout: z.cfg.Drain + 10*time.Second}
	if z.cfg.Drain <= 0 {
		group.StopTimeout = 1<<63 - 1
	}
	awaited := z.awaited()
	z.memory.restore(z.ready)
	if err := z.addServers(ctx, &group); err != nil {
		return err
	}
	group.Add("certificates", z.certs)
	group.Add("certificate prefetch", z.prefetch)
	group.Add("xds", z.xds)
	// It ends with the signal to stop, not with the last connection: the successor
	// writes the file from then on.
	group.Add("snapshot", lifecycle.RunnerFunc(func(gctx context.Context) error { return z.memory.Run(ctx, gctx) }))
	group.Add("pods", z.pods)
	group.Add("readiness", lifecycle.RunnerFunc(func(ctx context.Context) error { return z.follow(ctx, awaited) }))
	// Last, so that it is stopped first: no pods come while those we have drain.
	group.Add("zds", lifecycle.RunnerFunc(z.runZDS))
	z.cfg.Log.Info("ztunnel starts", zap.String("node", z.cfg.Node), zap.String("version", z.version), zap.String("xds", z.cfg.XDS.Address))
	return group.Run(ctx)
}

// runZDS takes pods when it is known who they are.
func (z *Ztunnel) runZDS(ctx context.Context) error {
	select {
	case <-z.memory.known:
	case <-ctx.Done():
		return nil
	}
	return z.zds.Run(ctx)
}

// pending is something that has to happen before the proxy is ready.
type pending struct {
	task *lifecycle.Task
	done <-chan struct{}
}

// awaited names what readiness waits for.
func (z *Ztunnel) awaited() []pending {
	return []pending{
		{z.ready.Task("workloads and policies from the control plane"), z.memory.known},
		{z.ready.Task("pods from the node agent"), z.zds.Synced()},
	}
}

// follow keeps readiness.
func (z *Ztunnel) follow(ctx context.Context, awaited []pending) error {
	for _, p := range awaited {
		select {
		case <-p.done:
			p.task.Done()
		case <-ctx.Done():
		}
	}
	<-ctx.Done()
	z.ready.Task("shutting down")
	return nil
}

func (z *Ztunnel) addServers(ctx context.Context, g *lifecycle.Group) error {
	mux := admin.NewMux(z.cfg.Level)
	mux.HandleFunc("GET /config_dump", z.configDump)
	mux.Handle(flow.Path, flow.NewServer(z.flows, z.cfg.Node, z.registry).Handler())
	for _, srv := range []struct {
		name, address string
		loopback      bool
		handler       http.Handler
	}{
		{"admin", z.cfg.AdminAddress, true, mux},
		{"metrics", z.cfg.MetricsAddress, false, admin.MetricsHandler(z.registry)},
		{"ready", z.cfg.ReadyAddress, false, admin.ReadyHandler(z.ready)},
	} {
		s, err := z.listen(ctx, srv.address, srv.loopback, srv.handler)
		if err != nil {
			return fmt.Errorf("%s: %w", srv.name, err)
		}
		g.Add(srv.name, lifecycle.RunnerFunc(func(gctx context.Context) error { return z.serve(ctx, gctx, s) }))
	}
	return nil
}

// releaseTimeout is how long a port may be taken by the ztunnel before.
const releaseTimeout = 10 * time.Second

// listen waits for the port if it is one that a predecessor lets go of.
func (z *Ztunnel) listen(ctx context.Context, address string, loopback bool, h http.Handler) (*admin.Server, error) {
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	for {
		s, err := admin.Listen(address, loopback, h)
		if err == nil || !z.cfg.ReleasePorts || !errors.Is(err, syscall.EADDRINUSE) {
			return s, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// serve serves until the group stops it, or until stop ends if ports are to be let
// go of then.
func (z *Ztunnel) serve(stop, ctx context.Context, s *admin.Server) error {
	if !z.cfg.ReleasePorts {
		return s.Run(ctx)
	}
	until, cancel := context.WithCancel(ctx)
	defer cancel()
	release := context.AfterFunc(stop, cancel)
	defer release()
	err := s.Run(until)
	if err == nil {
		<-ctx.Done()
	}
	return err
}

// version is that of the build.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}
