package proxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/flow"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/waypoint/internal/frontend"
	"github.com/ambit-mesh/ambit/waypoint/internal/jwt"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// exchange is one request and its answer.
type exchange struct {
	d     *downstream
	p     *Proxy
	req   *message.Request
	w     message.Responder
	start time.Time

	entry    *frontend.Entry
	service  *wds.Service // nil when WDS does not know it
	client   route.Client
	decision route.Decision
	backend  *route.Backend
	assigned route.Assignment
	bare     bare

	trace  trace.Context
	span   *trace.Span
	tracer *trace.Tracer // of the span
	// wanted are the values of fields that attributes of spans have, as the client sent
	// them, and extra those attributes.
	wanted []string
	extra  []trace.Extra
	record flow.Record

	claims *jwt.Claims
	body   *upload // of the request, nil if it has none
	// marking are what is put on the response, whoever answers.
	marking   []func(*message.Fields)
	cutBy     atomic.Pointer[error] // why an upgrade was ended by us
	responded bool                  // a final response has begun
	first     [512]byte             // for bytes that are waited for
	idle      *idleWatch            // nil when the rule does not bound silence
	more      bool                  // a read filled its buffer, and the body cannot tell what is behind that
}

// exchanges are used again: each is more than two kilobytes, and whoever is called
// with one is done with it when the call returns.
var exchanges = sync.Pool{New: func() any { return new(exchange) }}

// exchange answers one request.
func (d *downstream) exchange(ctx context.Context, req *message.Request, w message.Responder) {
	x := exchanges.Get().(*exchange)
	x.d, x.p, x.req, x.w, x.start = d, d.proxy, req, w, time.Now()
	x.watch()
	x.client = d.routeClient()
	x.begin()
	d.proxy.active.Add(1)
	err := x.run(ctx)
	switch {
	case err == nil:
	case errors.Is(err, errClientGone) || ctx.Err() != nil && !x.responded:
		x.record.Flags, x.record.Verdict = joinFlags(x.record.Flags, flagClientGone), flowpb.Verdict_VERDICT_FAILED
		x.record.Reason = "the client went away"
		x.w.Break(errClientGone)
	default:
		f := x.unacceptable()
		if f == nil {
			d.timedOut(err)
			f = failureOf(err)
		}
		x.reply(f)
	}
	d.proxy.active.Add(-1)
	x.finish()
	if req.Tunnel() {
		return // who watches upgrades may have it in hand still
	}
	*x = exchange{}
	exchanges.Put(x)
}

// routeClient is the client as routes know it.
func (d *downstream) routeClient() route.Client {
	return route.Client{Identity: d.client.ID, Address: d.client.Address.Addr()}
}

var errClientGone = errors.New("client went away")

// run takes the request from one stage to the next.
func (x *exchange) run(ctx context.Context) error {
	if x.entry = x.p.cfg.Frontends.Key(x.d.key); x.entry == nil {
		return failed(503, flagInvalid, "destination_not_found", "service %s is no longer bound to waypoint %s", x.d.key, x.p.cfg.Gateway)
	}
	if x.entry.Leaving() {
		x.d.server.Drain() // it was opened in the last moment
	}
	x.service = x.p.cfg.Store.Service(x.d.key)
	path, err := route.NormalizePath(x.req.Path)
	if err != nil {
		return failed(400, flagMalformed, "http_request_error", "path: %s", err)
	}
	x.req.Path = path
	x.begun()
	if err := x.authenticate(ctx); err != nil {
		return err
	}
	if err := x.authorize(); err != nil {
		return err
	}
	if err := x.match(); err != nil {
		return err
	}
	return x.carryOut(ctx)
}

// match finds the rule.
func (x *exchange) match() error {
	x.decision = x.entry.Routes.Match(x.client, x.d.port, x.req)
	x.routed()
	switch d := &x.decision; d.Outcome {
	case route.Matched:
		return nil
	case route.NoRoute, route.NoPort:
		f := failed(d.Outcome.Status(), flagNoRoute, "destination_not_found", "%s", d.Reason)
		f.code, f.grpc = d.Outcome.Code(), true
		return f
	default:
		f := failed(500, flagInvalid, "proxy_configuration_error", "%s", d.Reason)
		f.code, f.grpc = d.Outcome.Code(), true
		return f
	}
}

// carryOut does what the rule says.
func (x *exchange) carryOut(ctx context.Context) error {
	rule := x.decision.Rule
	if done := x.answered(rule.Filters); done {
		return nil
	}
	if limit := rule.Timeouts.Request.Or(0); limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, x.start.Add(limit), timeoutError{timeoutRequest, "the request", limit})
		defer cancel()
	}
	if err := x.assign(); err != nil {
		return err
	}
	if err := x.inject(ctx); err != nil {
		return err
	}
	if err := x.limit(ctx); err != nil {
		return err
	}
	if err := x.askOutside(ctx, rule.Filters); err != nil {
		return err
	}
	ctx, stop := x.watchIdle(ctx)
	defer stop()
	return x.forward(ctx)
}

// answered lets filters answer by themselves: preflights and redirects.
func (x *exchange) answered(filters []route.Filter) bool {
	for i := range filters {
		switch f := &filters[i]; {
		case f.CORS != nil:
			if fields, ok := f.CORS.Preflight(x.req); ok {
				x.send(&message.Response{Status: 204, Fields: fields, ContentLength: -1}, nil)
				return true
			}
			x.marking = append(x.marking, func(fields *message.Fields) { f.CORS.Apply(x.req, fields) })
		case f.ResponseHeaders != nil:
			x.marking = append(x.marking, f.ResponseHeaders.Apply)
		case f.Redirect != nil:
			fields := message.Fields{{Name: "location", Value: f.Redirect.Location(x.req, x.d.port, x.decision.Prefix)}}
			x.marks(&fields)
			x.send(&message.Response{Status: f.Redirect.Status, Fields: fields}, nil)
			return true
		}
	}
	return false
}

// marks puts on a response what filters and limits want on it.
func (x *exchange) marks(fields *message.Fields) {
	for _, mark := range x.marking {
		mark(fields)
	}
}

// assign chooses the backend.
func (x *exchange) assign() error {
	x.assigned = x.decision.Rule.Assign(x.req, rand.Uint64(), x.start)
	x.backend = x.assigned.Backend
	if x.backend == nil || x.backend.Invalid != "" {
		f := failed(500, flagInvalid, "proxy_configuration_error", "%s: %s", x.decision.Rule.ID(), x.assigned.Reason)
		f.code, f.grpc = route.Unavailable, true
		return f
	}
	x.record.HTTP.Backend = x.backend.Service
	return nil
}

// inject delays and aborts as fault policies say.
func (x *exchange) inject(ctx context.Context) error {
	rule := x.decision.Rule
	if len(rule.Faults) == 0 {
		return nil
	}
	f := rule.Fault(x.client, x.req, x.backend.Service, rand.Uint64())
	if f.Delay > 0 {
		x.record.Flags = joinFlags(x.record.Flags, flagDelay)
		x.record.HTTP.Fault = policyNamed("FaultInjection", f.DelayedBy)
		wait := time.NewTimer(f.Delay)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-ctx.Done():
			return ended(ctx)
		}
	}
	if f.AbortedBy == "" {
		return nil
	}
	x.record.HTTP.Fault = policyNamed("FaultInjection", f.AbortedBy)
	a := failed(f.Status, flagFault, "http_request_error", "fault injected by %s", f.AbortedBy)
	a.code, a.grpc = f.Code, true
	return a
}

// policyNamed splits <namespace>/<name>[/<rule>].
func policyNamed(kind, s string) flow.Policy {
	p := flow.Policy{Kind: kind}
	var rest string
	p.Namespace, rest, _ = strings.Cut(s, "/")
	p.Name, p.Rule, _ = strings.Cut(rest, "/")
	return p
}

// ended says why a request's context has ended.
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, errTimeout) {
		return cause
	}
	return errClientGone
}
