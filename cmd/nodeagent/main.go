// Command nodeagent captures the node's pods for ztunnel and releases them.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/ambit-mesh/ambit/internal/admin"
	"github.com/ambit-mesh/ambit/internal/lifecycle"
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
	if cfg.uninstall {
		uninstall(ctx, cfg)
		return
	}
	a, err := nodeagent.New(cfg.Config)
	if err != nil {
		fmt.Fprintln(os.Stderr, "nodeagent:", err)
		os.Exit(2)
	}
	if err := a.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "nodeagent:", err)
		os.Exit(1)
	}
}

// uninstall takes everything off the node, and with --stay waits for the end
// afterwards, so that a DaemonSet whose pods are ready has done it on every node.
func uninstall(ctx context.Context, cfg config) {
	if err := nodeagent.Uninstall(ctx, cfg.Config); err != nil {
		fmt.Fprintln(os.Stderr, "nodeagent: uninstall:", err)
		os.Exit(1)
	}
	cfg.Log.Info("nothing of the mesh is left on this node")
	if !cfg.stay {
		return
	}
	srv, err := admin.Listen(cfg.ReadyAddress, false, admin.ReadyHandler(new(lifecycle.Readiness)))
	if err == nil {
		err = srv.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "nodeagent:", err)
		os.Exit(1)
	}
}

// config is what flags say.
type config struct {
	nodeagent.Config
	uninstall, stay bool
}

// parse reads flags, and from the environment what flags leave out: --xds-address
// is AMBIT_XDS_ADDRESS.
func parse(args []string, getenv func(string) string) (config, error) {
	var cfg config
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
	f.StringVar(&cfg.EnrolledFile, "enrolled-file", "", "where the enrolled namespaces are left for the CNI plugin; enrolled.json in the state directory if empty")
	f.StringVar(&cfg.CNI.ConfDir, "cni-conf-dir", "", "the node's directory of CNI configurations, usually /etc/cni/net.d; no CNI plugin is installed if empty")
	f.StringVar(&cfg.CNI.BinDir, "cni-bin-dir", "/opt/cni/bin", "the node's directory of CNI plugins")
	f.StringVar(&cfg.CNI.Program, "cni-program", "/usr/bin/ambit-cni", "the CNI plugin in this image")
	f.StringVar(&cfg.CNI.HostSocket, "cni-host-socket", "", "--cni-socket as the node sees it; the same if empty")
	f.StringVar(&cfg.CNI.HostEnrolledFile, "cni-host-enrolled-file", "", "--enrolled-file as the node sees it; the same if empty")
	f.StringSliceVar(&cfg.CNI.ExemptNamespaces, "cni-exempt-namespaces", []string{"ambit-system"}, "namespaces whose pods the CNI plugin never keeps waiting: the mesh's own")
	f.StringVar(&cfg.ProcDir, "proc-dir", "", "the node's /proc, for finding pods that run already (needs hostPID); they are not looked for if empty")
	f.StringVar(&cfg.NetnsDir, "netns-dir", "/var/run/netns", "where the container runtime keeps network namespaces")
	f.BoolVar(&cfg.HostProbes, "host-probes", false, "let the node's health probes through to captured pods, by rules in this process's network namespace (needs hostNetwork)")
	f.StringVar(&cfg.AdminAddress, "admin-address", "127.0.0.1:15010", "admin port, on loopback")
	f.StringVar(&cfg.MetricsAddress, "metrics-address", ":15024", "metrics port")
	f.StringVar(&cfg.ReadyAddress, "ready-address", ":15022", "readiness port")
	f.DurationVar(&cfg.StartTimeout, "start-timeout", 0, "how long a pod waits to be captured before its start fails; 30s if 0")
	f.DurationVar(&cfg.DrainTimeout, "drain-timeout", 0, "how long connections of a released pod go on through ztunnel; 1h if 0")
	f.DurationVar(&cfg.RepairInterval, "repair-interval", 0, "time between two looks at each pod's rules; 30s if 0")
	dnsCapture := f.Bool("dns-capture", true, "redirect the DNS queries of captured pods to ztunnel")
	f.DurationVar(&cfg.UninstallDrain, "uninstall-drain", 0, "how long connections go on through ztunnel when the agent is taken off the node; 30s if 0")
	f.StringVar(&cfg.ZtunnelSnapshot, "ztunnel-snapshot", "/var/run/ztunnel/mesh.snapshot", "ztunnel's --snapshot-file, which --uninstall removes; none if empty")
	f.BoolVar(&cfg.uninstall, "uninstall", false, "take everything of the mesh off this node: the CNI plugin, its entry, rules, state; through the agent if one runs")
	f.BoolVar(&cfg.stay, "stay", false, "after --uninstall: be ready and wait for the end of the process, as a DaemonSet needs it")
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
