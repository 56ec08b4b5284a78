package command

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/ambit-mesh/ambit/controlplane"
	"github.com/ambit-mesh/ambit/internal/telemetry"
)

// Program is one of the programs.
type Program struct {
	// Name is what its messages begin with.
	Name string
	// Kubernetes prepares what follows the Kubernetes API. A program without it reads
	// files only, and has no flags for clusters.
	Kubernetes func(controlplane.Config) (controlplane.Platform, error)
}

// Main runs a control plane until it is told to end, logs and complains to stderr, and
// gives the exit code: 2 if it cannot be set up, 1 if it has failed.
func (p Program) Main(args []string, getenv func(string) string, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fail := func(code int, err error) int {
		fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
		return code
	}
	cfg, err := p.parse(args, getenv, stderr)
	if err != nil {
		return fail(2, err)
	}
	c, err := controlplane.New(cfg)
	if err != nil {
		return fail(2, err)
	}
	if err := c.Run(ctx); err != nil {
		return fail(1, err)
	}
	return 0
}

// parse reads flags, and from the environment what flags leave out: --xds-address
// is AMBIT_XDS_ADDRESS.
func (p Program) parse(args []string, getenv func(string) string, stderr io.Writer) (controlplane.Config, error) {
	cfg := controlplane.Config{Kubernetes: p.Kubernetes}
	var log telemetry.LogConfig
	f := pflag.NewFlagSet(p.Name, pflag.ContinueOnError)
	f.SetOutput(stderr)
	sources := "files"
	if p.Kubernetes != nil {
		sources = "files or kubernetes"
		clusterFlags(f, &cfg)
	}
	f.StringVar(&cfg.Source, "source", controlplane.SourceFiles, "where the mesh is read from: "+sources)
	f.StringArrayVar(&cfg.Manifests, "manifests", nil, "directory of manifests; of several, later ones overlay earlier ones")
	f.StringVar(&cfg.StateDir, "state-dir", "", "directory for the authority, the captured set and root-cert.pem")
	f.StringVar(&cfg.XDSAddress, "xds-address", "0.0.0.0:15012", "xDS, CA and node service, over TLS")
	f.StringVar(&cfg.AdminAddress, "admin-address", "127.0.0.1:15000", "admin port, on loopback")
	f.StringVar(&cfg.MetricsAddress, "metrics-address", ":15014", "metrics port")
	f.StringVar(&cfg.ReadyAddress, "ready-address", ":15021", "readiness port")
	f.StringVar(&cfg.TrustDomain, "trust-domain", "cluster.local", "trust domain of the workloads")
	f.StringVar(&cfg.ClusterID, "cluster-id", "Kubernetes", "id of the cluster")
	f.StringVar(&cfg.ClusterDomain, "cluster-domain", "cluster.local", "DNS suffix of services")
	f.BoolVar(&cfg.IstioLabels, "compat-istio-labels", false, "honour the labels istio.io/dataplane-mode, use-waypoint, use-waypoint-namespace and waypoint-for, and Gateways of class istio-waypoint, as if they were the mesh's own")
	f.StringVar(&cfg.Outbound, "outbound", "allow-any", "what pods may connect to where the label of their namespace does not say: allow-any or registry-only")
	f.StringVar(&cfg.RootNamespace, "root-namespace", "ambit-system", "namespace of mesh-wide policies")
	f.StringVar(&cfg.Transport, "tunnel-transport", "auto", "what tunnels use: auto (HTTP/3 for UDP, HTTP/2 for TCP), h2, or h3 for both; the annotation ambit-mesh.io/transport of a Namespace or Pod wins")
	f.DurationVar(&cfg.CertTTL, "cert-ttl", 0, "longest life of a workload certificate; 24h if 0")
	f.DurationVar(&cfg.RotationOverlap, "ca-rotation-overlap", 0, "how long a new root is known before it is used, at least --cert-ttl; a tenth more than that if 0")
	f.StringVar(&cfg.NodeCredentials, "node-credentials", "", "file with the SHA-256 of each node's token")
	f.StringArrayVar(&cfg.ServingNames, "serving-name", nil, "DNS name or address of the serving certificate; repeatable (default "+controlplane.DefaultServingName+")")
	f.StringVar(&cfg.CARootCert, "ca-root-cert", "", "plugged-in CA: root bundle, PEM")
	f.StringVar(&cfg.CACert, "ca-cert", "", "plugged-in CA: issuing certificate, PEM")
	f.StringVar(&cfg.CAKey, "ca-key", "", "plugged-in CA: its key, PEM")
	f.StringVar(&cfg.CAChain, "ca-chain", "", "plugged-in CA: certificates between it and a root, PEM")
	f.StringVar(&cfg.CACRL, "ca-crl", "", "plugged-in CA: revocation lists of it and of those above it, PEM; read again when the file changes")
	f.StringVar(&log.Level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&log.Format, "log-format", "json", "json or text")
	if err := telemetry.ParseFlags(f, args, getenv); err != nil {
		return cfg, err
	}
	var err error
	cfg.Log, cfg.Level, err = telemetry.NewLogger(log, stderr)
	return cfg, err
}

// clusterFlags defines the flags that are for --source=kubernetes.
func clusterFlags(f *pflag.FlagSet, cfg *controlplane.Config) {
	f.StringVar(&cfg.Kubeconfig, "kubeconfig", "", "how to reach the Kubernetes API; as the pod's ServiceAccount if empty")
	f.StringVar(&cfg.WebhookAddress, "webhook-address", "", "kubernetes: port of the admission webhook, over TLS, which warns of what will not take effect; none if empty")
	f.StringVar(&cfg.WaypointImage, "waypoint-image", "", "kubernetes: image of the waypoints, without which none are made")
	f.StringVar(&cfg.WaypointPullPolicy, "waypoint-pull-policy", "", "kubernetes: when the image is pulled, Always, IfNotPresent or Never; as the cluster has it if empty")
	f.StringVar(&cfg.WaypointPriorityClass, "waypoint-priority-class", "", "kubernetes: priority class of the waypoints' pods")
	f.StringVar(&cfg.WaypointLogLevel, "waypoint-log-level", "info", "kubernetes: log level of the waypoints")
	f.BoolVar(&cfg.NoTaints, "no-node-taints", false, "kubernetes: do not keep pods off a fresh node until its node agent is there")
}
