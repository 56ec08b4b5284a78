package proxy

import (
	"strconv"
	"strings"
	"time"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/flow"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/internal/stats"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/waypoint/internal/upstream"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// recordOf begins the record of a connection or of a request on it.
func (d *downstream) recordOf(start time.Time) flow.Record {
	return flow.Record{
		Start: start, Reporter: flowpb.Reporter_REPORTER_WAYPOINT, Protocol: flowpb.Protocol_PROTOCOL_TCP,
		Verdict: flowpb.Verdict_VERDICT_FORWARDED, Encrypted: true, TunnelIn: d.tunnel,
		Source:      flow.End{Workload: d.source, Identity: d.client.ID, Address: d.client.Address},
		Service:     d.proxy.cfg.Store.Service(d.key),
		ServicePort: d.port, Waypoint: d.proxy.cfg.Gateway,
	}
}

// begin notes what the head of a request says.
func (x *exchange) begin() {
	x.record = x.d.recordOf(x.start)
	h := &x.record.HTTP
	h.Method, h.Host, h.UserAgent = x.req.Method, x.req.Authority, x.req.Fields.Get("user-agent")
	h.Path, _, _ = strings.Cut(x.req.Path, "?")
	h.GRPC = route.IsGRPC(x.req)
	h.RequestBytes = max(0, x.req.ContentLength)
	switch x.req.Version {
	case message.HTTP2:
		h.Version = flowpb.HTTP_VERSION_HTTP2
	case message.HTTP10:
		h.Version = flowpb.HTTP_VERSION_HTTP10
	default:
		h.Version = flowpb.HTTP_VERSION_HTTP11
	}
}

// begun notes the path that counts, and what the client's fields say of the span.
func (x *exchange) begun() {
	x.record.HTTP.Path, _, _ = strings.Cut(x.req.Path, "?")
	x.trace = trace.Extract(x.req.Fields)
	x.wanted = x.entry.Routes.Telemetry.Headers(x.req)
}

// routed notes the rule that was found, which also says what is sampled, and begins
// the span.
func (x *exchange) routed() {
	rule, tracing := x.decision.Rule, x.entry.Routes.Tracing
	if rule != nil {
		if rule.Route != (route.RouteRef{}) {
			x.record.HTTP.Route = rule.Route.String()
			if x.record.HTTP.Rule = rule.Name; rule.Name == "" {
				x.record.HTTP.Rule = strconv.Itoa(int(rule.Index))
			}
		}
		tracing = rule.Tracing
	}
	sampling := trace.Sampling{Millionths: x.p.cfg.Sampling}
	if tracing != nil {
		sampling = trace.Sampling{Millionths: tracing.Sampling, Disabled: tracing.Disabled}
	}
	x.tracer = x.p.cfg.Tracer
	if t := x.entry.Routes.Telemetry; t != nil {
		x.tracer = x.entry.Spans.Tracer(x.tracer)
		sampling.Disabled = sampling.Disabled || t.Invalid != ""
		sampling.Parent = trace.Parent{Ignored: t.Parent.Ignored, Limited: t.Parent.Limited, Millionths: t.Parent.Sampling}
	}
	x.trace = trace.Decide(x.trace, sampling)
	x.span = x.tracer.Start(x.trace, x.req.Method, trace.Server, x.start)
	x.record.Trace = x.trace.TraceID
	if t := x.entry.Routes.Telemetry; t != nil && x.span != nil {
		x.extra = extras(t, x.wanted)
	}
}

// extras are the attributes that the frontend's telemetry asks for. Fields that the
// request does not have, or that say nothing, are left out.
func extras(t *route.Telemetry, wanted []string) []trace.Extra {
	out := make([]trace.Extra, 0, len(t.Attributes))
	for i := range t.Attributes {
		a := &t.Attributes[i]
		e := trace.Extra{Name: a.Name, Value: a.Literal, Of: a.Key}
		if a.Header != "" {
			if e.Value, wanted = wanted[0], wanted[1:]; e.Value == "" {
				continue
			}
		}
		out = append(out, e)
	}
	return out
}

// tried notes where the request is being sent.
func (x *exchange) tried(e *upstream.Endpoint) {
	w := e.Workload()
	x.record.Destination = flow.End{Workload: w, Address: e.Address(x.client.Address.Is4())}
	if w.HBONE {
		x.record.Destination.Identity = w.Identity()
	}
}

// startTry begins the span of an attempt; nil when the request is not sampled.
func (x *exchange) startTry(e *upstream.Endpoint) *trace.Span {
	if x.span == nil {
		return nil
	}
	s := x.tracer.Start(x.span.Or(x.trace), x.req.Method, trace.Client, time.Now())
	if s == nil {
		return nil
	}
	w := e.Workload()
	a := &s.Attributes
	a.Method, a.Path, a.Backend, a.Resend = x.req.Method, x.record.HTTP.Path, x.backend.Service, x.record.HTTP.Attempts-1
	a.DestinationWorkload = w.Namespace + "/" + w.Name
	a.DestinationIdentity = w.Identity().String()
	a.Extra = x.extra
	at := e.Address(x.client.Address.Is4())
	if a.PeerPort = at.Port(); at.Addr().IsValid() {
		a.PeerAddress = at.Addr().String()
	}
	return s
}

// finish closes the books of a request: metrics, span, flow and log say the same.
func (x *exchange) finish() {
	now := time.Now()
	r := &x.record
	r.Duration = now.Sub(x.start)
	if x.body != nil && x.req.ContentLength < 0 {
		r.HTTP.RequestBytes = x.body.n.Load()
	}
	r.Sent, r.Received = r.HTTP.RequestBytes, r.HTTP.ResponseBytes
	proto := stats.HTTP
	if r.HTTP.GRPC {
		proto = stats.GRPC
	}
	x.p.cfg.Stats.Record(stats.Key{
		Source: r.Source.Workload, Destination: r.Destination.Workload, SourceID: r.Source.Identity, DestinationID: r.Destination.Identity,
		Service: r.Service, Protocol: proto, Code: r.HTTP.Status, GRPCStatus: r.HTTP.GRPCStatus, Flags: r.Flags,
	}, stats.Observation{Duration: r.Duration, RequestBytes: r.HTTP.RequestBytes, ResponseBytes: r.HTTP.ResponseBytes, Trace: x.trace})
	x.endSpan(now)
	x.p.cfg.Flows.Append(r)
	x.p.log(r, transports{})
}

func (x *exchange) endSpan(now time.Time) {
	s := x.span
	if s == nil {
		return
	}
	r, h := &x.record, &x.record.HTTP
	name := h.Method
	if h.Route != "" {
		name += " " + h.Route
	}
	if t := x.entry.Routes.Telemetry; t != nil && t.SpanName != "" {
		name = t.SpanName
	}
	s.SetName(name)
	a := &s.Attributes
	a.Method, a.Scheme, a.Path, a.Host, a.UserAgent = h.Method, x.req.Scheme, h.Path, h.Host, h.UserAgent
	a.Version = strings.TrimPrefix(x.req.Version.String(), "HTTP/")
	a.ClientAddress = x.client.Address.String()
	a.Status, a.GRPC, a.GRPCStatus = h.Status, h.GRPC, h.GRPCStatus
	if h.GRPC {
		a.GRPCService, a.GRPCMethod, _ = strings.Cut(strings.TrimPrefix(h.Path, "/"), "/")
	}
	a.RequestBytes, a.ResponseBytes = h.RequestBytes, h.ResponseBytes
	a.Error, a.Route, a.Rule, a.Backend = r.Flags, h.Route, h.Rule, h.Backend
	a.SourceIdentity, a.DestinationIdentity = idString(r.Source), idString(r.Destination)
	a.SourceWorkload, a.DestinationWorkload = workloadString(r.Source), workloadString(r.Destination)
	a.Retries = max(0, h.Attempts-1)
	a.Policy, a.PolicyRule, a.Waypoint = r.Policy.Name, r.Policy.Rule, r.Waypoint
	a.Extra = x.extra
	s.End(now)
}

func idString(e flow.End) string {
	if e.Identity.ServiceAccount == "" {
		return ""
	}
	return e.Identity.String()
}

func workloadString(e flow.End) string {
	if e.Workload == nil {
		return ""
	}
	return e.Workload.Namespace + "/" + e.Workload.Name
}
