package proxy

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/flow"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// transports are what the tunnels of a session speak, h2 or h3: that of the client,
// and that to the destination, "" if there is none.
type transports struct{ in, out string }

// log writes the one line that a request or connection gets.
func (p *Proxy) log(r *flow.Record, via transports) {
	level, msg := zap.InfoLevel, "request complete"
	if r.HTTP.Method == "" {
		msg = "connection complete"
	}
	if r.Verdict != flowpb.Verdict_VERDICT_FORWARDED {
		level, msg = zap.ErrorLevel, strings.Replace(msg, "complete", "failed", 1)
	}
	ce := p.cfg.Access.Check(level, msg)
	if ce == nil {
		return
	}
	l := lines.Get().(*line)
	l.record, l.via = r, via
	ce.Write(zap.Inline(l))
	l.record = nil
	lines.Put(l)
}

// line is a record as fields of a log line. It goes straight into the encoder:
// neither the fields nor the texts of addresses and identities are made in memory
// of their own, since every request has a line.
type line struct {
	record *flow.Record
	via    transports
	text   []byte // of the value that is being written
	to     zapcore.ObjectEncoder
}

var lines = sync.Pool{New: func() any { return &line{text: make([]byte, 0, 256)} }}

// MarshalLogObject implements zapcore.ObjectMarshaler. Empty fields are left out.
func (l *line) MarshalLogObject(to zapcore.ObjectEncoder) error {
	l.to = to
	r := l.record
	l.address("src.addr", r.Source.Address)
	if w := r.Source.Workload; w != nil {
		l.str("src.workload", w.Name)
		l.str("src.namespace", w.Namespace)
	}
	l.identity("src.identity", r.Source)
	if r.Protocol == flowpb.Protocol_PROTOCOL_UDP {
		l.str("protocol", "udp")
		l.str("tunnel", l.via.in)
		l.str("dst.tunnel", l.via.out)
	}
	if r.Service != nil {
		l.str("dst.service", r.Service.Hostname)
		l.num("dst.port", int64(r.ServicePort))
	}
	if r.Destination.Address.IsValid() {
		l.address("dst.addr", r.Destination.Address)
	}
	if w := r.Destination.Workload; w != nil {
		l.str("dst.workload", w.Name)
		l.str("dst.namespace", w.Namespace)
	}
	l.identity("dst.identity", r.Destination)
	l.request(&r.HTTP)
	to.AddInt64("bytes_sent", r.Sent)
	to.AddInt64("bytes_recv", r.Received)
	to.AddDuration("duration", r.Duration)
	l.str("response_flags", r.Flags)
	l.str("policy", r.Policy.Name)
	l.str("policy.namespace", r.Policy.Namespace)
	l.str("policy.rule", r.Policy.Rule)
	l.str("error", r.Reason)
	for _, a := range r.Audits {
		l.str("audit", a.Namespace+"/"+a.Name)
	}
	if !r.Trace.IsZero() {
		l.bytes("trace_id", hex.AppendEncode(l.text, r.Trace[:]))
	}
	l.bytes("traceparent", r.TunnelIn.AppendTraceparent(l.text))
	l.to = nil
	return nil
}

func (l *line) str(k, v string) {
	if v != "" {
		l.to.AddString(k, v)
	}
}

func (l *line) num(k string, v int64) {
	if v != 0 {
		l.to.AddInt64(k, v)
	}
}

func (l *line) bytes(k string, v []byte) {
	if len(v) > 0 {
		l.to.AddByteString(k, v)
	}
}

func (l *line) address(k string, a netip.AddrPort) {
	if !a.IsValid() {
		l.str(k, a.String())
		return
	}
	l.bytes(k, a.AppendTo(l.text))
}

func (l *line) identity(k string, e flow.End) {
	if e.Identity.ServiceAccount != "" {
		l.bytes(k, e.Identity.Append(l.text))
	}
}

func (l *line) request(h *flow.HTTP) {
	if h.Method == "" {
		return
	}
	l.str("method", h.Method)
	l.str("path", h.Path)
	l.str("host", h.Host)
	l.num("status", int64(h.Status))
	if h.GRPC {
		l.str("grpc_status", route.Code(h.GRPCStatus).String())
	}
	l.str("route", h.Route)
	l.str("rule", h.Rule)
	l.str("backend", h.Backend)
	if h.Attempts > 1 {
		l.num("attempts", int64(h.Attempts))
	}
	for _, m := range h.Mirrors {
		l.str("mirror", m)
	}
	l.str("fault", h.Fault.Name)
	l.str("rate_limit", h.RateLimit.Name)
	l.str("upgrade", h.Upgrade)
}
