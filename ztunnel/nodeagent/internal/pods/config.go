package pods

import (
	"errors"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	nodepb "github.com/ambit-mesh/ambit/apis/node"
	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/zds"
	rules "github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/capture"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/ledger"
)

// Capturer puts rules into namespaces; *capture.Capturer is one.
type Capturer interface {
	Capture(ns *netns.Namespace, o rules.Options) (changed []string, err error)
	StopNew(ns *netns.Namespace) error
	Connections(ns *netns.Namespace) (rules.Connections, error)
	Release(ns *netns.Namespace) error
}

// Proxies are the node's ztunnels; *zds.Server is one.
type Proxies interface {
	Set(uid string, w zds.Workload, ns *netns.Namespace) error
	Remove(uid string)
	Connections() int
}

// Reporter tells the control plane; *report.Reporter is one.
type Reporter interface {
	Set(uid string, state nodepb.PodState_State, message string)
	Forget(uid string)
}

// ControlPlane tells how current the control plane's word is.
type ControlPlane interface {
	// Current is false while there is no connection, or not yet a full answer;
	// why says so.
	Current() (current bool, why string)
}

// Finder finds the network namespaces of pods that run and that no plugin told us
// about; *sandbox.Finder is one.
type Finder interface {
	// Find looks for pods by uid and addresses. The namespaces that it gives are
	// the caller's; not tells those that are no pod's.
	Find(pods map[string][]netip.Addr, not func(netns.ID) bool) map[string]*netns.Namespace
}

// Prober lets the node's own health probes through to captured pods;
// *capture.Host is one.
type Prober interface {
	// Sync makes the captured pods' addresses those given.
	Sync(addrs []netip.Addr) error
	// Remove takes everything away.
	Remove() error
}

// Config configures a Set.
type Config struct {
	// Finder may be nil: then only pods that a plugin has announced are captured.
	Finder Finder
	// Prober may be nil: then the node's probes come from where pods let them
	// through.
	Prober Prober
	// SaveEnrolled, if not nil, keeps the enrolled namespaces for the CNI plugin.
	SaveEnrolled func(namespaces []string) error
	Capturer     Capturer
	Proxies      Proxies
	Reporter     Reporter
	ControlPlane ControlPlane
	Ledger       *ledger.Ledger
	Logger       *zap.Logger
	Registerer   prometheus.Registerer

	// DNSLeftAlone leaves the queries of all pods alone.
	DNSLeftAlone bool
	// Repair is the time between two looks at a pod without news.
	Repair time.Duration
	// DrainPoll is the time between two looks at a draining pod, DrainBound how
	// long connections may go on in one.
	DrainPoll, DrainBound time.Duration
	// RetryMin and RetryMax bound the wait after a failure.
	RetryMin, RetryMax time.Duration
	// Unenrolled is how long a new pod of a namespace that is not enrolled waits
	// for the control plane's word, in case a label of its own enrolls it; and how
	// long after a start of the agent such pods wait for the control plane.
	Unenrolled time.Duration
	// Grace is how long a pod may be wanted without its namespace being known
	// before that is reported as a failure.
	Grace time.Duration
	// Leave bounds how long connections may go on in pods that are released
	// because the agent is taken off the node.
	Leave time.Duration
}

func (c Config) validate() error {
	if c.Capturer == nil || c.Proxies == nil || c.Reporter == nil || c.ControlPlane == nil || c.Ledger == nil || c.Logger == nil || c.Registerer == nil {
		return errors.New("pods: a collaborator is missing")
	}
	for _, d := range []time.Duration{c.Repair, c.DrainPoll, c.DrainBound, c.RetryMin, c.RetryMax, c.Unenrolled, c.Grace, c.Leave} {
		if d <= 0 {
			return errors.New("pods: intervals must be positive")
		}
	}
	return nil
}

type metrics struct {
	captured prometheus.Gauge
	draining prometheus.Gauge
	failures *prometheus.CounterVec
	repairs  prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		captured: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ambit_captured_pods", Help: "Pods of this node whose new connections go through ztunnel.",
		}),
		draining: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ambit_draining_pods", Help: "Pods of this node that are released, with connections that still go through ztunnel.",
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_capture_failures_total", Help: "Failed steps of capture and release, by step.",
		}, []string{"step"}),
		repairs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ambit_capture_repairs_total", Help: "Captured pods whose rules were found damaged and were put right.",
		}),
	}
	for _, c := range []prometheus.Collector{m.captured, m.draining, m.failures, m.repairs} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
