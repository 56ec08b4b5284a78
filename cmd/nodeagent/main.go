// Command nodeagent captures the node's pods for ztunnel and releases them.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := parse(os.Args[1:], os.Getenv)
	if err != nil {
		fmt.Fprintln(os.Stderr, "nodeagent:", err)
		os.Exit(2)
	}
	a, err := nodeagent.New(cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, "nodeagent:", err)
		os.Exit(2)
	}
	if err := a.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "nodeagent:", err)
		os.Exit(1)
	}
}

// parse reads flags, and from the environment what flags leave out: --xds-address
// is AMBIT_XDS_ADDRESS.
func parse(args []string, getenv func(string) string) (nodeagent.Config, error) {
	var cfg nodeagent.Config
	var log telemetry.LogConfig
	f := pflag.NewFlagSet("nodeagent", pflag.ContinueOnError)
	f.StringVar(&cfg.Node, "node", "", "name of this node")
	f.StringVar(&cfg.XDS.ClusterID, "cluster-id", "Kubernetes", "id of the cluster")
	f.StringVar(&cfg.XDS.Address, "xds-address", "", "host:port of the control plane")
	f.StringVar(&cfg.XDS.ServerName, "xds-server-name", "ambit-controlplane.ambit-system.svc", "name in the control plane's certificate")
	f.StringVar(&cfg.XDS.RootFile, "xds-root", "", "PEM file with the control plane's roots")
	f.StringVar(&cfg.XDS.TokenFile, "token-file", "", "file with this node's token")
	f.StringVar(&cfg.ZDSSocket, "zds-socket", "/var/run/ztunnel/ztunnel.sock", "socket for ztunnel")
	f.StringVar(&cfg.CNISocket, "cni-socket", "/var/run/ambit/cni.sock", "socket for the CNI plugin")
	f.StringVar(&cfg.StateDir, "state-dir", "/var/lib/ambit/nodeagent", "directory for what must survive a restart")
	f.StringVar(&cfg.AdminAddress, "admin-address", "127.0.0.1:15010", "admin port, on loopback")
	f.StringVar(&cfg.MetricsAddress, "metrics-address", ":15024", "metrics port")
	f.StringVar(&cfg.ReadyAddress, "ready-address", ":15022", "readiness port")
	f.DurationVar(&cfg.StartTimeout, "start-timeout", 0, "how long a pod waits to be captured before its start fails; 30s if 0")
	f.DurationVar(&cfg.DrainTimeout, "drain-timeout", 0, "how long connections of a released pod go on through ztunnel; 1h if 0")
	f.DurationVar(&cfg.RepairInterval, "repair-interval", 0, "time between two looks at each pod's rules; 30s if 0")
	dnsCapture := f.Bool("dns-capture", true, "redirect the DNS queries of captured pods to ztunnel")
	f.StringVar(&log.Level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&log.Format, "log-format", "json", "json or text")
	if err := telemetry.ParseFlags(f, args, getenv); err != nil {
		return cfg, err
	}
	cfg.DNSLeftAlone = !*dnsCapture
	var err error
	cfg.Log, cfg.Level, err = telemetry.NewLogger(log, os.Stderr)
	return cfg, err
}
