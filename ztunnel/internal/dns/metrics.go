package dns

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are those of all pods.
type Metrics struct {
	requests, upstream, failures, refused, cached *prometheus.CounterVec
	took                                          prometheus.Histogram
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "istio_dns_requests_total", Help: "DNS queries of captured pods."}, []string{"source_workload", "source_workload_namespace", "request_protocol"}),
		upstream: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "istio_dns_upstream_requests_total", Help: "DNS queries that were passed on to resolvers."}, []string{"source_workload", "source_workload_namespace"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "istio_dns_upstream_failures_total", Help: "DNS queries that a resolver did not answer."}, []string{"source_workload", "source_workload_namespace"}),
		refused:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ambit_dns_refused_total", Help: "DNS queries that were not answered because a limit of the pod was reached, or because they are malformed."}, []string{"source_workload", "source_workload_namespace", "reason"}),
		cached:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ambit_dns_cache_hits_total", Help: "DNS queries that were answered from what a resolver had said before."}, []string{"source_workload", "source_workload_namespace"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "istio_dns_upstream_request_duration_seconds", Help: "How long resolvers took to answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}),
	}
	r.MustRegister(m.requests, m.upstream, m.failures, m.refused, m.cached, m.took)
	return m
}

// tried notes a question to a resolver.
func (p *Proxy) tried(took time.Duration, err error) {
	w, ns := p.labels()
	p.cfg.Metrics.upstream.WithLabelValues(w, ns).Inc()
	p.cfg.Metrics.took.Observe(took.Seconds())
	if err != nil {
		p.cfg.Metrics.failures.WithLabelValues(w, ns).Inc()
	}
}

// labels name the pod's workload.
func (p *Proxy) labels() (workload, namespace string) {
	if w := p.cfg.Registry.Store.WorkloadByName(p.cfg.Registry.Namespace, p.cfg.Pod); w != nil && w.Owner != "" {
		return w.Owner, w.Namespace
	}
	return "unknown", p.cfg.Registry.Namespace
}
