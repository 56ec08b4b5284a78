package flow

import (
	"time"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// packed is a Record as it is kept: less than half of its size. What few records
// have, HTTP and Policy, has memory of its own, which the slot keeps for the next
// record that needs it.
type packed struct {
	start, duration             int64
	tunnelIn, tunnelOut         stream
	trace                       trace.TraceID
	source, destination         End
	service                     *wds.Service
	waypoint                    string
	audits                      []Policy
	reason, flags               string
	sent, received              int64
	http                        *HTTP
	policy                      *Policy
	reporter, protocol, verdict uint8
	opened, encrypted           bool
	hasHTTP, hasPolicy          bool
	servicePort                 uint16
}

// stream is what names a tunnel stream.
type stream struct {
	trace trace.TraceID
	span  trace.SpanID
}

func (s stream) context() trace.Context { return trace.Context{TraceID: s.trace, SpanID: s.span} }

// pack takes over a record.
func (p *packed) pack(r *Record) {
	p.start, p.duration = r.Start.UnixNano(), int64(r.Duration)
	p.tunnelIn, p.tunnelOut = stream{r.TunnelIn.TraceID, r.TunnelIn.SpanID}, stream{r.TunnelOut.TraceID, r.TunnelOut.SpanID}
	p.trace, p.source, p.destination, p.service, p.servicePort = r.Trace, r.Source, r.Destination, r.Service, r.ServicePort
	p.waypoint, p.audits, p.reason, p.flags, p.sent, p.received = r.Waypoint, r.Audits, r.Reason, r.Flags, r.Sent, r.Received
	p.reporter, p.protocol, p.verdict = uint8(r.Reporter), uint8(r.Protocol), uint8(r.Verdict)
	p.opened, p.encrypted = r.Opened, r.Encrypted
	p.hasHTTP = put(&p.http, &r.HTTP, r.HTTP.Method != "", p.hasHTTP)
	p.hasPolicy = put(&p.policy, &r.Policy, r.Policy != Policy{}, p.hasPolicy)
}

// put copies a value to where a slot keeps it, if there is one, and otherwise
// forgets the one that was there.
func put[T any](at **T, v *T, is, was bool) bool {
	switch {
	case is && *at == nil:
		*at = new(T)
		fallthrough
	case is:
		**at = *v
	case was:
		var none T
		**at = none
	}
	return is
}

// unpack gives the record back.
func (p *packed) unpack(r *Record) {
	*r = Record{
		Opened: p.opened, Start: time.Unix(0, p.start), Duration: time.Duration(p.duration),
		Reporter: flowpb.Reporter(p.reporter), Protocol: flowpb.Protocol(p.protocol), Verdict: flowpb.Verdict(p.verdict),
		Encrypted: p.encrypted, TunnelIn: p.tunnelIn.context(), TunnelOut: p.tunnelOut.context(), Trace: p.trace,
		Source: p.source, Destination: p.destination, Service: p.service, ServicePort: p.servicePort,
		Waypoint: p.waypoint, Audits: p.audits, Reason: p.reason, Flags: p.flags, Sent: p.sent, Received: p.received,
	}
	if p.hasHTTP {
		r.HTTP = *p.http
	}
	if p.hasPolicy {
		r.Policy = *p.policy
	}
}
