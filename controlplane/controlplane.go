package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/internal/ca"
	"github.com/ambit-mesh/ambit/controlplane/internal/nodes"
	"github.com/ambit-mesh/ambit/controlplane/internal/source/files"
	"github.com/ambit-mesh/ambit/controlplane/internal/xds"
	"github.com/ambit-mesh/ambit/internal/admin"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/lifecycle"
)

// ControlPlane is one control plane.
type ControlPlane struct {
	cfg      Config
	ready    lifecycle.Readiness
	compiler *compile.Compiler
	xds      *xds.Server
	ca       *ca.Authority
	auth     *nodes.Authenticator
	// revocations are those of ca.
	revocations revocations
	engine      *engine
	platform    Platform // nil with the source files
	follows     Follows
	server      *server

	admin, metrics, readiness *admin.Server
}

// New prepares everything that can fail before serving: it loads or makes the
// authority, reads the credentials and the captured set, and takes the ports.
func New(cfg Config) (*ControlPlane, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	c := &ControlPlane{cfg: cfg}
	first, last := c.makeStateDir, c.makeFiles
	if cfg.Source == SourceKubernetes {
		first, last = c.connect, c.follow
	}
	for _, step := range []func() error{first, c.makeCompiler, c.makeAuthority, c.makeEngine, last, c.listen} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *ControlPlane) makeStateDir() error {
	if err := os.MkdirAll(c.cfg.StateDir, 0o755); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return nil
}

// connect prepares the platform's clients.
func (c *ControlPlane) connect() (err error) {
	c.platform, err = c.cfg.Kubernetes(c.cfg)
	return err
}

func (c *ControlPlane) makeCompiler() (err error) {
	c.compiler, err = compile.New(c.cfg.compileOptions())
	return err
}

// compileOptions are what of the configuration the compiler is told.
func (c Config) compileOptions() compile.Options {
	return compile.Options{
		ClusterID: c.ClusterID, TrustDomain: c.TrustDomain, ClusterDomain: c.ClusterDomain, RootNamespace: c.RootNamespace,
		CapturedByCondition: c.Source == SourceKubernetes, Outbound: c.Outbound, Transport: transports[c.Transport],
		IstioLabels: c.IstioLabels,
	}
}

func (c *ControlPlane) makeAuthority() error {
	var err error
	cfg := &c.cfg
	auth := nodes.Config{File: cfg.NodeCredentials, ClusterID: cfg.ClusterID, Log: cfg.Log.Named("nodes"), Metrics: cfg.Registry}
	authority := ca.Config{
		TrustDomain: cfg.TrustDomain,
		PluggedIn:   ca.Files{Root: cfg.CARootCert, Cert: cfg.CACert, Key: cfg.CAKey, Chain: cfg.CAChain, CRL: cfg.CACRL},
		Revoked:     c.revocations.set,
		TTL:         cfg.CertTTL, RotationOverlap: cfg.RotationOverlap, ServingNames: cfg.ServingNames,
		Log: cfg.Log.Named("ca"), Metrics: cfg.Registry,
	}
	if c.platform != nil {
		trust, err := c.platform.Trust(c.compiler)
		if err != nil {
			return err
		}
		auth.Prover, authority.Store, authority.Leads = trust.Prover, trust.Store, trust.Leads
		authority.PluggedIn.Mounted = true
	} else {
		authority.Dir, authority.BundleFile = filepath.Join(cfg.StateDir, "ca"), filepath.Join(cfg.StateDir, "root-cert.pem")
	}
	if c.auth, err = nodes.NewAuthenticator(auth); err != nil {
		return err
	}
	c.ca, err = ca.New(authority)
	return err
}

func (c *ControlPlane) makeEngine() error {
	cfg := &c.cfg
	var err error
	if c.xds, err = xds.New(xds.Config{Log: cfg.Log.Named("xds"), Metrics: cfg.Registry}); err != nil {
		return err
	}
	c.revocations.distribute(c.xds, cfg.Log)
	m, err := newMetrics(cfg.Registry)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	dir := ""
	if c.platform == nil {
		dir = cfg.StateDir
	}
	c.engine, err = newEngine(c.compiler, c.xds, dir, *cfg, m)
	return err
}

// makeFiles wires the source files.
func (c *ControlPlane) makeFiles() error {
	source, err := files.New(c.cfg.Manifests, c.engine)
	c.follows = Follows{Source: source, Reports: c.engine}
	return err
}

// follow wires what follows the platform.
func (c *ControlPlane) follow() (err error) {
	c.follows, err = c.platform.Follow(Parts{Compiler: c.compiler, Authority: c.ca, Engine: c.engine, Synced: c.engine.synced, Ready: &c.ready})
	c.engine.shared, c.engine.company, c.engine.touched = c.follows.Releases, c.follows.Company, c.follows.Touched
	return err
}

func (c *ControlPlane) listen() (err error) {
	cfg := &c.cfg
	for _, own := range []prometheus.Collector{collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		if err := cfg.Registry.Register(own); err != nil {
			return fmt.Errorf("metrics: %w", err)
		}
	}
	l, err := net.Listen("tcp", cfg.XDSAddress)
	if err != nil {
		return fmt.Errorf("xDS: listen on %s: %w", cfg.XDSAddress, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	c.server = &server{
		listener: l, tls: c.ca.ServerTLS(), auth: c.auth, after: c.engine.synced,
		services: services{ads: c.xds, ca: ca.NewService(c.ca, authorizer{c.compiler}), node: nodes.NewService(c.follows.Reports, cfg.Log.Named("nodes"))},
	}
	if c.admin, err = admin.Listen(cfg.AdminAddress, true, c.adminHandler()); err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	if c.metrics, err = admin.Listen(cfg.MetricsAddress, false, admin.MetricsHandler(cfg.Registry)); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	if c.readiness, err = admin.Listen(cfg.ReadyAddress, false, admin.ReadyHandler(&c.ready)); err != nil {
		return fmt.Errorf("readiness: %w", err)
	}
	return nil
}

// authorizer lets a node have the identities of the live pods that it runs, and a
// workload its own.
type authorizer struct{ compiler *compile.Compiler }

func (a authorizer) Authorize(caller nodes.Caller, id identity.ID) error {
	if w := caller.Workload; w != nil {
		return a.compiler.IsPod(compile.PodClaim{
			Node: caller.Node, Name: types.NamespacedName{Namespace: w.Namespace, Name: w.Pod}, UID: types.UID(w.UID),
			ServiceAccount: w.ServiceAccount, Gateway: w.Gateway,
		}, id)
	}
	return a.compiler.NodeRuns(caller.Node, id)
}

// XDSAddr is where nodes are served.
func (c *ControlPlane) XDSAddr() net.Addr { return c.server.listener.Addr() }

// WebhookAddr is where API servers are answered, nil without a webhook.
func (c *ControlPlane) WebhookAddr() net.Addr { return c.follows.Webhook }

// AdminAddr is where the control plane can be looked into.
func (c *ControlPlane) AdminAddr() net.Addr { return c.admin.Addr() }

// MetricsAddr is where metrics are served.
func (c *ControlPlane) MetricsAddr() net.Addr { return c.metrics.Addr() }

// ReadyAddr is where readiness is served.
func (c *ControlPlane) ReadyAddr() net.Addr { return c.readiness.Addr() }

// Run serves until ctx ends. It is called once.
func (c *ControlPlane) Run(ctx context.Context) error {
	synced := c.ready.Task("first complete state of the mesh")
	serving := c.ready.Task("xDS: serving")
	c.server.serving = func() {
		synced.Done()
		serving.Done()
		c.cfg.Log.Info("serving", zap.Stringer("xds", c.XDSAddr()), zap.Stringer("admin", c.AdminAddr()))
	}
	var g lifecycle.Group
	g.Add("readiness", c.readiness)
	g.Add("metrics", c.metrics)
	g.Add("admin", c.admin)
	g.Add("certificate authority", c.ca)
	g.Add("node credentials", c.auth)
	g.Add("engine", c.engine)
	g.Add("source", c.follows.Source)
	if c.follows.Add != nil {
		c.follows.Add(&g)
	}
	g.Add("xDS", c.server)
	return g.Run(ctx)
}
