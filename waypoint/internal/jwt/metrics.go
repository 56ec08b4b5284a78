package jwt

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics shows what becomes of tokens and keys. A nil *Metrics shows nothing.
type Metrics struct {
	requests *prometheus.CounterVec
	fetches  *prometheus.CounterVec
	keys     *prometheus.GaugeVec
	success  *prometheus.GaugeVec
	lookups  *prometheus.CounterVec
	evicts   prometheus.Counter
	hit      prometheus.Counter
	miss     prometheus.Counter
}

// NewMetrics registers the metrics of JWT verification. A nil Registerer gives nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	if r == nil {
		return nil
	}
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_jwt_requests_total",
			Help: "Tokens by policy and outcome: allowed, or why the request was refused (missing, ambiguous, size, malformed, algorithm, issuer, audience, expired, early, key, signature, keys_unavailable, invalid_config).",
		}, []string{"policy", "outcome"}),
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_jwks_fetches_total",
			Help: "Fetches of keys by outcome: ok, timeout, error.",
		}, []string{"uri", "outcome"}),
		keys: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ambit_jwks_keys",
			Help: "Keys that can be used.",
		}, []string{"uri"}),
		success: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ambit_jwks_last_success_timestamp_seconds",
			Help: "When keys were fetched last, in seconds since the epoch.",
		}, []string{"uri"}),
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_jwt_cache_lookups_total",
			Help: "Tokens that were looked up among those that have been verified: hit, miss.",
		}, []string{"outcome"}),
		evicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ambit_jwt_cache_evictions_total",
			Help: "Verified tokens that were forgotten to make room.",
		}),
	}
	r.MustRegister(m.requests, m.fetches, m.keys, m.success, m.lookups, m.evicts)
	m.hit, m.miss = m.lookups.WithLabelValues("hit"), m.lookups.WithLabelValues("miss")
	return m
}

// accepted is the counter of a provider, looked up once.
func (m *Metrics) accepted(policy string) prometheus.Counter {
	if m == nil {
		return nil
	}
	return m.requests.WithLabelValues(policy, "allowed")
}

func (m *Metrics) refused(policy, why string) {
	if m != nil {
		m.requests.WithLabelValues(policy, why).Inc()
	}
}

func (m *Metrics) fetched(uri string, err error) {
	if m == nil {
		return
	}
	outcome := "ok"
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		outcome = "timeout"
	case err != nil:
		outcome = "error"
	}
	m.fetches.WithLabelValues(uri, outcome).Inc()
	if err == nil {
		m.success.WithLabelValues(uri).SetToCurrentTime()
	}
}

func (m *Metrics) loaded(uri string, keys int) {
	if m != nil {
		m.keys.WithLabelValues(uri).Set(float64(keys))
	}
}

func (m *Metrics) forget(uri string) {
	if m != nil {
		m.keys.DeleteLabelValues(uri)
		m.success.DeleteLabelValues(uri)
	}
}

func (m *Metrics) looked(hit bool) {
	switch {
	case m == nil:
	case hit:
		m.hit.Inc()
	default:
		m.miss.Inc()
	}
}

func (m *Metrics) evicted() {
	if m != nil {
		m.evicts.Inc()
	}
}
