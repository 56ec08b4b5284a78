package extauthz

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/waypoint/internal/guard"
)

// Metrics shows what services decide. A nil *Metrics shows nothing.
type Metrics struct {
	decisions *prometheus.CounterVec
	took      *prometheus.HistogramVec
	fields    *prometheus.CounterVec
}

// NewMetrics registers the metrics of external authorization. A nil Registerer
// gives nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	if r == nil {
		return nil
	}
	m := &Metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_extauthz_requests_total",
			Help: "Requests that a service was asked about: allowed, denied, too_large, broken (the body), or the service could not be asked (failed: refused, failed_open: let through).",
		}, []string{"service", "decision"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "ambit_extauthz_duration_seconds",
			Help:    "How long it took to decide, the request's body included where it is sent along.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
		}, []string{"service"}),
		fields: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_extauthz_fields_ignored_total",
			Help: "Fields and bodies of answers that were not let into a message, by what is wrong with them.",
		}, []string{"service", "fault"}),
	}
	r.MustRegister(m.decisions, m.took, m.fields)
	return m
}

func (m *Metrics) decided(service string, d Decision, took time.Duration) {
	if m != nil {
		m.decisions.WithLabelValues(service, d.String()).Inc()
		m.took.WithLabelValues(service).Observe(took.Seconds())
	}
}

func (m *Metrics) ignored(service string, f guard.Fault) {
	if m != nil {
		m.fields.WithLabelValues(service, string(f)).Inc()
	}
}
