package stats

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/internal/trace"
)

// Config says what is counted. Zero values mean the defaults that are given.
type Config struct {
	// Istio adds the metrics with their Istio names.
	Istio bool
	// MaxSeries bounds how many label sets there are; 5,000.
	MaxSeries int
}

// keysPerSeries bounds how many keys are remembered. There are more of them than
// series, since each version of a workload is a new pointer.
const keysPerSeries = 4

// Requests are the metrics of requests.
type Requests struct {
	native, istio family // istio is zero when it is off
	collapsed     prometheus.Counter
	max           int

	mu     sync.RWMutex
	byKey  map[Key]*series      // guarded by mu; forgotten as a whole when it is full
	byName map[labelSet]*series // guarded by mu; only grows
	rest   *series              // of what there is no room for; guarded by mu
}

// family is the metrics under one kind of names.
type family struct {
	total                       *prometheus.CounterVec
	duration, request, response *prometheus.HistogramVec
	// unit is what a duration is counted in.
	unit time.Duration
}

// series are the metrics of one label set.
type series struct {
	native, istio counters
	collapsed     bool // of what there is no room for
}

type counters struct {
	total                       prometheus.Counter
	duration, request, response prometheus.Observer
	unit                        time.Duration
}

// Observation is what there is to count of a request that is over.
type Observation struct {
	Duration time.Duration
	// RequestBytes and ResponseBytes are those of the bodies.
	RequestBytes, ResponseBytes int64
	// Trace is an exemplar when the request was sampled.
	Trace trace.Context
}

// New registers the request metrics.
func New(r prometheus.Registerer, cfg Config) *Requests {
	if cfg.MaxSeries == 0 {
		cfg.MaxSeries = 5000
	}
	m := &Requests{
		native: newFamily(r), max: cfg.MaxSeries,
		collapsed: prometheus.NewCounter(prometheus.CounterOpts{Name: "ambit_request_series_collapsed_total", Help: "Requests that were counted under the labels \"other\", because there are too many series."}),
		byKey:     make(map[Key]*series), byName: make(map[labelSet]*series),
	}
	r.MustRegister(m.collapsed)
	if cfg.Istio {
		m.istio = newIstioFamily(r)
	}
	return m
}

// Buckets: a request through two proxies takes from a quarter of a millisecond to
// the longest timeouts.
var (
	secondBuckets = []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	milliBuckets  = []float64{.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000}
	byteBuckets   = prometheus.ExponentialBuckets(64, 8, 9)
)

func newFamily(r prometheus.Registerer) family {
	names := labelNames[:]
	f := family{
		total:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ambit_requests_total", Help: "Requests answered."}, names),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "ambit_request_duration_seconds", Help: "Time from a request's first byte to the last of its answer.", Buckets: secondBuckets}, names),
		request:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "ambit_request_bytes", Help: "Bytes of request bodies.", Buckets: byteBuckets}, names),
		response: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "ambit_response_bytes", Help: "Bytes of response bodies.", Buckets: byteBuckets}, names),
		unit:     time.Second,
	}
	r.MustRegister(f.total, f.duration, f.request, f.response)
	return f
}

func newIstioFamily(r prometheus.Registerer) family {
	names := labelNames[:]
	f := family{
		total:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "istio_requests_total", Help: "Requests answered (with Istio names only)."}, names),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "istio_request_duration_milliseconds", Help: "Time from a request's first byte to the last of its answer (with Istio names only).", Buckets: milliBuckets}, names),
		request:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "istio_request_bytes", Help: "Bytes of request bodies (with Istio names only).", Buckets: byteBuckets}, names),
		response: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "istio_response_bytes", Help: "Bytes of response bodies (with Istio names only).", Buckets: byteBuckets}, names),
		unit:     time.Millisecond,
	}
	r.MustRegister(f.total, f.duration, f.request, f.response)
	return f
}

func (f family) of(l *labelSet) counters {
	if f.total == nil {
		return counters{}
	}
	return counters{
		total: f.total.WithLabelValues(l[:]...), duration: f.duration.WithLabelValues(l[:]...),
		request: f.request.WithLabelValues(l[:]...), response: f.response.WithLabelValues(l[:]...), unit: f.unit,
	}
}

// Record counts a request.
func (m *Requests) Record(k Key, o Observation) {
	if m == nil {
		return
	}
	m.mu.RLock()
	s := m.byKey[k]
	m.mu.RUnlock()
	if s == nil {
		s = m.resolve(k)
	}
	if s.collapsed {
		m.collapsed.Inc()
	}
	var exemplar prometheus.Labels
	if o.Trace.Decision == trace.Sampled {
		exemplar = prometheus.Labels{"trace_id": o.Trace.TraceID.String()}
	}
	s.native.add(&o, exemplar)
	if s.istio.total != nil {
		s.istio.add(&o, exemplar)
	}
}

func (c *counters) add(o *Observation, exemplar prometheus.Labels) {
	duration := float64(o.Duration) / float64(c.unit)
	c.request.Observe(float64(o.RequestBytes))
	c.response.Observe(float64(o.ResponseBytes))
	if exemplar == nil {
		c.total.Inc()
		c.duration.Observe(duration)
		return
	}
	if e, ok := c.total.(prometheus.ExemplarAdder); ok {
		e.AddWithExemplar(1, exemplar)
	}
	if e, ok := c.duration.(prometheus.ExemplarObserver); ok {
		e.ObserveWithExemplar(duration, exemplar)
	}
}

// resolve finds or makes the series of a key that is new.
func (m *Requests) resolve(k Key) *series {
	l := k.labels()
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.byName[l]
	if s == nil {
		if len(m.byName) < m.max {
			s = m.make(&l)
			m.byName[l] = s
		} else {
			s = m.collapse()
		}
	}
	if len(m.byKey) >= m.max*keysPerSeries {
		clear(m.byKey)
	}
	m.byKey[k] = s
	return s
}

func (m *Requests) make(l *labelSet) *series {
	return &series{native: m.native.of(l), istio: m.istio.of(l)}
}

// collapse gives the series of what there is no room for. m.mu is held.
func (m *Requests) collapse() *series {
	if m.rest == nil {
		l := overflow()
		m.rest = m.make(&l)
		m.rest.collapsed = true
	}
	return m.rest
}
