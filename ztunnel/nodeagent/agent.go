package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/ambit-mesh/ambit/internal/admin"
	"github.com/ambit-mesh/ambit/internal/lifecycle"
	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/xdsclient"
	"github.com/ambit-mesh/ambit/internal/zds"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/capture"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/cni"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/enrolled"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/install"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/ledger"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/pods"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/report"
)

// Agent is the node agent of one node.
type Agent struct {
	cfg      Config
	registry *prometheus.Registry
	ready    *lifecycle.Readiness
	plane    *plane
	pods     *pods.Set
	proxies  *zds.Server
	reporter *report.Reporter
	cni      *cni.Server
	install  *install.Installer // nil if nothing is to be installed
	own      *netns.Namespace   // this process's, open until Run returns
	close    func() error       // of the connection to the control plane

	restored, synced, proxied *lifecycle.Task
}

// New builds an agent, and finds out whether the kernel can do what capture
// needs. Run starts it.
func New(cfg Config) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	conn, err := xdsclient.Connect(cfg.XDS)
	if err != nil {
		return nil, err
	}
	a, err := newAgent(cfg, conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	a.close = conn.Close
	return a, nil
}

// newAgent builds an agent over a connection that stays the caller's.
func newAgent(cfg Config, conn grpc.ClientConnInterface) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	a := &Agent{
		cfg: cfg, registry: prometheus.NewRegistry(), ready: new(lifecycle.Readiness), plane: new(plane),
		close: func() error { return nil },
	}
	a.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	a.restored = a.ready.Task("pods of the last run")
	a.synced = a.ready.Task("enrolment from the control plane")
	a.proxied = a.ready.Task("connection of ztunnel")
	if err := a.build(conn); err != nil {
		if a.own != nil {
			_ = a.own.Close()
		}
		return nil, err
	}
	return a, nil
}

func (a *Agent) build(conn grpc.ClientConnInterface) error {
	capturer, err := capture.New()
	if err != nil {
		return err
	}
	book, err := ledger.Open(a.cfg.StateDir)
	if err != nil {
		return err
	}
	a.reporter = report.New(report.Config{Conn: conn, Logger: a.cfg.Log})
	a.proxies, err = zds.NewServer(zds.ServerConfig{
		Path: a.cfg.ZDSSocket, Logger: a.cfg.Log, Registerer: a.registry,
		OnResult: func(r zds.Result) { a.pods.ProxyResult(r) },
		OnConnections: func(n int) {
			if n > 0 {
				a.proxied.Done()
			}
		},
	})
	if err != nil {
		return err
	}
	if a.own, err = netns.Own(); err != nil {
		return err
	}
	var prober pods.Prober
	if a.cfg.HostProbes {
		prober = capture.NewHost(a.cfg.hostOr(a.own))
	}
	a.pods, err = pods.New(pods.Config{
		Finder: a.finder(), Prober: prober, Leave: a.cfg.UninstallDrain,
		SaveEnrolled: func(names []string) error { return enrolled.Write(a.cfg.EnrolledFile, names) },
		Capturer:     capturer, Proxies: a.proxies, Reporter: a.reporter, ControlPlane: a.plane, Ledger: book,
		Logger: a.cfg.Log, Registerer: a.registry,
		Repair: a.cfg.RepairInterval, DrainPoll: a.cfg.drainPoll, DrainBound: a.cfg.DrainTimeout,
		RetryMin: 200 * time.Millisecond, RetryMax: 30 * time.Second,
		DNSLeftAlone: a.cfg.DNSLeftAlone, Unenrolled: a.cfg.unenrolled, Grace: 30 * time.Second,
	})
	if err != nil {
		return err
	}
	a.cni, err = cni.New(cni.Config{
		Path: a.cfg.CNISocket, Handler: handler{a.pods, a}, Timeout: a.cfg.StartTimeout, Logger: a.cfg.Log, Registerer: a.registry,
	})
	if err != nil {
		return err
	}
	if a.install, err = a.installer(); err != nil {
		return err
	}
	res := &resources{set: a.pods}
	a.plane.xds, err = xdsclient.New(conn, xdsclient.Config{
		Node: a.node(), Logger: a.cfg.Log, Metrics: xdsclient.NewMetrics(a.registry),
	}, res.subscriptions()...)
	return err
}

// node says who asks. Which node it is, the control plane believes the token only.
func (a *Agent) node() *corev3.Node {
	return &corev3.Node{
		Id:            fmt.Sprintf("nodeagent~%s", a.cfg.Node),
		UserAgentName: "ambit-nodeagent",
		Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
			"NODE_NAME":  structpb.NewStringValue(a.cfg.Node),
			"CLUSTER_ID": structpb.NewStringValue(a.cfg.XDS.ClusterID),
		}},
	}
}

// Run works until ctx ends. Captured pods stay captured.
func (a *Agent) Run(ctx context.Context) error {
	defer func() { _ = errors.Join(a.close(), a.own.Close()) }()
	// Before ztunnel or the control plane can ask what there is.
	if err := a.pods.Restore(); err != nil {
		return err
	}
	a.restored.Done()
	var group lifecycle.Group
	if err := a.addServers(&group); err != nil {
		return err
	}
	group.Add("pods", a.pods)
	group.Add("reports", a.reporter)
	group.Add("xds", a.plane.xds)
	group.Add("readiness", lifecycle.RunnerFunc(a.follow))
	group.Add("zds", a.proxies)
	// Late, so that it is stopped first: what waits is refused at once.
	group.Add("cni", a.cni)
	if a.install != nil {
		group.Add("cni installation", a.install)
	}
	a.cfg.Log.Info("node agent starts", zap.String("node", a.cfg.Node), zap.String("xds", a.cfg.XDS.Address))
	return group.Run(ctx)
}

// follow keeps readiness.
func (a *Agent) follow(ctx context.Context) error {
	for _, url := range []string{typeNamespace, typePod} {
		select {
		case <-a.plane.xds.Synced(url):
		case <-ctx.Done():
			return nil
		}
	}
	a.synced.Done()
	<-ctx.Done()
	a.ready.Task("shutting down")
	return nil
}

func (a *Agent) addServers(g *lifecycle.Group) error {
	mux := admin.NewMux(a.cfg.Level)
	mux.HandleFunc("GET /config_dump", a.configDump)
	for _, srv := range []struct {
		name, address string
		loopback      bool
		handler       http.Handler
	}{
		{"admin", a.cfg.AdminAddress, true, mux},
		{"metrics", a.cfg.MetricsAddress, false, admin.MetricsHandler(a.registry)},
		{"ready", a.cfg.ReadyAddress, false, admin.ReadyHandler(a.ready)},
	} {
		s, err := admin.Listen(srv.address, srv.loopback, srv.handler)
		if err != nil {
			return fmt.Errorf("%s: %w", srv.name, err)
		}
		g.Add(srv.name, s)
	}
	return nil
}

// dump is what /config_dump answers.
type dump struct {
	Node         string    `json:"node"`
	ControlPlane planeDump `json:"controlPlane"`
	Ztunnels     int       `json:"ztunnelConnections"`
	Pending      []string  `json:"pending"`
	pods.Dump
}

type planeDump struct {
	Address string `json:"address"`
	Current bool   `json:"current"`
	Problem string `json:"problem,omitempty"`
}

func (a *Agent) configDump(w http.ResponseWriter, _ *http.Request) {
	d := dump{Node: a.cfg.Node, Ztunnels: a.proxies.Connections(), Pending: a.ready.Pending(), Dump: a.pods.Dump()}
	d.ControlPlane.Address = a.cfg.XDS.Address
	d.ControlPlane.Current, d.ControlPlane.Problem = a.plane.Current()
	admin.WriteJSON(w, d)
}
