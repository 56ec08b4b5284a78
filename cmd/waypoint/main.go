// Command waypoint is the layer-7 proxy of services that ask for one.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/waypoint"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := parse(os.Args[1:], os.Getenv)
	if err != nil {
		fmt.Fprintln(os.Stderr, "waypoint:", err)
		os.Exit(2)
	}
	// The QUIC library would say in plain text, among lines of JSON, that it may not have the buffer that it wants.
	_ = os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	w, err := waypoint.New(cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if err := w.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "waypoint:", err)
		os.Exit(1)
	}
}

// parse reads flags, and from the environment what flags leave out: --xds-address
// is AMBIT_XDS_ADDRESS.
func parse(args []string, getenv func(string) string) (waypoint.Config, error) {
	var cfg waypoint.Config
	var log telemetry.LogConfig
	var accessLog string
	f := pflag.NewFlagSet("waypoint", pflag.ContinueOnError)
	f.StringVar(&cfg.Gateway, "gateway", "", "the Gateway that this is a waypoint of, <namespace>/<name>")
	f.StringVar(&cfg.Pod, "pod", "", "name of this pod")
	f.StringVar(&cfg.PodUID, "pod-uid", "", "UID of this pod, by which peers of a process of it that was killed hear from the next one that it is gone")
	f.StringVar(&cfg.ServiceAccount, "service-account", "", "service account of this pod")
	f.StringVar(&cfg.Node, "node", "", "name of this node")
	f.StringVar(&cfg.Cluster, "cluster-id", "Kubernetes", "id of the cluster")
	f.StringVar(&cfg.Network, "network", "", "network of this pod")
	f.StringVar(&cfg.TrustDomain, "trust-domain", "cluster.local", "trust domain of the workloads")
	f.StringVar(&cfg.XDS.Address, "xds-address", "", "host:port of the control plane")
	f.StringVar(&cfg.CA.Address, "ca-address", "", "host:port of the authority; the control plane if empty")
	f.StringVar(&cfg.XDS.ServerName, "xds-server-name", "ambit-controlplane.ambit-system.svc", "name in the control plane's certificate")
	f.StringVar(&cfg.XDS.RootFile, "xds-root", "", "PEM file with the control plane's roots")
	f.StringVar(&cfg.XDS.TokenFile, "token-file", "", "file with this pod's token")
	f.StringVar(&cfg.HBONEAddress, "hbone-address", ":15008", "where tunnels come in, over TCP and over QUIC")
	f.StringVar(&cfg.AdminAddress, "admin-address", "127.0.0.1:15000", "admin port, on loopback")
	f.StringVar(&cfg.MetricsAddress, "metrics-address", ":15020", "metrics port")
	f.StringVar(&cfg.ReadyAddress, "ready-address", ":15021", "readiness port")
	f.DurationVar(&cfg.CertTTL, "cert-ttl", 0, "life of certificates; 24h if 0")
	f.DurationVar(&cfg.ShutdownDelay, "shutdown-delay", 0, "how long after a stop it serves on as before, for nodes that have not heard of it yet; drain-timeout follows")
	f.DurationVar(&cfg.Drain, "drain-timeout", 0, "how long requests go on after a stop; 25s if 0, without bound if negative")
	f.StringVar(&cfg.Tracing.Endpoint, "otlp-endpoint", "", "collector of spans that speaks OTLP over gRPC, host:port or https://host:port; none if empty")
	f.Uint32Var(&cfg.Sampling, "trace-sampling", 10_000, "traces that are recorded when nobody has decided, in millionths")
	f.BoolVar(&cfg.IstioMetrics, "istio-metrics", false, "count requests under their Istio names, too")
	f.IntVar(&cfg.Flows, "flow-records", 0, "flow records that are kept; 4096 if 0")
	bounds(f, &cfg)
	f.StringVar(&log.Level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&log.Format, "log-format", "json", "json or text")
	f.StringVar(&accessLog, "access-log", "stdout", "stdout, off, or a file")
	if err := telemetry.ParseFlags(f, args, getenv); err != nil {
		return cfg, err
	}
	cfg.HTTP2.MaxHeaderBytes, cfg.HTTP2.MaxFields = cfg.HTTP1.MaxHeaderBytes, cfg.HTTP1.MaxFields
	cfg.XDS.ClusterID = cfg.Cluster
	cfg.CA.ServerName, cfg.CA.RootFile, cfg.CA.TokenFile, cfg.CA.ClusterID = cfg.XDS.ServerName, cfg.XDS.RootFile, cfg.XDS.TokenFile, cfg.Cluster
	var err error
	if cfg.Log, cfg.Level, err = telemetry.NewLogger(log, os.Stderr); err != nil {
		return cfg, err
	}
	cfg.AccessLog, err = telemetry.OpenAccessLog(accessLog)
	return cfg, err
}

// bounds are those of what clients may send; internal/limits has them by name; 0 is the default.
func bounds(f *pflag.FlagSet, cfg *waypoint.Config) {
	f.IntVar(&cfg.HTTP1.MaxHeaderBytes, "max-header-bytes", 0, "size of a request's or response's head; 64 KiB if 0")
	f.IntVar(&cfg.HTTP1.MaxFields, "max-header-fields", 0, "field lines of a head; 128 if 0")
	f.IntVar(&cfg.HTTP1.MaxTargetBytes, "max-target-bytes", 0, "size of an HTTP/1.1 request target; 16 KiB if 0")
	f.DurationVar(&cfg.HTTP1.HeaderTimeout, "header-timeout", 0, "how long an HTTP/1.1 head may take; 10s if 0")
	f.DurationVar(&cfg.HTTP1.BodyTimeout, "body-timeout", 0, "pause within a body after which it is given up; off if 0")
	f.DurationVar(&cfg.HTTP1.IdleTimeout, "idle-timeout", 0, "how long a client's HTTP/1.1 connection may be idle; 1h if 0")
	f.IntVar(&cfg.MaxHandshakes, "max-handshakes", 0, "tunnel handshakes under way at a time, over TCP and over QUIC; 256 if 0")
	f.IntVar(&cfg.MaxUDPSessions, "max-udp-sessions", 0, "sessions of UDP of one client at a time; 4096 if 0")
	f.IntVar(&cfg.HTTP2.MaxStreams, "max-streams", 0, "requests at a time on an HTTP/2 connection, at most 256; 100 if 0")
}
