package certs

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/status"
)

// Metrics shows certificates. How many series there are does not depend on how many
// identities a node has. A nil *Metrics shows nothing.
type Metrics struct {
	states   *prometheus.GaugeVec
	latency  prometheus.Histogram
	failures *prometheus.CounterVec

	mu      sync.Mutex
	manager *Manager // whose certificates these are; guarded by mu
}

// States of a certificate, in the metric and in dumps.
const (
	StateValid = "valid"
	// StateOverdue is valid, and should have been renewed by now.
	StateOverdue = "overdue"
	StateExpired = "expired"
	StateMissing = "missing"
)

// NewMetrics registers the certificate metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		states: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ambit_certificates",
			Help: "Identities by the state of their certificates (valid, overdue, expired, missing); overdue ones are valid, and should have been renewed.",
		}, []string{"state"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "ambit_certificate_issue_duration_seconds",
			Help:    "How long the authority took to answer.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_certificate_issue_failures_total",
			Help: "Certificates that were not issued, by gRPC status.",
		}, []string{"reason"}),
	}
	soonest := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ambit_certificate_soonest_expiry_seconds",
		Help: "When the first of the certificates expires, in seconds since the epoch; 0 without any.",
	}, func() float64 { return unix(m.summary(time.Now()).Soonest) })
	rootExpiry := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ambit_trust_bundle_soonest_expiry_seconds",
		Help: "When the first of the trusted roots expires, in seconds since the epoch; 0 without any.",
	}, func() float64 { return unix(m.summary(time.Now()).RootSoonest) })
	bundleAge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ambit_trust_bundle_age_seconds",
		Help: "Since when the authority has not said which roots to trust: the age of the newest answer; 0 before the first.",
	}, func() float64 { return m.summary(time.Now()).BundleAge.Seconds() })
	roots := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ambit_trust_bundle_roots",
		Help: "Different roots that are trusted.",
	}, func() float64 { return float64(m.summary(time.Now()).Roots) })
	r.MustRegister(&fresh{m}, m.latency, m.failures, soonest, rootExpiry, bundleAge, roots)
	return m
}

// fresh counts the states when it is asked: they change with time alone.
type fresh struct{ m *Metrics }

// Describe implements prometheus.Collector.
func (f *fresh) Describe(ch chan<- *prometheus.Desc) { f.m.states.Describe(ch) }

// Collect implements prometheus.Collector.
func (f *fresh) Collect(ch chan<- prometheus.Metric) {
	s := f.m.summary(time.Now())
	for _, state := range []string{StateValid, StateOverdue, StateExpired, StateMissing} {
		f.m.states.WithLabelValues(state).Set(float64(s.States[state]))
	}
	f.m.states.Collect(ch)
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}

// of says whose certificates are shown.
func (m *Metrics) of(manager *Manager) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.manager = manager
}

func (m *Metrics) summary(now time.Time) Summary {
	m.mu.Lock()
	manager := m.manager
	m.mu.Unlock()
	if manager == nil {
		return Summary{}
	}
	return Summarize(manager.Snapshot(), now)
}

func (m *Metrics) issued(took time.Duration, err error) {
	if m == nil {
		return
	}
	m.latency.Observe(took.Seconds())
	if err != nil {
		m.failures.WithLabelValues(status.Code(err).String()).Inc()
	}
}

// Summary is what all certificates of a process come to.
type Summary struct {
	// States counts identities by the state of their certificates.
	States map[string]int
	// Soonest is when the first certificate expires, RootSoonest the first root; zero
	// without any.
	Soonest, RootSoonest time.Time
	// Roots counts different roots.
	Roots int
	// BundleAge is how long ago the newest certificate came, and the roots with it.
	BundleAge time.Duration
}

// Summarize counts what is held at a time.
func Summarize(list []Status, now time.Time) Summary {
	s := Summary{States: make(map[string]int)}
	var newest time.Time
	roots := make(map[[sha256.Size]byte]bool)
	for _, st := range list {
		s.States[st.State(now)]++
		if st.Cert == nil {
			continue
		}
		s.Soonest = earlier(s.Soonest, st.Cert.Leaf().NotAfter)
		if st.Since.After(newest) {
			newest = st.Since
		}
		for _, r := range st.Cert.Roots {
			s.RootSoonest = earlier(s.RootSoonest, r.NotAfter)
			roots[sha256.Sum256(r.Raw)] = true
		}
	}
	s.Roots = len(roots)
	if !newest.IsZero() {
		s.BundleAge = max(0, now.Sub(newest))
	}
	return s
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// State is the state of a certificate at a time.
func (s Status) State(now time.Time) string {
	switch {
	case s.Cert == nil:
		return StateMissing
	case !now.Before(s.Cert.Leaf().NotAfter):
		return StateExpired
	case now.After(s.Cert.RenewAt().Add(s.Cert.Leaf().NotAfter.Sub(s.Cert.Leaf().NotBefore) / 10)):
		// Renewal is due at half life, give or take a twentieth.
		return StateOverdue
	}
	return StateValid
}
