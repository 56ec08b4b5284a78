package proxy

import (
	"context"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/flow"
	"github.com/ambit-mesh/ambit/waypoint/internal/ratelimit"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// limit asks the rate limits that are about the request: of the rule, and of the
// backend that was chosen.
func (x *exchange) limit(ctx context.Context) error {
	var room [4]*route.RateLimit
	limits := room[:0]
	if l := x.decision.Rule.RateLimits; len(l) > 0 {
		limits = route.SelectRateLimits(limits, l, x.client, x.req, x.backend.Service)
	}
	if l := x.p.cfg.BackendLimits(x.backend.Service); len(l) > 0 {
		limits = route.SelectRateLimits(limits, l, x.client, x.req, x.backend.Service)
	}
	if len(limits) == 0 {
		return nil
	}
	asks := make([]ratelimit.Ask, 0, len(limits))
	for _, l := range limits {
		if l.Invalid != "" {
			f := failed(500, flagInvalid, "proxy_configuration_error", "rate limit %s/%s: %s", l.Policy, l.Rule, l.Invalid)
			f.policy = limitPolicy(l.Policy, l.Rule)
			return f
		}
		asks = append(asks, x.askOf(l))
	}
	out := x.p.cfg.Limiter.Check(ctx, asks, x.start, nil)
	x.marking = append(x.marking, out.Headers)
	if out.OK {
		x.req.Fields = append(x.req.Fields, out.RequestFields...)
		return nil
	}
	f := failed(out.Status, flagRateLimited, "http_request_denied", "%s", out.Reason)
	f.verdict, f.body = flowpb.Verdict_VERDICT_LIMITED, out.Body
	f.policy = limitPolicy(out.Policy, out.Rule)
	x.record.HTTP.RateLimit = f.policy
	f.code, f.grpc = route.ResourceExhausted, out.Status == 429
	return f
}

func (x *exchange) askOf(l *route.RateLimit) ratelimit.Ask {
	ask := ratelimit.Ask{Limit: ratelimit.Limit{Policy: l.Policy, Rule: l.Rule, Requests: l.Requests, Burst: l.Burst, Unit: l.Unit}}
	if l.Global == nil {
		ask.Key = l.Key(x.client, x.req)
		return ask
	}
	ask.Global = &ratelimit.Global{Backend: backendRef(&l.Global.Backend), Domain: l.Global.Domain, Timeout: l.Global.Timeout.Or(0), FailOpen: l.Global.FailOpen}
	for _, e := range l.Entries(x.client, x.req) {
		ask.Entries = append(ask.Entries, ratelimit.Entry(e))
	}
	return ask
}

func limitPolicy(policy, rule string) flow.Policy {
	p := policyNamed("RateLimitPolicy", policy)
	p.Rule = rule
	return p
}

func backendRef(b *route.Backend) *waypoint.BackendRef {
	return &waypoint.BackendRef{Service: b.Service, Port: uint32(b.Port), Protocol: b.Protocol, Invalid: b.Invalid}
}
