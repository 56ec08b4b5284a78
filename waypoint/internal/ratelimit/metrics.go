package ratelimit

import "github.com/prometheus/client_golang/prometheus"

// Metrics shows what limits do. A nil *Metrics shows nothing.
type Metrics struct {
	requests  *prometheus.CounterVec
	shared    *prometheus.CounterVec
	keys      prometheus.Gauge
	forgotten prometheus.Counter
	calls     *prometheus.CounterVec
	fields    *prometheus.CounterVec
}

// Outcomes of a limit, as the metric has them.
const (
	outcomeAllowed    = "allowed"
	outcomeLimited    = "limited"
	outcomeFailed     = "failed"
	outcomeFailedOpen = "failed_open"
)

// NewMetrics registers the metrics of rate limits. A nil Registerer gives nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	if r == nil {
		return nil
	}
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_ratelimit_requests_total",
			Help: "Requests by limit and outcome: allowed, limited, or the service that counts could not be asked (failed: refused, failed_open: let through).",
		}, []string{"policy", "rule", "outcome"}),
		shared: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_ratelimit_shared_total",
			Help: "Requests whose key shared a bucket with others because there were too many keys.",
		}, []string{"policy", "rule"}),
		keys: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ambit_ratelimit_keys",
			Help: "Keys that are being counted.",
		}),
		forgotten: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ambit_ratelimit_keys_forgotten_total",
			Help: "Keys that were forgotten because their buckets were full again.",
		}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_ratelimit_calls_total",
			Help: "Calls of rate limit services by outcome: ok, over_limit, timeout, canceled (the client went away), unavailable, malformed.",
		}, []string{"service", "outcome"}),
		fields: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_ratelimit_fields_ignored_total",
			Help: "Fields in answers of rate limit services that were not let into a message, by what is wrong with them.",
		}, []string{"service", "fault"}),
	}
	r.MustRegister(m.requests, m.shared, m.keys, m.forgotten, m.calls, m.fields)
	return m
}

// counts are the counters of one limit, looked up once.
type counts struct {
	allowed, limited, shared prometheus.Counter
}

func (m *Metrics) of(policy, rule string) counts {
	if m == nil {
		return counts{}
	}
	return counts{
		allowed: m.requests.WithLabelValues(policy, rule, outcomeAllowed),
		limited: m.requests.WithLabelValues(policy, rule, outcomeLimited),
		shared:  m.shared.WithLabelValues(policy, rule),
	}
}

func (c *counts) judged(v *Verdict) {
	if c.allowed == nil {
		return
	}
	if v.OK {
		c.allowed.Inc()
	} else {
		c.limited.Inc()
	}
	if v.Shared {
		c.shared.Inc()
	}
}

func (m *Metrics) keysChanged(by int) {
	if m != nil {
		m.keys.Add(float64(by))
	}
}

func (m *Metrics) keysForgotten(n int) {
	if m != nil && n > 0 {
		m.keys.Sub(float64(n))
		m.forgotten.Add(float64(n))
	}
}

func (m *Metrics) global(a *Ask, outcome string) {
	if m != nil {
		m.requests.WithLabelValues(a.Limit.Policy, a.Limit.Rule, outcome).Inc()
	}
}

func (m *Metrics) called(service, outcome string) {
	if m != nil {
		m.calls.WithLabelValues(service, outcome).Inc()
	}
}

func (m *Metrics) ignored(service, fault string) {
	if m != nil {
		m.fields.WithLabelValues(service, fault).Inc()
	}
}
