package route

import (
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ambit-mesh/ambit/apis/waypoint"
)

// maxWeight is that of the Gateway API, BackendRef.Weight.
const maxWeight = 1_000_000

// rule reads a rule. The matches are given for their prefixes, which filters may
// replace.
func (c *compiler) rule(pb *waypoint.Rule, route RouteRef, label string, matches []*match) *Rule {
	r := &Rule{Route: route, Index: pb.GetIndex(), Name: pb.GetName(), label: label}
	for i, m := range matches {
		if m.path.class != classPrefix {
			c.noPrefix = fmt.Sprintf("matches[%d] is for a path that is not a prefix", i)
		}
	}
	r.Filters = c.filters("filters", pb.GetFilters())
	for i := range r.Filters {
		r.answers = r.answers || r.Filters[i].Redirect != nil
	}
	r.Backends, r.sums = c.backends(pb.GetBackends())
	r.Timeouts = c.timeouts("timeouts", pb.GetTimeouts())
	r.Retry = c.retry("retry", pb.GetRetry())
	r.Session = c.session("session_persistence", pb.GetSessionPersistence())
	for i, f := range pb.GetFaults() {
		r.Faults = append(r.Faults, c.fault(fmt.Sprintf("faults[%d]", i), f))
	}
	for i, l := range pb.GetRateLimits() {
		r.RateLimits = append(r.RateLimits, c.rateLimit(fmt.Sprintf("rate_limits[%d]", i), l))
	}
	r.Tracing = c.tracing("tracing", pb.GetTracing())
	r.id = ruleID(r)
	if r.Invalid = pb.GetInvalid(); r.Invalid != "" {
		r.Invalid = label + ": " + r.Invalid
	} else {
		r.Invalid = c.reason()
	}
	return r
}

func ruleID(r *Rule) string {
	if r.Route == (RouteRef{}) {
		return "fallback"
	}
	rule := r.Name
	if rule == "" {
		rule = strconv.FormatUint(uint64(r.Index), 10)
	}
	return r.Route.Kind + "/" + r.Route.Namespace + "/" + r.Route.Name + "/" + rule
}

func (c *compiler) backends(list []*waypoint.WeightedBackend) ([]Backend, []uint64) {
	out := make([]Backend, len(list))
	sums := make([]uint64, len(list))
	seen := map[uint64]bool{}
	total := uint64(0)
	for i, pb := range list {
		at := fmt.Sprintf("backends[%d]", i)
		b := c.backendRef(at+".backend", pb.GetBackend())
		if b.Weight = pb.GetWeight(); b.Weight > maxWeight {
			c.problem(at+".weight", fmt.Sprintf("%d is more than %d; use smaller weights in the same proportion", b.Weight, maxWeight))
		}
		total += uint64(b.Weight)
		sums[i] = total
		// Backends that are one service and differ in filters are told apart by their
		// order.
		for n := 0; b.ID == 0 || seen[b.ID]; n++ {
			b.ID = backendID(&b, n)
		}
		seen[b.ID] = true
		c.backendFilters(at, &b, pb.GetFilters())
		out[i] = b
	}
	return out, sums
}

func backendID(b *Backend, n int) uint64 {
	return hash64(fmt.Sprintf("%s:%d/%d", b.Service, b.Port, n))
}

// backendFilters reads the filters of a backend. If they cannot be carried out
// the backend cannot be used, and the others can.
func (c *compiler) backendFilters(at string, b *Backend, list []*waypoint.Filter) {
	own := &compiler{where: c.where, noPrefix: c.noPrefix}
	b.Filters = own.filters(at+".filters", list)
	c.minor = append(c.minor, own.problems...)
	if b.Invalid == "" {
		b.Invalid = own.reason()
	}
}

// backendRef reads a backend. One that cannot be used is Invalid, which is not a
// problem of the rule.
func (c *compiler) backendRef(at string, pb *waypoint.BackendRef) Backend {
	b := Backend{Service: pb.GetService(), Port: uint16(pb.GetPort()), Protocol: pb.GetProtocol(), Invalid: pb.GetInvalid()}
	if b.Invalid != "" {
		return b
	}
	_, known := waypoint.Protocol_name[int32(b.Protocol)]
	field, message := "", ""
	switch {
	case b.Service == "":
		field, message = ".service", "is missing; name the service that requests go to"
	case pb.GetPort() == 0 || pb.GetPort() > 65535:
		field, message = ".port", fmt.Sprintf("%d is not a port; use 1 to 65535", pb.GetPort())
	case !known:
		field, message = ".protocol", fmt.Sprintf("%d is not known; update the waypoint, or set appProtocol to one that it speaks", b.Protocol)
	default:
		return b
	}
	p := c.where
	p.Field, p.Message = at+field, message
	c.minor = append(c.minor, p)
	b.Invalid = p.String()
	return b
}

func (c *compiler) filters(at string, list []*waypoint.Filter) []Filter {
	out := make([]Filter, 0, len(list))
	rewrites, redirects := false, false
	for i, pb := range list {
		f := c.filter(fmt.Sprintf("%s[%d]", at, i), pb)
		rewrites, redirects = rewrites || f.Rewrite != nil, redirects || f.Redirect != nil
		out = append(out, f)
	}
	if rewrites && redirects {
		c.problem(at, "a redirect and a rewrite exclude each other; remove one of them")
	}
	return out
}

func (c *compiler) filter(at string, pb *waypoint.Filter) Filter {
	switch t := pb.GetType().(type) {
	case *waypoint.Filter_RequestHeaders:
		return Filter{RequestHeaders: c.headerModifier(at+".request_headers", t.RequestHeaders)}
	case *waypoint.Filter_ResponseHeaders:
		return Filter{ResponseHeaders: c.headerModifier(at+".response_headers", t.ResponseHeaders)}
	case *waypoint.Filter_Redirect:
		return Filter{Redirect: c.redirect(at+".redirect", t.Redirect)}
	case *waypoint.Filter_Rewrite:
		return Filter{Rewrite: c.rewrite(at+".rewrite", t.Rewrite)}
	case *waypoint.Filter_Mirror:
		return Filter{Mirror: c.mirror(at+".mirror", t.Mirror)}
	case *waypoint.Filter_Cors:
		return Filter{CORS: c.cors(at+".cors", t.Cors)}
	case *waypoint.Filter_ExternalAuthorization:
		return Filter{ExternalAuthorization: c.externalAuthorization(at+".external_authorization", t.ExternalAuthorization)}
	}
	c.problem(at, "has no type that is known; remove the filter, or update the waypoint")
	return Filter{}
}

func (c *compiler) externalAuthorization(at string, pb *waypoint.ExternalAuthorization) *ExternalAuthorization {
	a := &ExternalAuthorization{
		Policy: pb.GetPolicy(), Backend: c.backendRef(at+".backend", pb.GetBackend()), MaxBodyBytes: int64(pb.GetMaxBodyBytes()),
		Timeout: c.timeout(at+".timeout", pb.GetTimeout()), FailOpen: pb.GetFailOpen(),
	}
	// Whom to ask is not known: that is not the same as one who does not answer, so
	// FailOpen does not help.
	if a.Backend.Invalid != "" {
		c.problem(at+".backend", a.Backend.Invalid)
	}
	switch t := pb.GetProtocol().(type) {
	case *waypoint.ExternalAuthorization_Grpc:
		a.GRPC, a.AllowedHeaders = true, c.headerNames(at+".grpc.allowed_headers", t.Grpc.GetAllowedHeaders())
	case *waypoint.ExternalAuthorization_Http:
		a.Path = t.Http.GetPath()
		if a.Path != "" {
			a.Path = c.replacement(at+".http.path", a.Path)
		}
		a.AllowedHeaders = c.headerNames(at+".http.allowed_headers", t.Http.GetAllowedHeaders())
		a.AllowedResponseHeaders = c.headerNames(at+".http.allowed_response_headers", t.Http.GetAllowedResponseHeaders())
	default:
		c.problem(at, "neither grpc nor http is set; set one of them")
	}
	return a
}

func (c *compiler) timeouts(at string, pb *waypoint.Timeouts) Timeouts {
	return Timeouts{
		Request:        c.timeout(at+".request", pb.GetRequest()),
		BackendRequest: c.timeout(at+".backend_request", pb.GetBackendRequest()),
		Idle:           c.timeout(at+".idle", pb.GetIdle()),
		Connect:        c.timeout(at+".connect", pb.GetConnect()),
	}
}

func (c *compiler) timeout(at string, pb *durationpb.Duration) Timeout {
	return Timeout{Set: pb != nil, Duration: c.duration(at, pb)}
}

// duration reads one that is not negative; absent it is 0.
func (c *compiler) duration(at string, pb *durationpb.Duration) time.Duration {
	if pb == nil {
		return 0
	}
	if err := pb.CheckValid(); err != nil || pb.AsDuration() < 0 {
		c.problem(at, fmt.Sprintf("%ds %dns is not a duration from 0 on; use one such as 10s", pb.GetSeconds(), pb.GetNanos()))
		return 0
	}
	return pb.AsDuration()
}

func (c *compiler) retry(at string, pb *waypoint.Retry) *Retry {
	if pb == nil {
		return nil
	}
	r := &Retry{
		Attempts: int(pb.GetAttempts()), MaxBodyBytes: int64(pb.GetMaxBodyBytes()), UnsafeMethods: pb.GetUnsafeMethods(),
		Backoff: c.duration(at+".backoff", pb.GetBackoff()), MaxBackoff: c.duration(at+".max_backoff", pb.GetMaxBackoff()),
		PerTry: c.timeout(at+".per_try_timeout", pb.GetPerTryTimeout()), statuses: map[int]bool{},
	}
	for i, on := range pb.GetOn() {
		switch on {
		case waypoint.Retry_ON_CONNECT_FAILURE:
			r.ConnectFailure = true
		case waypoint.Retry_ON_REFUSED_STREAM:
			r.RefusedStream = true
		case waypoint.Retry_ON_RESET:
			r.Reset = true
		case waypoint.Retry_ON_TIMEOUT:
			r.Timeout = true
		default:
			c.problem(fmt.Sprintf("%s.on[%d]", at, i), fmt.Sprintf("%d is not known; remove it, or update the waypoint", on))
		}
	}
	for i, status := range pb.GetCodes() {
		if status < 400 || status > 599 {
			c.problem(fmt.Sprintf("%s.codes[%d]", at, i), fmt.Sprintf("%d is not a failure; use 400 to 599", status))
		}
		r.statuses[int(status)] = true
	}
	for i, name := range pb.GetGrpcCodes() {
		r.codes |= 1 << c.code(fmt.Sprintf("%s.grpc_codes[%d]", at, i), name)
	}
	return r
}

func (c *compiler) tracing(at string, pb *waypoint.Tracing) *Tracing {
	if pb == nil {
		return nil
	}
	return &Tracing{Disabled: pb.GetDisabled(), Sampling: c.share(at+".sampling", pb.GetSampling())}
}
