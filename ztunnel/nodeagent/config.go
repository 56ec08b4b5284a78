package nodeagent

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/xdsclient"
)

// Config configures an Agent.
type Config struct {
	// Node is the name of this node.
	Node string
	// XDS is the control plane: resources and reports.
	XDS xdsclient.Target
	// ZDSSocket is where ztunnel connects, CNISocket where the CNI plugin does.
	ZDSSocket, CNISocket string
	// StateDir holds what must survive a restart.
	StateDir string

	// EnrolledFile is where the namespaces are left that the CNI plugin must keep
	// waiting while the agent is away; "enrolled.json" in StateDir if empty.
	EnrolledFile string

	// CNI is the plugin's installation; nothing is installed without a ConfDir.
	CNI CNIConfig
	// ProcDir is the node's /proc and NetnsDir where its runtime keeps network
	// namespaces, for finding those of pods that run already. Without ProcDir
	// pods are known by the CNI plugin only.
	ProcDir, NetnsDir string
	// HostProbes lets the probes of the node's kubelet through to captured pods,
	// by rules in this process's network namespace, which must be the node's.
	HostProbes bool

	AdminAddress, MetricsAddress, ReadyAddress string

	// StartTimeout bounds how long a pod waits to be captured before its start
	// fails; 30 s if zero.
	StartTimeout time.Duration
	// DrainTimeout bounds how long connections of a released pod go on through
	// ztunnel; an hour if zero. The pod's rules stay that long at most.
	DrainTimeout time.Duration
	// RepairInterval is the time between two looks at each pod's rules; 30 s if
	// zero.
	RepairInterval time.Duration
	// UninstallDrain bounds how long connections go on through ztunnel in pods
	// that are released because the agent is taken off the node; 30 s if zero.
	UninstallDrain time.Duration
	// ZtunnelSnapshot is the file that ztunnel keeps beside the socket, which Uninstall
	// removes; none if empty.
	ZtunnelSnapshot string

	// DNSLeftAlone leaves the DNS queries of all pods to their resolvers.
	DNSLeftAlone bool

	Log   *zap.Logger
	Level zap.AtomicLevel

	// drainPoll and unenrolled are shorter in tests.
	drainPoll, unenrolled time.Duration
	// host is the node's network namespace; that of the process if nil.
	host *netns.Namespace
}

// CNIConfig is where the CNI plugin goes.
type CNIConfig struct {
	// ConfDir and BinDir are the node's directories as this process sees them.
	ConfDir, BinDir string
	// Program is the plugin's program in this process's image.
	Program string
	// HostSocket and HostEnrolledFile are CNISocket and EnrolledFile as the node
	// sees them; the same if empty.
	HostSocket, HostEnrolledFile string
	// ExemptNamespaces are those whose pods the plugin starts whatever happens;
	// the mesh's own.
	ExemptNamespaces []string
}

// Validate names the first field that cannot be used.
func (c Config) Validate() error {
	if c.Node == "" {
		return errors.New("node: must be set to this node's name")
	}
	for _, p := range []struct{ name, path string }{
		{"zds socket", c.ZDSSocket},
		{"cni socket", c.CNISocket},
		{"state dir", c.StateDir},
		{"enrolled file", c.EnrolledFile},
		{"proc dir", c.ProcDir},
		{"netns dir", c.NetnsDir},
		{"cni conf dir", c.CNI.ConfDir},
		{"cni bin dir", c.CNI.BinDir},
		{"cni program", c.CNI.Program},
		{"cni host socket", c.CNI.HostSocket},
		{"cni host enrolled file", c.CNI.HostEnrolledFile},
	} {
		if p.path == "" && !slices.Contains([]string{"zds socket", "cni socket", "state dir"}, p.name) {
			continue
		}
		if !filepath.IsAbs(p.path) {
			return fmt.Errorf("%s %q: want an absolute path", p.name, p.path)
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"start timeout", c.StartTimeout},
		{"drain timeout", c.DrainTimeout},
		{"repair interval", c.RepairInterval},
		{"uninstall drain", c.UninstallDrain},
	} {
		if d.value < 0 {
			return fmt.Errorf("%s %s: must not be negative", d.name, d.value)
		}
	}
	if c.CNI.ConfDir != "" && (c.CNI.BinDir == "" || c.CNI.Program == "") {
		return errors.New("cni bin dir, cni program: must be set together with the cni conf dir")
	}
	return nil
}

func (c Config) withDefaults() Config {
	orDefault := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	orDefault(&c.StartTimeout, 30*time.Second)
	orDefault(&c.DrainTimeout, time.Hour)
	orDefault(&c.RepairInterval, 30*time.Second)
	orDefault(&c.UninstallDrain, 30*time.Second)
	for _, p := range []struct {
		path *string
		v    string
	}{
		{&c.EnrolledFile, filepath.Join(c.StateDir, "enrolled.json")},
		{&c.CNI.HostSocket, c.CNISocket},
	} {
		if *p.path == "" {
			*p.path = p.v
		}
	}
	if c.CNI.HostEnrolledFile == "" {
		c.CNI.HostEnrolledFile = c.EnrolledFile
	}
	orDefault(&c.drainPoll, 500*time.Millisecond)
	orDefault(&c.unenrolled, 5*time.Second)
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Level == (zap.AtomicLevel{}) {
		c.Level = zap.NewAtomicLevel()
	}
	return c
}
