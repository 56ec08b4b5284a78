package waypoint

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/http1"
	"github.com/ambit-mesh/ambit/internal/http2"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/xdsclient"
)

// Config says how a waypoint runs. Zero values mean the defaults that are given.
type Config struct {
	// Gateway is the Gateway that this is a waypoint of, <namespace>/<name>;
	// required.
	Gateway string
	// Pod is the name of this pod, in the Gateway's namespace, and ServiceAccount
	// that which it runs as; required.
	Pod, ServiceAccount string
	// PodUID is that of this pod. Peers that had tunnels over QUIC with a process of it
	// that was killed hear from the next one that these are gone; "" leaves them to find
	// out.
	PodUID string
	// Node, Cluster and Network are where the pod is; "", "Kubernetes" and "".
	Node, Cluster, Network string
	// TrustDomain of the mesh; cluster.local.
	TrustDomain string
	// XDS is the control plane, CA the authority; CA is XDS when its address is empty.
	XDS, CA xdsclient.Target
	// HBONEAddress is where tunnels come in, over TCP and over QUIC; :15008.
	HBONEAddress string
	// AdminAddress (loopback), MetricsAddress and ReadyAddress are listened on;
	// 127.0.0.1:15000, :15020 and :15021.
	AdminAddress, MetricsAddress, ReadyAddress string
	// CertTTL is the life that certificates are asked for; 24 h.
	CertTTL time.Duration
	// Drain bounds how long requests go on after the waypoint was told to stop;
	// 25 s. Negative is without bound.
	Drain time.Duration
	// ShutdownDelay is for how long after it was told to stop the waypoint serves on as
	// before, also who comes anew: nodes that have not heard yet that it leaves. Only then
	// the drain time begins. 0.
	ShutdownDelay time.Duration
	// MaxHandshakes bounds the tunnel handshakes under way, of each transport; 256.
	MaxHandshakes int
	// MaxUDPSessions bounds the sessions of datagrams of one client; 4096.
	MaxUDPSessions int
	// HBONE bounds tunnel connections, HTTP1 and HTTP2 those of clients and to
	// endpoints.
	HBONE hbone.Config
	HTTP1 http1.Config
	HTTP2 http2.Config
	// Tracing says where spans go, and Sampling which share of the traces that
	// nobody has decided about is recorded, in millionths.
	Tracing  trace.Config
	Sampling uint32
	// IstioMetrics adds request metrics with their Istio names.
	IstioMetrics bool
	// Flows is how many flow records are kept; 4096.
	Flows int
	// Log is where the waypoint logs, Level what /logging changes.
	Log   *zap.Logger
	Level zap.AtomicLevel
	// AccessLog gets one JSON line for each request; nil for none.
	AccessLog io.Writer
}

func (c Config) withDefaults() Config {
	def := func(s *string, d string) {
		if *s == "" {
			*s = d
		}
	}
	def(&c.Cluster, "Kubernetes")
	def(&c.TrustDomain, identity.DefaultTrustDomain)
	def(&c.HBONEAddress, ":15008")
	def(&c.AdminAddress, "127.0.0.1:15000")
	def(&c.MetricsAddress, ":15020")
	def(&c.ReadyAddress, ":15021")
	if c.CertTTL == 0 {
		c.CertTTL = 24 * time.Hour
	}
	if c.Drain == 0 {
		c.Drain = 25 * time.Second
	}
	if c.MaxHandshakes == 0 {
		c.MaxHandshakes = 256
	}
	if c.MaxUDPSessions == 0 {
		c.MaxUDPSessions = 4096 // as many as a pod has of its own
	}
	if c.CA.Address == "" {
		c.CA = c.XDS
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	namespace, name, _ := strings.Cut(c.Gateway, "/")
	c.Tracing.Resource = trace.Resource{
		Service: name, ServiceNamespace: namespace, Version: version(), Pod: c.Pod, Namespace: namespace, Node: c.Node, Cluster: c.Cluster,
	}
	c.Tracing.Log = c.Log
	return c
}

// Validate names the first field that cannot be used.
func (c Config) Validate() error {
	c = c.withDefaults()
	namespace, name, ok := strings.Cut(c.Gateway, "/")
	switch {
	case !ok || namespace == "" || name == "" || strings.Contains(name, "/"):
		return fmt.Errorf("waypoint: gateway %q: want <namespace>/<name>", c.Gateway)
	case c.Pod == "":
		return errors.New("waypoint: pod: must be set to the name of this pod")
	case c.ServiceAccount == "":
		return errors.New("waypoint: service account: must be set to that of this pod")
	case c.CertTTL < time.Second:
		return fmt.Errorf("waypoint: certificate TTL %s: want at least 1s", c.CertTTL)
	case c.ShutdownDelay < 0:
		return fmt.Errorf("waypoint: shutdown delay %s: must not be negative", c.ShutdownDelay)
	case c.MaxHandshakes < 0:
		return fmt.Errorf("waypoint: max handshakes %d: want at least 1", c.MaxHandshakes)
	case c.MaxUDPSessions < 0:
		return fmt.Errorf("waypoint: max UDP sessions %d: want at least 1", c.MaxUDPSessions)
	case c.Sampling > trace.One:
		return fmt.Errorf("waypoint: sampling %d: want at most %d millionths", c.Sampling, trace.One)
	}
	if _, err := identity.Parse(c.identity().String()); err != nil {
		return fmt.Errorf("waypoint: %w", err)
	}
	if err := c.XDS.Validate(); err != nil {
		return fmt.Errorf("waypoint: xDS: %w", err)
	}
	if err := c.CA.Validate(); err != nil {
		return fmt.Errorf("waypoint: CA: %w", err)
	}
	for _, v := range []interface{ Validate() error }{c.HBONE, c.HTTP1, c.HTTP2, c.Tracing} {
		if err := v.Validate(); err != nil {
			return fmt.Errorf("waypoint: %w", err)
		}
	}
	return nil
}

// identity of the waypoint.
func (c Config) identity() identity.ID {
	namespace, _, _ := strings.Cut(c.Gateway, "/")
	return identity.ID{TrustDomain: c.TrustDomain, Namespace: namespace, ServiceAccount: c.ServiceAccount}
}

// ownPorts are those that clients in the mesh may connect to.
func (c Config) ownPorts() []uint16 {
	var out []uint16
	for _, address := range []string{c.MetricsAddress, c.ReadyAddress} {
		_, port, err := net.SplitHostPort(address)
		if n, perr := strconv.ParseUint(port, 10, 16); err == nil && perr == nil {
			out = append(out, uint16(n))
		}
	}
	return out
}
