// Command ztunnel is the node's layer-4 proxy.
package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/miekg/dns"

	"github.com/spf13/pflag"

	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := parse(os.Args[1:], os.Getenv)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ztunnel:", err)
		os.Exit(2)
	}
	z, err := ztunnel.New(cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ztunnel:", err)
		os.Exit(2)
	}
	if err := z.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "ztunnel:", err)
		os.Exit(1)
	}
}

// parse reads flags, and from the environment what flags leave out: --xds-address
// is AMBIT_XDS_ADDRESS.
func parse(args []string, getenv func(string) string) (ztunnel.Config, error) {
	var cfg ztunnel.Config
	var log telemetry.LogConfig
	var accessLog string
	f := pflag.NewFlagSet("ztunnel", pflag.ContinueOnError)
	f.StringVar(&cfg.Node, "node", "", "name of this node")
	f.StringVar(&cfg.Cluster, "cluster-id", "Kubernetes", "id of the cluster")
	f.StringVar(&cfg.Network, "network", "", "network of this node")
	f.StringVar(&cfg.TrustDomain, "trust-domain", "cluster.local", "trust domain of the workloads")
	f.StringVar(&cfg.XDS.Address, "xds-address", "", "host:port of the control plane")
	f.StringVar(&cfg.CA.Address, "ca-address", "", "host:port of the authority; the control plane if empty")
	f.StringVar(&cfg.XDS.ServerName, "xds-server-name", "ambit-controlplane.ambit-system.svc", "name in the control plane's certificate")
	f.StringVar(&cfg.XDS.RootFile, "xds-root", "", "PEM file with the control plane's roots")
	f.StringVar(&cfg.XDS.TokenFile, "token-file", "", "file with this node's token")
	f.StringVar(&cfg.ZDSSocket, "zds-socket", "/var/run/ztunnel/ztunnel.sock", "socket of the node agent")
	f.StringVar(&cfg.AdminAddress, "admin-address", "127.0.0.1:15000", "admin port, on loopback")
	f.StringVar(&cfg.MetricsAddress, "metrics-address", ":15020", "metrics port")
	f.StringVar(&cfg.ReadyAddress, "ready-address", ":15021", "readiness port")
	f.DurationVar(&cfg.CertTTL, "cert-ttl", 0, "life of certificates; 24h if 0")
	f.DurationVar(&cfg.Drain, "drain-timeout", 0, "how long connections go on after a stop; without bound if 0")
	f.BoolVar(&cfg.ReleasePorts, "release-ports", false, "let go of the admin, metrics and readiness ports at once when stopped, for a successor in the same network namespace")
	f.StringVar(&cfg.SnapshotFile, "snapshot-file", "", "file that keeps what the control plane last said, to start from while it is away; none if empty")
	f.DurationVar(&cfg.SnapshotMaxAge, "snapshot-max-age", 0, "how old that may be; 24h if 0")
	f.StringVar(&log.Level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&log.Format, "log-format", "json", "json or text")
	f.IntVar(&cfg.Flows, "flow-records", 0, "flow records that are kept; 4096 if 0")
	f.StringVar(&accessLog, "access-log", "stdout", "stdout, off, or a file")
	f.StringVar(&cfg.ClusterDomain, "cluster-domain", "cluster.local", "DNS suffix of service names")
	resolvConf := f.String("resolv-conf", "/etc/resolv.conf", "file with the resolvers for hosts outside of the mesh, when a pod has asked none itself")
	if err := telemetry.ParseFlags(f, args, getenv); err != nil {
		return cfg, err
	}
	cfg.XDS.ClusterID = cfg.Cluster
	cfg.CA.ServerName, cfg.CA.RootFile, cfg.CA.TokenFile, cfg.CA.ClusterID = cfg.XDS.ServerName, cfg.XDS.RootFile, cfg.XDS.TokenFile, cfg.Cluster
	cfg.Resolvers = resolvers(*resolvConf)
	var err error
	if cfg.Log, cfg.Level, err = telemetry.NewLogger(log, os.Stderr); err != nil {
		return cfg, err
	}
	cfg.AccessLog, err = telemetry.OpenAccessLog(accessLog)
	return cfg, err
}

// resolvers reads a resolv.conf. Without one there are none: pods have their own.
func resolvers(path string) []netip.AddrPort {
	conf, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil
	}
	var out []netip.AddrPort
	for _, s := range conf.Servers {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, netip.AddrPortFrom(a, 53))
		}
	}
	return out
}
