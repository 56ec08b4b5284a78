package xdsclient

import (
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Metrics counts what the client does. A nil *Metrics counts nothing.
type Metrics struct {
	terminations *prometheus.CounterVec
	messages     *prometheus.CounterVec
	bytes        *prometheus.CounterVec
	rejections   *prometheus.CounterVec
}

// NewMetrics registers the client's metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		terminations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "istio_xds_connection_terminations_total",
			Help: "Control plane streams that ended, by reason.",
		}, []string{"reason"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "istio_xds_message_total",
			Help: "Messages received from the control plane, by resource type.",
		}, []string{"url"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "istio_xds_message_bytes_total",
			Help: "Bytes received from the control plane, by resource type.",
		}, []string{"url"}),
		rejections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_xds_rejections_total",
			Help: "Messages from the control plane of which something was rejected, by resource type.",
		}, []string{"url"}),
	}
	r.MustRegister(m.terminations, m.messages, m.bytes, m.rejections)
	return m
}

func (m *Metrics) terminated(err error) {
	if m == nil {
		return
	}
	reason := "connection_error"
	switch {
	case err == nil || status.Code(err) == codes.OK:
		reason = "complete"
	case status.Code(err) == codes.Unavailable:
		reason = "reconnect"
	case status.Code(err) != codes.Unknown:
		reason = "grpc_error"
	}
	m.terminations.WithLabelValues(reason).Inc()
}

func (m *Metrics) received(url string, size int) {
	if m == nil {
		return
	}
	m.messages.WithLabelValues(url).Inc()
	m.bytes.WithLabelValues(url).Add(float64(size))
}

func (m *Metrics) rejected(url string) {
	if m != nil {
		m.rejections.WithLabelValues(url).Inc()
	}
}
