package ca

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	issued   prometheus.Counter
	refusals *prometheus.CounterVec
	phase    *prometheus.GaugeVec
	failures prometheus.Counter
	latency  prometheus.Histogram
}

// newMetrics registers with reg; nil registers nowhere.
func newMetrics(a *Authority, reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		issued: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ambit_ca_certificates_issued_total", Help: "Workload certificates granted.",
		}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_ca_refusals_total", Help: "Certificate requests refused, by reason.",
		}, []string{"reason"}),
		phase: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ambit_ca_rotation_phase", Help: "1 for the phase that the root's rotation is in.",
		}, []string{"phase"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ambit_ca_maintenance_failures_total", Help: "Failed attempts to renew, rotate, reload or publish the CA.",
		}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ambit_ca_issue_duration_seconds", Help: "How long granting or refusing a certificate took.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8),
		}),
	}
	if reg == nil {
		return m, nil
	}
	rootExpiry := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ambit_ca_root_expiry_seconds", Help: "Seconds until the root that certificates chain to expires.",
	}, func() float64 { return a.current.Load().root().NotAfter.Sub(a.cfg.Now()).Seconds() })
	issuerExpiry := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ambit_ca_issuer_expiry_seconds", Help: "Seconds until the issuing certificate expires.",
	}, func() float64 { return a.current.Load().issuer.cert.NotAfter.Sub(a.cfg.Now()).Seconds() })
	for _, c := range []prometheus.Collector{m.issued, m.refusals, m.phase, m.failures, m.latency, rootExpiry, issuerExpiry} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) setPhase(now phase) {
	for _, p := range []phase{steady, introducing, retiring} {
		value := 0.0
		if p == now {
			value = 1
		}
		m.phase.WithLabelValues(string(p)).Set(value)
	}
}
