package snapshot

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	heard    prometheus.Gauge
	size     prometheus.Gauge
	failures prometheus.Counter
	refusals *prometheus.CounterVec
}

// newMetrics registers with r; nil registers nowhere.
func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		heard: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ambit_snapshot_time_seconds",
			Help: "When the control plane was last heard according to the snapshot on disk, in seconds since the epoch.",
		}),
		size: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ambit_snapshot_bytes",
			Help: "Size of the snapshot on disk.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ambit_snapshot_failures_total",
			Help: "Snapshots that could not be saved.",
		}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_snapshot_refusals_total",
			Help: "Snapshots that were found and not used, by reason (corrupt, format, foreign, too_old, too_large, unreadable).",
		}, []string{"reason"}),
	}
	if r != nil {
		r.MustRegister(m.heard, m.size, m.failures, m.refusals)
	}
	return m
}

func (m *metrics) saved(size int64, heard time.Time, err error) {
	if err != nil {
		m.failures.Inc()
		return
	}
	m.size.Set(float64(size))
	m.heard.Set(float64(heard.Unix()))
}

func (m *metrics) refused(err error) {
	reason := "unreadable"
	for _, r := range []struct {
		err  error
		name string
	}{{ErrCorrupt, "corrupt"}, {ErrFormat, "format"}, {ErrForeign, "foreign"}, {ErrTooOld, "too_old"}, {ErrTooBig, "too_large"}} {
		if errors.Is(err, r.err) {
			reason = r.name
		}
	}
	m.refusals.WithLabelValues(reason).Inc()
}
