package xds

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/internal/revocation"
)

type metrics struct {
	clients     prometheus.Gauge
	pushes      *prometheus.CounterVec
	pushed      *prometheus.CounterVec
	nacks       *prometheus.CounterVec
	ackSeconds  *prometheus.HistogramVec
	disconnects *prometheus.CounterVec
	resources   *prometheus.GaugeVec
}

// newMetrics registers with reg; nil registers nowhere.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		clients: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ambit_xds_clients", Help: "Open delta ADS streams.",
		}),
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_xds_pushes_total", Help: "Responses sent, by resource type.",
		}, []string{"type"}),
		pushed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_xds_pushed_resources_total", Help: "Resources sent, removals included, by resource type.",
		}, []string{"type"}),
		nacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_xds_nacks_total", Help: "Responses that a client refused, by resource type.",
		}, []string{"type"}),
		ackSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ambit_xds_push_ack_seconds", Help: "Time from the begin of a push to its last acknowledgement, by resource type.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}, []string{"type"}),
		disconnects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_xds_disconnects_total", Help: "Streams refused or ended by the server, by reason.",
		}, []string{"reason"}),
		resources: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ambit_xds_resources", Help: "Resources that are distributed, by resource type.",
		}, []string{"type"}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.clients, m.pushes, m.pushed, m.nacks, m.ackSeconds, m.disconnects, m.resources} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// typeLabel keeps what clients make up out of the metrics.
func typeLabel(typeURL string) string {
	switch typeURL {
	case compile.TypeAddress, compile.TypeAuthorization, compile.TypePod, compile.TypeNamespace, compile.TypeFrontend, compile.TypeBackend, revocation.TypeURL:
		return strings.TrimPrefix(typeURL, "type.googleapis.com/")
	}
	return "other"
}
