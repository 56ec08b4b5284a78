package ztunnel

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/xdsclient"
)

// Config says how a ztunnel runs. Zero values mean the defaults that are given.
type Config struct {
	// Node is the name of the node; required.
	Node string
	// Cluster and Network are where the node is; "Kubernetes" and "".
	Cluster, Network string
	// TrustDomain of the pods on this node; cluster.local.
	TrustDomain string
	// XDS is the control plane, CA the authority; CA is XDS when its address is empty.
	XDS, CA xdsclient.Target
	// ZDSSocket is where the node agent listens; required.
	ZDSSocket string
	// AdminAddress (loopback), MetricsAddress and ReadyAddress are listened on;
	// 127.0.0.1:15000, :15020 and :15021.
	AdminAddress, MetricsAddress, ReadyAddress string
	// CertTTL is the life that certificates are asked for; 24 h.
	CertTTL time.Duration
	// Drain bounds how long connections go on after the proxy was told to stop;
	// without bound unless positive.
	Drain time.Duration
	// ClusterDomain is the DNS suffix of service names; cluster.local.
	ClusterDomain string
	// Resolvers are asked for hosts outside of the mesh when a pod has asked none
	// itself yet.
	Resolvers []netip.AddrPort
	// ReleasePorts lets go of the admin, metrics and readiness ports as soon as the
	// proxy is told to stop, and waits for them at the start: for a successor in the
	// same network namespace.
	ReleasePorts bool
	// SnapshotFile keeps what the control plane last said, to start from while it is
	// away; none if empty. One that is older than SnapshotMaxAge is not used; 24 h.
	SnapshotFile   string
	SnapshotMaxAge time.Duration
	// HBONE bounds tunnel connections.
	HBONE hbone.Config
	// Log is where the proxy logs, Level what /logging changes.
	Log   *zap.Logger
	Level zap.AtomicLevel
	// AccessLog gets one JSON line for each connection; nil for none.
	AccessLog io.Writer
	// Flows is how many flow records are kept; 4096.
	Flows int
}

func (c Config) withDefaults() Config {
	def := func(s *string, d string) {
		if *s == "" {
			*s = d
		}
	}
	def(&c.Cluster, "Kubernetes")
	def(&c.TrustDomain, identity.DefaultTrustDomain)
	def(&c.ClusterDomain, "cluster.local")
	def(&c.AdminAddress, "127.0.0.1:15000")
	def(&c.MetricsAddress, ":15020")
	def(&c.ReadyAddress, ":15021")
	if c.CertTTL == 0 {
		c.CertTTL = 24 * time.Hour
	}
	if c.CA.Address == "" {
		c.CA = c.XDS
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

// Validate names the first field that cannot be used.
func (c Config) Validate() error {
	c = c.withDefaults()
	if c.Node == "" {
		return errors.New("ztunnel: node: must be set to the name of this node")
	}
	if c.ZDSSocket == "" {
		return errors.New("ztunnel: ZDS socket: must be set to the path that the node agent listens on")
	}
	if err := identity.ValidateTrustDomain(c.TrustDomain); err != nil {
		return fmt.Errorf("ztunnel: %w", err)
	}
	if c.CertTTL < time.Second {
		return fmt.Errorf("ztunnel: certificate TTL %s: want at least 1s", c.CertTTL)
	}
	if c.SnapshotFile != "" && !filepath.IsAbs(c.SnapshotFile) {
		return fmt.Errorf("ztunnel: snapshot file %q: want an absolute path", c.SnapshotFile)
	}
	if c.SnapshotMaxAge < 0 {
		return fmt.Errorf("ztunnel: snapshot max age %s: must not be negative", c.SnapshotMaxAge)
	}
	if err := c.XDS.Validate(); err != nil {
		return fmt.Errorf("ztunnel: xDS: %w", err)
	}
	if err := c.CA.Validate(); err != nil {
		return fmt.Errorf("ztunnel: CA: %w", err)
	}
	return c.HBONE.Validate()
}
