package controlplane

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/ambit-mesh/ambit/apis/workload"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/identity"
)

// Config says how a control plane runs. Zero values mean the defaults given.
type Config struct {
	// Source is where the mesh is read from; SourceFiles.
	Source string
	// Kubernetes prepares what follows the Kubernetes API, and asks that nothing: New of
	// package controlplane/kubernetes. It is given this Config, complete. For and required
	// by SourceKubernetes.
	Kubernetes func(Config) (Platform, error)
	// Kubeconfig is a file that says how to reach the Kubernetes API; that of the
	// pod when empty.
	Kubeconfig string
	// Manifests are directories; the same object in a later one supersedes. For
	// and required by SourceFiles.
	Manifests []string
	// StateDir keeps the authority and the captured set, and publishes
	// root-cert.pem. For and required by SourceFiles.
	StateDir string
	// XDSAddress serves nodes over TLS; 0.0.0.0:15012.
	XDSAddress string
	// AdminAddress (loopback), MetricsAddress and ReadyAddress are listened on;
	// 127.0.0.1:15000, :15014 and :15021.
	AdminAddress, MetricsAddress, ReadyAddress string
	// WebhookAddress answers API servers that ask, over TLS, what of an object will not
	// take effect. For SourceKubernetes; not listened on when empty.
	WebhookAddress string
	// TrustDomain, ClusterID, ClusterDomain and RootNamespace name the mesh;
	// cluster.local, Kubernetes, cluster.local and ambit-system.
	TrustDomain, ClusterID, ClusterDomain, RootNamespace string
	// Outbound is what pods may connect to where their namespace does not say:
	// allow-any, also when empty, or registry-only.
	Outbound string
	// IstioLabels honours the istio.io twins of the mesh's labels.
	IstioLabels bool
	// Transport is what tunnels prefer: auto, h2 or h3; auto.
	Transport string
	// CertTTL is the longest life of a workload certificate; 24 h. RotationOverlap
	// is how long a new root is known before it is used; somewhat more than that.
	CertTTL, RotationOverlap time.Duration
	// NodeCredentials is the file with the hashes of the nodes' tokens. For
	// and required by SourceFiles.
	NodeCredentials string
	// ServingNames are the DNS names and addresses of the serving certificate;
	// ambit-controlplane.ambit-system.svc.
	ServingNames []string
	// CARootCert, CACert, CAKey and CAChain are an operator's authority; one of
	// our own is made when they are empty.
	CARootCert, CACert, CAKey, CAChain string
	// CACRL holds the revocation lists of that authority. Optional.
	CACRL string
	// ReleaseTimeout bounds the wait for ztunnels before a pod is released; 5 s.
	ReleaseTimeout time.Duration
	// WaypointImage, WaypointPullPolicy, WaypointPriorityClass and
	// WaypointLogLevel are of the pods that are made for waypoints on Kubernetes;
	// without an image none are made; the level is info.
	WaypointImage, WaypointPullPolicy, WaypointPriorityClass, WaypointLogLevel string
	// NoTaints leaves fresh nodes of Kubernetes without a taint.
	NoTaints bool
	// Log is where the control plane logs, Level what /logging changes.
	Log   *zap.Logger
	Level zap.AtomicLevel
	// Registry has the metrics; a new one when nil.
	Registry *prometheus.Registry
}

// Sources of the mesh.
const (
	SourceFiles      = "files"
	SourceKubernetes = "kubernetes"
)

// DefaultServingName is what clients expect in the serving certificate.
const DefaultServingName = "ambit-controlplane.ambit-system.svc"

func (c Config) withDefaults() Config {
	orDefault(&c.Source, SourceFiles)
	orDefault(&c.XDSAddress, "0.0.0.0:15012")
	orDefault(&c.AdminAddress, "127.0.0.1:15000")
	orDefault(&c.MetricsAddress, ":15014")
	orDefault(&c.ReadyAddress, ":15021")
	orDefault(&c.TrustDomain, identity.DefaultTrustDomain)
	orDefault(&c.ClusterID, "Kubernetes")
	orDefault(&c.ClusterDomain, "cluster.local")
	orDefault(&c.RootNamespace, "ambit-system")
	orDefault(&c.WaypointLogLevel, "info")
	orDefault(&c.Transport, "auto")
	orDefault(&c.CertTTL, 24*time.Hour)
	orDefault(&c.ReleaseTimeout, 5*time.Second)
	if len(c.ServingNames) == 0 {
		c.ServingNames = []string{DefaultServingName}
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Level == (zap.AtomicLevel{}) {
		c.Level = zap.NewAtomicLevel()
	}
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
	}
	return c
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate checks what the parts do not check themselves.
func (c Config) validate() error {
	if c.Source == SourceKubernetes {
		if c.Kubernetes == nil {
			return errors.New("--source=kubernetes: this program reads files only: run ambit-controlplane")
		}
		if len(c.Manifests) > 0 || c.StateDir != "" || c.NodeCredentials != "" {
			return errors.New("--manifests, --state-dir and --node-credentials are for --source=files: leave them out")
		}
		return c.validateCommon()
	}
	switch {
	case c.Source != SourceFiles:
		return fmt.Errorf("--source %q: want %s or %s", c.Source, SourceFiles, SourceKubernetes)
	case c.WebhookAddress != "":
		return errors.New("--webhook-address is for --source=kubernetes: leave it out")
	case c.Kubeconfig != "":
		return errors.New("--kubeconfig is for --source=kubernetes: leave it out")
	case len(c.Manifests) == 0:
		return errors.New("no manifests: give --manifests a directory")
	case c.StateDir == "":
		return errors.New("no state directory: give --state-dir")
	case c.NodeCredentials == "":
		return errors.New("no node credentials: give --node-credentials a file with `nodes: [{node: NAME, tokenSHA256: HEX}]`")
	}
	return c.validateCommon()
}

func (c Config) validateCommon() error {
	if c.ReleaseTimeout < 0 {
		return fmt.Errorf("release timeout %s: must not be negative", c.ReleaseTimeout)
	}
	if _, ok := transports[c.Transport]; !ok {
		return fmt.Errorf("--tunnel-transport %q: want auto, h2 or h3", c.Transport)
	}
	for flag, address := range map[string]string{
		"--xds-address": c.XDSAddress, "--admin-address": c.AdminAddress,
		"--metrics-address": c.MetricsAddress, "--ready-address": c.ReadyAddress, "--webhook-address": c.WebhookAddress,
	} {
		if address == "" { // of the webhook's only: all others have defaults
			continue
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			return fmt.Errorf("%s %q: want host:port: %w", flag, address, err)
		}
	}
	return nil
}

// transports are the values of Config.Transport.
var transports = map[string]workload.Transport_Preference{"auto": workload.Transport_AUTO, "h2": workload.Transport_H2, "h3": workload.Transport_H3}
