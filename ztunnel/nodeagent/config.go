package nodeagent

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"go.uber.org/zap"

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

	// DNSLeftAlone leaves the DNS queries of all pods to their resolvers.
	DNSLeftAlone bool

	Log   *zap.Logger
	Level zap.AtomicLevel

	// drainPoll and unenrolled are shorter in tests.
	drainPoll, unenrolled time.Duration
}

// Validate names the first field that cannot be used.
func (c Config) Validate() error {
	if c.Node == "" {
		return errors.New("node: must be set to this node's name")
	}
	for _, p := range []struct{ name, path string }{
		{"zds socket", c.ZDSSocket}, {"cni socket", c.CNISocket}, {"state dir", c.StateDir},
	} {
		if !filepath.IsAbs(p.path) {
			return fmt.Errorf("%s %q: want an absolute path", p.name, p.path)
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"start timeout", c.StartTimeout}, {"drain timeout", c.DrainTimeout}, {"repair interval", c.RepairInterval},
	} {
		if d.value < 0 {
			return fmt.Errorf("%s %s: must not be negative", d.name, d.value)
		}
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
