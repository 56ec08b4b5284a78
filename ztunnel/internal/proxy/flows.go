package proxy

import (
	"errors"
	"time"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/authz"
	"github.com/ambit-mesh/ambit/internal/flow"
	"github.com/ambit-mesh/ambit/internal/trace"
)

// established notes that a connection works from now on.
func (p *Pod) established(c *connection) {
	p.conns.established(c, p.cfg.Metrics.of(c.labels(flagNone)))
	// Without observers nobody could use what will be told again at the end.
	if p.cfg.Flows.Observed() {
		var r flow.Record
		c.record(&r, nil)
		r.Opened = true
		p.cfg.Flows.Append(&r)
	}
}

// finished closes the books of a connection.
func (p *Pod) finished(c *connection, err error) {
	p.conns.closed(c)
	if !c.established {
		p.cfg.Metrics.failed.WithLabelValues(c.labels(flagsOf(err))[:]...).Inc()
	}
	c.log(p.cfg.Access, err)
	var r flow.Record
	c.record(&r, err)
	p.cfg.Flows.Append(&r)
}

// record fills in the connection as observers see it.
func (c *connection) record(r *flow.Record, err error) {
	*r = flow.Record{
		Start: c.start, Duration: time.Since(c.start), Protocol: flowpb.Protocol_PROTOCOL_TCP, Encrypted: c.tunnel,
		Reporter: flowpb.Reporter_REPORTER_DESTINATION, Verdict: flowpb.Verdict_VERDICT_FORWARDED,
		Source:      flow.End{Workload: c.src, Identity: c.srcID, Address: c.srcAddr},
		Destination: flow.End{Workload: c.dst, Identity: c.dstID, Address: c.dstAddr},
		Service:     c.service,
	}
	if c.udp {
		r.Protocol = flowpb.Protocol_PROTOCOL_UDP
	}
	r.Sent, r.Received = c.transferred()
	tunnel, _ := trace.ParseTraceparent(c.traceparent)
	if c.direction == Outbound {
		r.Reporter, r.TunnelOut = flowpb.Reporter_REPORTER_SOURCE, tunnel
		c.addressed(r)
	} else {
		r.TunnelIn = tunnel
	}
	for i := range c.audits {
		a := &c.audits[i]
		r.Audits = append(r.Audits, flow.Policy{Namespace: a.Policy.Namespace, Name: a.Policy.Name, Rule: ruleName(&authz.Decision{Rule: a.Rule, RuleName: a.RuleName})})
	}
	if err != nil {
		c.failure(r, err)
	}
}

// addressed tells what the application asked for from where it got.
func (c *connection) addressed(r *flow.Record) {
	if c.service != nil {
		r.ServicePort = c.dstAddr.Port()
	}
	if c.target.IsValid() {
		r.Destination.Address = c.target
	}
	if c.waypoint && c.dst != nil {
		r.Waypoint = c.dst.Namespace + "/" + c.dst.Owner
	}
}

// failure says why the connection was not carried to its end.
func (c *connection) failure(r *flow.Record, err error) {
	r.Verdict, r.Reason, r.Flags = flowpb.Verdict_VERDICT_FAILED, err.Error(), flagsOf(err)
	if r.Flags == flagDeny || r.Flags == flagRegistry {
		r.Verdict = flowpb.Verdict_VERDICT_DENIED
	}
	var denied *deniedError
	if errors.As(err, &denied) {
		d := denied.decision
		r.Policy = flow.Policy{Namespace: d.Policy.Namespace, Name: d.Policy.Name, Rule: ruleName(d)}
	}
}
