package route

import (
	"time"

	"github.com/ambit-mesh/ambit/apis/waypoint"
)

// RouteRef names a route object.
type RouteRef struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// String gives kind and name, as people refer to the object.
func (r RouteRef) String() string {
	if r == (RouteRef{}) {
		return "fallback"
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// Rule is a compiled rule. It is immutable, what it points to included.
type Rule struct {
	// Route that the rule is from; zero for the fallback of a port.
	Route RouteRef
	// Index of the rule in the route as it was written.
	Index uint32
	Name  string
	// Invalid is why the rule cannot be carried out; "" if it can.
	Invalid string
	// Filters in the order in which they apply.
	Filters  []Filter
	Backends []Backend
	Timeouts Timeouts
	// Retry is nil when no request is sent twice.
	Retry *Retry
	// Session is nil when requests of a client are independent.
	Session    *Session
	Faults     []*Fault
	RateLimits []*RateLimit
	// Tracing is that of the rule, or else of the frontend; nil is the waypoint's
	// own.
	Tracing *Tracing

	// label is how reasons name the rule.
	label string
	id    string
	// answers says that a filter answers, so that there need be no backend.
	answers bool
	// sums are the running sums of the weights of Backends.
	sums []uint64
}

// ID is <kind>/<namespace>/<name>/<index or name>, for logs and metrics; for the
// fallback of a port it is "fallback".
func (r *Rule) ID() string { return r.id }

// String names the rule for people.
func (r *Rule) String() string { return r.label }

// Answers says that one of the filters answers every request, so that none
// reaches a backend.
func (r *Rule) Answers() bool { return r.answers }

// Backend is a destination of a rule, or of a filter.
type Backend struct {
	// Service is <namespace>/<hostname>.
	Service string
	Port    uint16
	// Protocol is PROTOCOL_UNSPECIFIED for what the client spoke.
	Protocol waypoint.Protocol
	Weight   uint32
	// Invalid is why the backend cannot be used; requests that are meant for it
	// are answered with 500.
	Invalid string
	// Filters apply behind those of the rule.
	Filters []Filter
	// ID tells the backends of a rule apart and outlives changes of the rule.
	ID uint64
}

// Filter is one of its fields.
type Filter struct {
	RequestHeaders        *HeaderModifier
	ResponseHeaders       *HeaderModifier
	Redirect              *Redirect
	Rewrite               *Rewrite
	Mirror                *Mirror
	CORS                  *CORS
	ExternalAuthorization *ExternalAuthorization
}

// Timeout is a duration that may be left to the waypoint. Set and 0 is none.
type Timeout struct {
	Set      bool
	Duration time.Duration
}

// Or gives the timeout, or else the default; 0 is none.
func (t Timeout) Or(byDefault time.Duration) time.Duration {
	if t.Set {
		return t.Duration
	}
	return byDefault
}

// Timeouts of a rule.
type Timeouts struct {
	// Request bounds the whole exchange, retries included.
	Request Timeout
	// BackendRequest bounds each try.
	BackendRequest Timeout
	// Idle: neither end has sent anything.
	Idle    Timeout
	Connect Timeout
}

// Retry says when a request is sent again.
type Retry struct {
	ConnectFailure, RefusedStream, Reset, Timeout bool
	// Attempts beside the first.
	Attempts int
	// Backoff before the first retry, growing to MaxBackoff; 0 is the waypoint's
	// default.
	Backoff, MaxBackoff time.Duration
	PerTry              Timeout
	// MaxBodyBytes are kept to be sent again; a longer body is sent once.
	MaxBodyBytes int64
	// UnsafeMethods are retried too when they may have been processed.
	UnsafeMethods bool

	statuses map[int]bool
	codes    uint32
}

// OnStatus says whether an answer with this status is retried.
func (r *Retry) OnStatus(status int) bool { return r != nil && r.statuses[status] }

// OnCode says whether an answer with this gRPC code is retried.
func (r *Retry) OnCode(c Code) bool { return r != nil && c < 32 && r.codes&(1<<c) != 0 }

// ExternalAuthorization asks a service whether a request may pass.
type ExternalAuthorization struct {
	// Policy is <namespace>/<name> of the policy; "" for a filter of a route.
	Policy  string
	Backend Backend
	// GRPC: envoy.service.auth.v3.Authorization/Check; otherwise HTTP.
	GRPC bool
	// Path is put before the path that is asked for; HTTP only.
	Path string
	// AllowedHeaders are the request headers that are sent, in lower case; none:
	// all, with HTTP none beside those that the protocol needs.
	AllowedHeaders []string
	// AllowedResponseHeaders of the answer go on with the request; HTTP only.
	AllowedResponseHeaders []string
	// MaxBodyBytes of the body are sent along; a longer body is refused. 0: the
	// body is not sent.
	MaxBodyBytes int64
	Timeout      Timeout
	// FailOpen lets requests pass while the service cannot be asked.
	FailOpen bool
}

// Tracing says which requests without a decision of their own are sampled.
type Tracing struct {
	Disabled bool
	// Sampling in millionths.
	Sampling uint32
}
