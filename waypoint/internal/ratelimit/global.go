package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	ratelimitpb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlspb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ambit-mesh/ambit/waypoint/internal/guard"
)

const method = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"

// group is limits that are asked for in one call.
type group struct {
	global *Global
	asks   []*Ask
}

func (g *group) takes(a *Global) bool {
	b := g.global
	return a == b || a.Domain == b.Domain && a.Timeout == b.Timeout && a.FailOpen == b.FailOpen &&
		a.Backend.GetService() == b.Backend.GetService() && a.Backend.GetPort() == b.Backend.GetPort()
}

// groups gives the calls in the order of the limits.
func groups(asks []Ask) []group {
	var out []group
next:
	for i := range asks {
		a := &asks[i]
		if a.Global == nil {
			continue
		}
		for j := range out {
			if out[j].takes(a.Global) {
				out[j].asks = append(out[j].asks, a)
				continue next
			}
		}
		out = append(out, group{a.Global, []*Ask{a}})
	}
	return out
}

// checkGlobal reports whether the global limits let the request through.
func (l *Limiter) checkGlobal(ctx context.Context, asks []Ask, out *Outcome) bool {
	for _, g := range groups(asks) {
		first := len(out.Verdicts)
		answer, err := l.call(ctx, &g)
		if err != nil {
			if !l.unanswered(&g, err, out) {
				return false
			}
			continue
		}
		out.Verdicts = append(out.Verdicts, answer.verdicts...)
		out.RequestFields = append(out.RequestFields, answer.request...)
		out.ResponseFields = append(out.ResponseFields, answer.response...)
		mine := out.Verdicts[first:]
		for i, a := range g.asks {
			switch {
			case !mine[i].OK:
				l.metrics.global(a, outcomeLimited)
			case answer.ok:
				l.metrics.global(a, outcomeAllowed)
			}
		}
		if !answer.ok {
			out.refuse(tightest(mine))
			out.Body = answer.body
			out.RequestFields = nil
			return false
		}
	}
	return true
}

// unanswered reports whether the request may pass although nobody counts it.
func (l *Limiter) unanswered(g *group, err error, out *Outcome) bool {
	outcome := outcomeFailed
	if g.global.FailOpen {
		outcome = outcomeFailedOpen
	}
	for _, a := range g.asks {
		l.metrics.global(a, outcome)
	}
	if g.global.FailOpen {
		return true
	}
	limit := &g.asks[0].Limit
	out.OK, out.Status = false, http.StatusServiceUnavailable
	out.Policy, out.Rule = limit.Policy, limit.Rule
	out.RequestFields = nil
	out.Reason = fmt.Sprintf("rate limit %s: service %s cannot be asked, and the limit does not fail open: %v",
		limit.name(), g.global.Backend.GetService(), err)
	return false
}

var errNoCaller = errors.New("this waypoint calls no services")

func (l *Limiter) call(ctx context.Context, g *group) (*answer, error) {
	service := g.global.Backend.GetService()
	if reason := g.global.Backend.GetInvalid(); reason != "" {
		l.metrics.called(service, "unavailable")
		return nil, errors.New(reason)
	}
	if l.caller == nil {
		l.metrics.called(service, "unavailable")
		return nil, errNoCaller
	}
	request, err := proto.Marshal(requestFor(g))
	if err != nil {
		l.metrics.called(service, "malformed")
		return nil, fmt.Errorf("writing the request: %w", err)
	}
	timeout := g.global.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	raw, err := l.caller.Unary(ctx, g.global.Backend, method, request, timeout)
	if err != nil {
		l.metrics.called(service, failure(err))
		return nil, err
	}
	a, err := parse(raw, g.asks, func(f guard.Fault) { l.metrics.ignored(service, string(f)) })
	switch {
	case err != nil:
		l.metrics.called(service, "malformed")
	case a.ok:
		l.metrics.called(service, "ok")
	default:
		l.metrics.called(service, "over_limit")
	}
	return a, err
}

func failure(err error) string {
	code := status.Code(err)
	switch {
	case errors.Is(err, context.Canceled) || code == codes.Canceled:
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded) || code == codes.DeadlineExceeded:
		return "timeout"
	}
	return "unavailable"
}

func requestFor(g *group) *rlspb.RateLimitRequest {
	req := &rlspb.RateLimitRequest{Domain: guard.UTF8(g.global.Domain)}
	for _, a := range g.asks {
		d := &ratelimitpb.RateLimitDescriptor{Limit: override(&a.Limit)}
		for _, e := range a.Entries {
			d.Entries = append(d.Entries, &ratelimitpb.RateLimitDescriptor_Entry{Key: guard.UTF8(e.Key), Value: guard.UTF8(e.Value)})
		}
		req.Descriptors = append(req.Descriptors, d)
	}
	return req
}

// override gives the numbers of the limit to the service that counts, if there are
// any. Units that every service knows are preferred to multiples.
func override(l *Limit) *ratelimitpb.RateLimitDescriptor_RateLimitOverride {
	if l.Requests == 0 || l.Unit <= 0 {
		return nil
	}
	q, w := quota(uint64(l.Requests), l.Unit)
	o := &ratelimitpb.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: uint32(min(q, math.MaxUint32)), Unit: typepb.RateLimitUnit_SECOND}
	for _, u := range []struct {
		unit    typepb.RateLimitUnit
		seconds uint64
	}{{typepb.RateLimitUnit_DAY, 86400}, {typepb.RateLimitUnit_HOUR, 3600}, {typepb.RateLimitUnit_MINUTE, 60}} {
		if w%u.seconds == 0 {
			o.Unit, w = u.unit, w/u.seconds
			break
		}
	}
	if w != 1 {
		o.UnitMultiplier = wrapperspb.UInt32(uint32(min(w, math.MaxUint32)))
	}
	return o
}

// unitOf gives the window of a limit that a service names; 0: not known.
func unitOf(l *rlspb.RateLimitResponse_RateLimit) time.Duration {
	const day = 24 * time.Hour
	var unit time.Duration
	switch l.GetUnit() {
	case rlspb.RateLimitResponse_RateLimit_SECOND:
		unit = time.Second
	case rlspb.RateLimitResponse_RateLimit_MINUTE:
		unit = time.Minute
	case rlspb.RateLimitResponse_RateLimit_HOUR:
		unit = time.Hour
	case rlspb.RateLimitResponse_RateLimit_DAY:
		unit = day
	case rlspb.RateLimitResponse_RateLimit_WEEK:
		unit = 7 * day
	case rlspb.RateLimitResponse_RateLimit_MONTH:
		unit = 30 * day
	case rlspb.RateLimitResponse_RateLimit_YEAR:
		unit = 365 * day
	default:
		return 0
	}
	n := int64(max(l.GetUnitMultiplier().GetValue(), 1))
	return time.Duration(min(int64(unit), int64(maxWindow)/n) * n)
}

// maxWindow is beyond what anybody would wait for.
const maxWindow = 100 * 365 * 24 * time.Hour
