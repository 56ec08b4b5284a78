package controlplane

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	editToAck   prometheus.Histogram
	compile     prometheus.Histogram
	problems    prometheus.Gauge
	releases    *prometheus.CounterVec
	persistence prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		editToAck: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ambit_controlplane_edit_to_ack_seconds", Help: "Time from a change of the manifests to the last client's acknowledgement.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
		}),
		compile: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ambit_controlplane_compile_seconds", Help: "Time to compile one batch of changes.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10),
		}),
		problems: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ambit_controlplane_manifest_problems", Help: "Manifests that cannot be used as they are.",
		}),
		releases: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_controlplane_releases_total", Help: "Pods released, by whether all ztunnels had acknowledged it before.",
		}, []string{"outcome"}),
		persistence: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ambit_controlplane_persistence_failures_total", Help: "Failed attempts to write the captured set, each of which delays distribution.",
		}),
	}
	for _, c := range []prometheus.Collector{m.editToAck, m.compile, m.problems, m.releases, m.persistence} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
