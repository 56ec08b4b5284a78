package traffic

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/waypoint"
)

const (
	// DefaultRetryBody is how many bytes of a body are kept to be sent again.
	DefaultRetryBody = 64 << 10
	// MaxAttempts is how often a request may be sent again.
	MaxAttempts = 10
	// maxRetryBody bounds the memory that one request may take.
	maxRetryBody = 8 << 20
)

var failures = map[v1alpha1.RetryFailure]waypoint.Retry_On{
	v1alpha1.RetryConnectFailure: waypoint.Retry_ON_CONNECT_FAILURE,
	v1alpha1.RetryRefusedStream:  waypoint.Retry_ON_REFUSED_STREAM,
	v1alpha1.RetryReset:          waypoint.Retry_ON_RESET,
	v1alpha1.RetryTimeout:        waypoint.Retry_ON_TIMEOUT,
}

// Retry gives the wire form of a policy; nil for one that turns retries off.
func Retry(p *v1alpha1.RetryPolicy, r *Report) *waypoint.Retry {
	s := &p.Spec
	out := &waypoint.Retry{
		Attempts:      r.number("spec.attempts", s.Attempts, 1, 0, MaxAttempts),
		PerTryTimeout: r.duration("spec.perTryTimeout", s.PerTryTimeout),
		MaxBodyBytes:  r.number("spec.maxBodyBytes", s.MaxBodyBytes, DefaultRetryBody, 0, maxRetryBody),
		UnsafeMethods: s.UnsafeMethods,
	}
	on := s.RetryOn
	if on == nil {
		on = []v1alpha1.RetryFailure{v1alpha1.RetryConnectFailure, v1alpha1.RetryRefusedStream}
	}
	for i, f := range on {
		v, ok := failures[f]
		if !ok {
			r.Add(fmt.Sprintf("spec.retryOn[%d]", i), "%q is not a failure; use ConnectFailure, RefusedStream, Reset or Timeout", f)
		}
		out.On = append(out.On, v)
	}
	for i, code := range s.Codes {
		out.Codes = append(out.Codes, r.number(fmt.Sprintf("spec.codes[%d]", i), &code, 0, 400, 599))
	}
	for i, code := range s.GRPCCodes {
		r.grpcCode(fmt.Sprintf("spec.grpcCodes[%d]", i), code)
		out.GrpcCodes = append(out.GrpcCodes, string(code))
	}
	slices.Sort(out.On)
	slices.Sort(out.Codes)
	slices.Sort(out.GrpcCodes)
	backoff := s.Backoff
	if backoff == nil {
		backoff = &v1alpha1.RetryBackoff{}
	}
	out.Backoff = r.durationOr("spec.backoff.base", backoff.Base, "25ms")
	out.MaxBackoff = durationpb.New(10 * out.GetBackoff().AsDuration())
	if backoff.Max != nil {
		out.MaxBackoff = r.duration("spec.backoff.max", backoff.Max)
	}
	if out.GetMaxBackoff().AsDuration() < out.GetBackoff().AsDuration() {
		r.Add("spec.backoff.max", "must not be shorter than base, %s", out.GetBackoff().AsDuration())
	}
	if out.GetAttempts() == 0 {
		return nil
	}
	return out
}

func (r *Report) grpcCode(field string, code v1alpha1.GRPCCode) {
	var c codes.Code
	if err := c.UnmarshalJSON([]byte(`"` + string(code) + `"`)); err != nil || c == codes.OK {
		r.Add(field, "%q is not the name of a gRPC status other than OK, such as UNAVAILABLE", code)
	}
}

// Timeouts gives the wire form of a policy.
func Timeouts(p *v1alpha1.TimeoutPolicy, r *Report) *waypoint.Timeouts {
	s := &p.Spec
	out := &waypoint.Timeouts{
		Request: r.duration("spec.request", s.Request), BackendRequest: r.duration("spec.backendRequest", s.BackendRequest),
		Idle: r.duration("spec.idle", s.Idle), Connect: r.duration("spec.connect", s.Connect),
	}
	if s.Request == nil && s.BackendRequest == nil && s.Idle == nil && s.Connect == nil {
		r.Add("spec", "needs request, backendRequest, idle or connect; without any it would do nothing")
	}
	if request := out.GetRequest().AsDuration(); request > 0 && out.GetBackendRequest().AsDuration() > request {
		r.Add("spec.backendRequest", "must not be longer than request, which it is a part of")
	}
	return out
}

// Session gives the wire form of a policy. The path of a cookie is left to the
// caller.
func Session(p *v1alpha1.SessionPersistencePolicy, r *Report) *waypoint.SessionPersistence {
	s := &p.Spec
	sum := sha256.Sum256([]byte(Name(p)))
	out := &waypoint.SessionPersistence{
		Name:            "ambit-session-" + hex.EncodeToString(sum[:4]),
		AbsoluteTimeout: r.duration("spec.absoluteTimeout", s.AbsoluteTimeout),
		IdleTimeout:     r.duration("spec.idleTimeout", s.IdleTimeout),
	}
	if s.SessionName != nil {
		out.Name = *s.SessionName
		r.headerName("spec.sessionName", *s.SessionName)
	}
	switch s.Type {
	case "", gatewayv1.CookieBasedSessionPersistence:
		cookie := &waypoint.CookieSession{Path: "/"}
		if s.Cookie != nil && s.Cookie.Lifetime == gatewayv1.PermanentCookieLifetimeType {
			cookie.Permanent = true
			if s.AbsoluteTimeout == nil {
				r.Add("spec.absoluteTimeout", "a Permanent cookie needs it: it is how long the cookie lives")
			}
		}
		out.Type = &waypoint.SessionPersistence_Cookie{Cookie: cookie}
	case gatewayv1.HeaderBasedSessionPersistence:
		out.Type = &waypoint.SessionPersistence_Header{Header: &waypoint.HeaderSession{}}
		if s.Cookie != nil {
			r.Add("spec.cookie", "may be set only when type is Cookie")
		}
	default:
		r.Add("spec.type", "%q is not a type; use Cookie or Header", s.Type)
	}
	return out
}
