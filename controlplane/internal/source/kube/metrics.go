package kube

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	watchErrors *prometheus.CounterVec
	objects     *prometheus.GaugeVec
	batches     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		watchErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_kubernetes_watch_errors_total", Help: "Lists and watches of the Kubernetes API that failed, by kind.",
		}, []string{"kind"}),
		objects: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ambit_kubernetes_objects", Help: "Objects of the Kubernetes API that are held, by kind.",
		}, []string{"kind"}),
		batches: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ambit_kubernetes_batches_total", Help: "Batches of changes of the Kubernetes API that were handed to the compiler.",
		}),
	}
	for _, c := range []prometheus.Collector{m.watchErrors, m.objects, m.batches} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
