package proxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/waypoint/internal/upstream"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

const (
	// defaultKept is how much of a body is kept to be sent again.
	defaultKept = 64 << 10
	// defaultBackoff is the pause before the first retry.
	defaultBackoff    = 25 * time.Millisecond
	defaultMaxBackoff = 250 * time.Millisecond
	// freeTries is how often a request that was provably not processed, or that
	// met a connection which was just being closed, is sent again whatever the
	// route says: nobody would notice, except for the failure.
	freeTries = 2
)

// attempts sends a request until it is answered.
type attempts struct {
	x       *exchange
	cluster *upstream.Cluster
	up      message.Request // what is sent, but for the body
	proto   waypoint.Protocol
	retry   *route.Retry
	body    *replay // nil when there is none, or it is sent once
	pick    upstream.Pick
	retries int
	free    int
}

// answer is a response and what it took.
type answer struct {
	resp     *message.Response
	endpoint *upstream.Endpoint
	use      *upstream.Use
	span     *trace.Span
	ctx      context.Context // ends with the attempt's time
	cancel   context.CancelFunc
}

func (a *answer) close() {
	if a.resp != nil && a.resp.Body != nil {
		_ = a.resp.Body.Close()
	}
	a.cancel()
	a.use.Done()
	a.span.End(time.Now())
}

// forward sends the request to the backend and brings back the answer.
func (x *exchange) forward(ctx context.Context) error {
	cluster := x.p.cfg.Upstream.Cluster(x.backend.Service, x.backend.Port)
	leave, err := cluster.Enter()
	if err != nil {
		return err
	}
	defer leave()
	a := x.newAttempts(cluster)
	if a.body != nil {
		defer a.body.close()
	}
	mirrors := x.mirrors(a)
	defer x.sendMirrors(mirrors, a)
	ans, err := a.run(ctx)
	if err != nil {
		return err
	}
	defer ans.close()
	return x.respond(ans)
}

func (x *exchange) newAttempts(cluster *upstream.Cluster) *attempts {
	a := &attempts{x: x, cluster: cluster, retry: x.decision.Rule.Retry, up: *x.req, proto: x.backend.Protocol}
	a.up.Fields = x.req.Fields.Clone(6)
	for _, filters := range [2][]route.Filter{x.decision.Rule.Filters, x.backend.Filters} {
		for i := range filters {
			switch f := &filters[i]; {
			case f.RequestHeaders != nil:
				f.RequestHeaders.Apply(&a.up.Fields)
			case f.Rewrite != nil:
				f.Rewrite.Apply(&a.up, x.decision.Prefix)
			}
		}
	}
	for i := range x.backend.Filters {
		if h := x.backend.Filters[i].ResponseHeaders; h != nil {
			x.marking = append(x.marking, h.Apply)
		}
	}
	switch {
	case x.record.HTTP.GRPC:
		a.proto = waypoint.Protocol_PROTOCOL_HTTP2
	case a.proto != waypoint.Protocol_PROTOCOL_HTTP1 && a.proto != waypoint.Protocol_PROTOCOL_HTTP2:
		a.proto = waypoint.Protocol_PROTOCOL_HTTP1
		// Of a backend that speaks TLS nothing says that it speaks HTTP/2.
		if x.req.Version == message.HTTP2 && !cluster.Secured() {
			a.proto = waypoint.Protocol_PROTOCOL_HTTP2
		}
	}
	if x.req.Body != nil && !x.req.Tunnel() && a.keeps() {
		kept := int64(defaultKept)
		if a.retry != nil && a.retry.MaxBodyBytes > 0 {
			kept = a.retry.MaxBodyBytes
		}
		a.body = newReplay(x.req.Body, int(kept))
	}
	x.bare = bareTo(cluster)
	if cluster.Secured() {
		a.up.Scheme = "https"
	}
	a.pick = x.pickOf(cluster)
	return a
}

// keeps reports whether the body may be needed again.
func (a *attempts) keeps() bool {
	if a.retry != nil && a.retry.Attempts > 0 {
		return true
	}
	for i := range a.x.decision.Rule.Filters {
		if a.x.decision.Rule.Filters[i].Mirror != nil {
			return true
		}
	}
	// What is there already costs little to keep, and a connection that its other
	// end is just closing is then no failure.
	n := a.x.req.ContentLength
	return n >= 0 && n <= defaultKept && a.x.req.Body.Buffered() == int(n)
}

// run tries until there is an answer to pass on.
func (a *attempts) run(ctx context.Context) (*answer, error) {
	for {
		ans, err := a.once(ctx)
		if ctx.Err() != nil {
			if ans != nil {
				ans.close()
			}
			return nil, ended(ctx)
		}
		again, why := a.again(ans, err)
		if !again {
			return ans, err
		}
		leave := func() {}
		if why != unnoticed {
			var overloaded error
			if leave, overloaded = a.cluster.MayRetry(); overloaded != nil {
				if err != nil {
					err = fmt.Errorf("%w; not tried again: %w", err, overloaded)
				}
				return ans, err
			}
		}
		if ans != nil {
			a.pick.Avoid = append(a.pick.Avoid, ans.endpoint)
			ans.close()
		}
		if why != unnoticed {
			a.x.span.Event(time.Now(), "retry")
			if err := a.pause(ctx); err != nil {
				leave()
				return nil, err
			}
		}
		leave()
	}
}

// once makes one attempt. An answer is given also where it is one of failure.
func (a *attempts) once(ctx context.Context) (*answer, error) {
	e, err := a.cluster.Choose(a.pick)
	if err != nil {
		return nil, err
	}
	x := a.x
	x.idle.touch() // a pause between tries is ours
	x.record.HTTP.Attempts++
	timeouts := &x.decision.Rule.Timeouts
	ans := &answer{endpoint: e, ctx: ctx, cancel: func() {}, use: e.Use()}
	limit, name, what := timeouts.BackendRequest.Or(0), timeoutBackend, "the backend request"
	if a.retry != nil {
		if per := a.retry.PerTry.Or(0); per > 0 && (limit == 0 || per < limit) {
			limit, name, what = per, timeoutTry, "the try"
		}
	}
	if limit > 0 {
		ans.ctx, ans.cancel = context.WithTimeoutCause(ctx, limit, timeoutError{name, what, limit})
	}
	up := a.up
	up.Body = x.req.Body
	if a.body != nil {
		t := a.body.next()
		if t == nil {
			ans.close()
			return nil, errNotKept
		}
		up.Body = t
	}
	ans.span = x.startTry(e)
	x.tried(e)
	up.Fields = a.fieldsOfTry(ans.span)
	resp, via, err := a.cluster.RoundTrip(ans.ctx, e, &x.d.client, a.proto, timeouts.Connect.Or(0), &up, x.inform)
	if err != nil {
		if a.body == nil {
			x.req.Body = up.Body // what was taken of it may have been given back
		}
		if cause := context.Cause(ans.ctx); ctx.Err() == nil && errors.Is(cause, errTimeout) {
			err = cause
		}
		if !x.body.broken() && endpointFailed(ctx, err) {
			ans.use.Answered(true)
		}
		if ans.span != nil {
			ans.span.Attributes.Error = failureOf(err).flag
		}
		a.pick.Avoid = append(a.pick.Avoid, e)
		ans.close()
		return nil, err
	}
	x.record.TunnelOut = via
	ans.resp = resp
	a.judge(ans)
	if ans.span != nil {
		ans.span.Attributes.Status = resp.Status
	}
	return ans, nil
}

// endpointFailed tells whether an error is the endpoint's: not that of a client
// that has gone away or may not go there, and not that of too many requests.
// Otherwise one client could have the endpoint ejected for all.
func endpointFailed(ctx context.Context, err error) bool {
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), errTimeout) || errors.Is(err, upstream.ErrOverloaded) || errors.Is(err, upstream.ErrProhibited) {
		return false
	}
	status, _, refused := upstream.Refused(err)
	return !refused || status != 401
}

// judge tells of the endpoint how it has answered. Of a gRPC call that is known
// when the trailers have come.
func (a *attempts) judge(ans *answer) {
	code, given := grpcStatus(ans.resp)
	switch {
	case !a.x.record.HTTP.GRPC || ans.resp.Status != 200:
		ans.use.Answered(ans.resp.Status >= 500)
	case given:
		ans.use.Answered(code.OfServer())
	default:
		ans.use.Began(false)
	}
}

// fieldsOfTry are the fields with the place in the trace of this try.
func (a *attempts) fieldsOfTry(span *trace.Span) message.Fields {
	fields := a.up.Fields
	if span != nil {
		fields = fields.Clone(2) // another try will say something else
	}
	span.Or(a.x.span.Or(a.x.trace)).Inject(&fields)
	return fields
}

// inform passes an interim response on.
func (x *exchange) inform(status int, fields message.Fields) { _ = x.w.Inform(status, fields) }

// class of a retry.
type class uint8

const (
	noRetry class = iota
	unnoticed
	asked // by the route
)

// again decides whether to try again.
func (a *attempts) again(ans *answer, err error) (bool, class) {
	if a.x.body.broken() || a.x.req.Tunnel() && ans != nil || a.body == nil && a.x.req.Body != nil && !provablyUnsent(err) {
		return false, noRetry
	}
	if a.body != nil && !a.body.repeatable() {
		return false, noRetry
	}
	if err != nil && a.free < freeTries && a.unnoticed(err) {
		a.free++
		return true, unnoticed
	}
	if a.retry == nil || a.retries >= a.retry.Attempts || !a.wanted(ans, err) {
		return false, noRetry
	}
	a.retries++
	return true, asked
}

// provablyUnsent says that nothing of the body was taken.
func provablyUnsent(err error) bool {
	var connect *upstream.ConnectError
	return errors.As(err, &connect)
}

// unnoticed reports whether nobody can tell that the request was sent before.
func (a *attempts) unnoticed(err error) bool {
	var ex *message.ExchangeError
	if !errors.As(err, &ex) {
		return false
	}
	return ex.Stage == message.Unprocessed && ex.Reused || ex.Reused && ex.Stage == message.Sent && idempotent(a.x.req.Method)
}

// idempotent methods, RFC 9110 section 9.2.2.
func idempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// wanted reports whether the route wants such an outcome to be tried again.
func (a *attempts) wanted(ans *answer, err error) bool {
	r := a.retry
	// RFC 9110 section 9.2.2: a proxy must not repeat what is not idempotent of its
	// own accord. Whoever lists gRPC codes speaks of calls that are all POST.
	safe := r.UnsafeMethods || idempotent(a.x.req.Method)
	if err == nil {
		if code, ok := grpcStatus(ans.resp); ok && a.x.record.HTTP.GRPC {
			return r.OnCode(code)
		}
		return safe && r.OnStatus(ans.resp.Status)
	}
	var connect *upstream.ConnectError
	var ex *message.ExchangeError
	switch {
	case errors.As(err, &connect):
		status, _, refused := upstream.Refused(err)
		return r.ConnectFailure && (!refused || status == 503) && !errors.Is(err, upstream.ErrProhibited)
	case errors.Is(err, errTimeout):
		return r.Timeout && safe
	case errors.As(err, &ex):
		switch ex.Stage {
		case message.Unprocessed:
			return r.RefusedStream
		case message.Sent:
			return r.Reset && safe
		}
	}
	return false
}

// grpcStatus reads the status of an answer that is trailers only.
func grpcStatus(r *message.Response) (route.Code, bool) {
	v := r.Fields.Get("grpc-status")
	if v == "" {
		return 0, false
	}
	n, err := strconv.ParseUint(v, 10, 8)
	return route.Code(n), err == nil
}

// pause waits before a retry: a random part of a time that doubles.
func (a *attempts) pause(ctx context.Context) error {
	base, limit := a.retry.Backoff, a.retry.MaxBackoff
	if base == 0 {
		base = defaultBackoff
	}
	if limit == 0 {
		limit = max(defaultMaxBackoff, 10*base)
	}
	wait := limit
	if shift := min(a.retries-1, 20); base<<shift < limit {
		wait = base << shift
	}
	t := time.NewTimer(rand.N(wait) + 1)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ended(ctx)
	}
}

// pickOf says what endpoint the request wants.
func (x *exchange) pickOf(c *upstream.Cluster) upstream.Pick {
	p := upstream.Pick{Pinned: x.assigned.Endpoint}
	on := c.Policy().GetLoadBalancing().GetHashOn()
	switch t := on.GetType().(type) {
	case *waypoint.HashOn_Header:
		if v, ok := x.req.Fields.Joined(t.Header); ok {
			p.Hash, p.Hashed = upstream.HashString(v), true
		}
	case *waypoint.HashOn_Address:
		p.Hash, p.Hashed = upstream.HashString(x.client.Address.String()), true
	case *waypoint.HashOn_Cookie:
		v, ok := route.Cookie(x.req.Fields, t.Cookie)
		if !ok && on.GetCookieTtl() != nil {
			v = strconv.FormatUint(rand.Uint64(), 36)
			age := strconv.FormatInt(int64(on.GetCookieTtl().AsDuration()/time.Second), 10)
			ok = true
			x.marking = append(x.marking, func(f *message.Fields) {
				f.Add("set-cookie", t.Cookie+"="+v+"; Path=/; Max-Age="+age+"; HttpOnly")
			})
		}
		if ok {
			p.Hash, p.Hashed = upstream.HashString(v), true
		}
	}
	return p
}
