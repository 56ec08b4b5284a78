package zds

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	connected prometheus.Gauge
	acks      *prometheus.CounterVec
}

// newMetrics registers the metrics unless r is nil.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ambit_zds_connected",
			Help: "Connections between node agent and ztunnel.",
		}),
		acks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_zds_acks_total",
			Help: "Requests of the node agent to ztunnel, by their result (ok, error).",
		}, []string{"result"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.connected, m.acks} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) ack(err error) {
	if err != nil {
		m.acks.WithLabelValues("error").Inc()
		return
	}
	m.acks.WithLabelValues("ok").Inc()
}
