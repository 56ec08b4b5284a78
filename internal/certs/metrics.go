package certs

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/status"

	"github.com/ambit-mesh/ambit/internal/identity"
)

// Metrics shows certificates. A nil *Metrics shows nothing.
type Metrics struct {
	expiry   *prometheus.GaugeVec
	latency  prometheus.Histogram
	failures *prometheus.CounterVec
}

// NewMetrics registers the certificate metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		expiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ambit_certificate_expiry_seconds",
			Help: "When the certificate of an identity expires, in seconds since the epoch.",
		}, []string{"identity"}),
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
	r.MustRegister(m.expiry, m.latency, m.failures)
	return m
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

func (m *Metrics) expires(id identity.ID, at time.Time) {
	if m != nil {
		m.expiry.WithLabelValues(id.String()).Set(float64(at.Unix()))
	}
}

func (m *Metrics) forget(id identity.ID) {
	if m != nil {
		m.expiry.DeleteLabelValues(id.String())
	}
}
