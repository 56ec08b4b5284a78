package status

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	writes, failures *prometheus.CounterVec
	conflicts        prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_status_writes_total", Help: "Writes of the status of Kubernetes objects, by kind.",
		}, []string{"kind"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_status_failures_total", Help: "Statuses of Kubernetes objects that could not be written at once, by kind.",
		}, []string{"kind"}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ambit_status_conflicts_total", Help: "Writes of a status that met another write and were done again on what was there then.",
		}),
	}
	for _, c := range []prometheus.Collector{m.writes, m.failures, m.conflicts} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
