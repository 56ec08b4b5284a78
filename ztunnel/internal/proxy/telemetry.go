package proxy

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/authz"
	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// Direction of a connection as seen from the pod.
type Direction string

// Directions.
const (
	Outbound Direction = "outbound"
	Inbound  Direction = "inbound"
)

// Flags are why a connection failed, in the field's short form.
const (
	flagNone     = "-"
	flagDeny     = "DENY"
	flagConnect  = "CONNECT"
	flagTLS      = "TLS_FAILURE"
	flagHTTP2    = "H2_HANDSHAKE_FAILURE"
	flagIdentity = "IDENTITY_ERROR"
	flagRegistry = "REGISTRY_ONLY"
)

// labelNames are those of the reference, in order.
var labelNames = [...]string{
	"reporter",
	"source_workload", "source_canonical_service", "source_canonical_revision", "source_workload_namespace", "source_principal",
	"source_app", "source_version", "source_cluster", "source_region", "source_zone",
	"destination_service", "destination_service_namespace", "destination_service_name",
	"destination_workload", "destination_canonical_service", "destination_canonical_revision", "destination_workload_namespace", "destination_principal",
	"destination_app", "destination_version", "destination_cluster", "destination_region", "destination_zone",
	"request_protocol", "response_flags", "connection_security_policy",
}

type labelSet [len(labelNames)]string

// Metrics are those of connections.
type Metrics struct {
	opened, closed, failed, sent, received *prometheus.CounterVec
	denials                                *prometheus.CounterVec
	plaintext                              *prometheus.CounterVec
	drops                                  *prometheus.CounterVec
	turned                                 *prometheus.CounterVec

	mu     sync.RWMutex
	series map[labelSet]*series // guarded by mu
}

// series are the counters of one label set.
type series struct {
	opened, closed, sent, received prometheus.Counter
}

// NewMetrics registers the connection metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		r.MustRegister(v)
		return v
	}
	l := labelNames[:]
	return &Metrics{
		opened:    vec("istio_tcp_connections_opened_total", "Connections opened.", l...),
		closed:    vec("istio_tcp_connections_closed_total", "Connections closed.", l...),
		failed:    vec("istio_tcp_connections_failed_total", "Connections that could not be established.", l...),
		sent:      vec("istio_tcp_sent_bytes_total", "Bytes sent in answer to connections.", l...),
		received:  vec("istio_tcp_received_bytes_total", "Bytes received from who opened connections.", l...),
		denials:   vec("ambit_policy_denials_total", "Connections refused by policy.", "policy_namespace", "policy", "rule", "source_principal", "destination_workload", "destination_workload_namespace"),
		plaintext: vec("ambit_plaintext_connections_total", "Connections of captured pods that were not encrypted.", "direction", "source_workload", "source_workload_namespace", "destination_workload", "destination_workload_namespace"),
		drops:     vec("ambit_udp_datagrams_dropped_total", "Datagrams that were not carried.", "direction", "reason"),
		turned:    vec("ambit_tunnel_handshakes_turned_away_total", "Handshakes of tunnels to pods that were not gone on with: beyond what a pod or an address has at a time, unfinished, or asked first to prove the address.", "transport", "reason"),
		series:    make(map[labelSet]*series),
	}
}

// maxSeries bounds the cache, not the series themselves.
const maxSeries = 10000

func (m *Metrics) of(l *labelSet) *series {
	m.mu.RLock()
	s := m.series[*l]
	m.mu.RUnlock()
	if s != nil {
		return s
	}
	s = &series{
		opened: m.opened.WithLabelValues(l[:]...), closed: m.closed.WithLabelValues(l[:]...),
		sent: m.sent.WithLabelValues(l[:]...), received: m.received.WithLabelValues(l[:]...),
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.series) >= maxSeries {
		clear(m.series)
	}
	m.series[*l] = s
	return s
}

func known(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func workloadLabels(l []string, w *wds.Workload, id identity.ID) {
	for i := range l {
		l[i] = "unknown"
	}
	if !id.IsZero() {
		l[4] = id.String()
	}
	if w == nil {
		return
	}
	l[0], l[1], l[2], l[3] = known(w.Owner), known(w.CanonicalName), known(w.CanonicalRevision), known(w.Namespace)
	l[5], l[6], l[7], l[8], l[9] = known(w.CanonicalName), known(w.CanonicalRevision), known(w.Cluster), known(w.Region), known(w.Zone)
}

// labels of a connection with the given outcome.
func (c *connection) labels(flags string) *labelSet {
	var l labelSet
	l[0] = "destination"
	if c.direction == Outbound {
		l[0] = "source"
	}
	workloadLabels(l[1:11], c.src, c.srcID)
	l[11], l[12], l[13] = "unknown", "unknown", "unknown"
	if s := c.service; s != nil {
		l[11], l[12], l[13] = s.Hostname, s.Namespace, s.Name
	}
	workloadLabels(l[14:24], c.dst, c.dstID)
	l[24], l[25], l[26] = "tcp", flags, "unknown"
	if c.udp {
		l[24] = "udp"
	}
	if c.tunnel {
		l[26] = "mutual_tls"
	}
	return &l
}

// plaintextSeen counts a connection that is not encrypted.
func (m *Metrics) plaintextSeen(c *connection) {
	var s, d [10]string
	workloadLabels(s[:], c.src, c.srcID)
	workloadLabels(d[:], c.dst, c.dstID)
	m.plaintext.WithLabelValues(string(c.direction), s[0], s[3], d[0], d[3]).Inc()
}

// dropped counts a datagram that was not carried.
func (m *Metrics) dropped(d Direction, reason string) {
	m.drops.WithLabelValues(string(d), reason).Inc()
}

// turnedAway counts a handshake that was not gone on with.
func (m *Metrics) turnedAway(transport, reason string) {
	m.turned.WithLabelValues(transport, reason).Inc()
}

func (m *Metrics) denied(c *connection, d *authz.Decision) {
	var w [10]string
	workloadLabels(w[:], c.dst, c.dstID)
	m.denials.WithLabelValues(d.Policy.Namespace, d.Policy.Name, ruleName(d), known(c.srcID.String()), w[0], w[3]).Inc()
}

// flagsOf gives the short form of what went wrong.
func flagsOf(err error) string {
	var refused *hbone.RefusedError
	var handshake *hbone.HandshakeError
	var conn *hbone.ConnError
	switch {
	case err == nil:
		return flagNone
	case errors.Is(err, wds.ErrRegistryOnly):
		return flagRegistry
	case errors.Is(err, errDenied), errors.As(err, &refused) && refused.Status == 401:
		return flagDeny
	case errors.As(err, &handshake):
		return flagTLS
	case errors.As(err, &conn):
		return flagHTTP2
	case errors.Is(err, certs.ErrUnavailable):
		return flagIdentity
	}
	return flagConnect
}

// log writes the one line that a connection gets when it has ended.
func (c *connection) log(l *zap.Logger, err error) {
	level := zap.InfoLevel
	msg := "connection complete"
	if err != nil {
		level = zap.ErrorLevel
		if !c.established {
			msg = "connection failed"
		}
	}
	ce := l.Check(level, msg)
	if ce == nil {
		return
	}
	sent, recv := c.transferred()
	fields := make([]zap.Field, 0, 24)
	str := func(k, v string) {
		if v != "" {
			fields = append(fields, zap.String(k, v))
		}
	}
	str("src.addr", c.srcAddr.String())
	if c.src != nil {
		str("src.workload", c.src.Name)
		str("src.namespace", c.src.Namespace)
	}
	str("src.identity", c.srcID.String())
	if c.peerID != c.srcID {
		str("peer.identity", c.peerID.String())
		str("peer.addr", addrString(c.peerAddr))
	}
	str("dst.addr", addrString(c.dstAddr))
	str("dst.hbone_addr", c.authority)
	if c.service != nil {
		str("dst.service", c.service.Hostname)
	}
	str("dst.host", c.host)
	if c.dst != nil {
		str("dst.workload", c.dst.Name)
		str("dst.namespace", c.dst.Namespace)
	}
	str("dst.identity", c.dstID.String())
	str("direction", string(c.direction))
	if c.udp {
		str("protocol", "udp")
	}
	str("tunnel", c.transport)
	security := "unknown"
	if c.tunnel {
		security = "mutual_tls"
	}
	str("connection_security_policy", security)
	fields = append(fields, zap.Int64("bytes_sent", sent), zap.Int64("bytes_recv", recv), zap.Duration("duration", time.Since(c.start)))
	if d := c.denial; d != nil {
		str("policy", d.Policy.Name)
		str("policy.namespace", d.Policy.Namespace)
		str("policy.rule", ruleName(d))
	}
	for _, a := range c.audits {
		fields = append(fields, zap.String("audit", a.Policy.String()))
	}
	if err != nil {
		fields = append(fields, zap.String("response_flags", flagsOf(err)), zap.String("error", err.Error()))
	}
	str("traceparent", c.traceparent)
	ce.Write(fields...)
}

func addrString(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
