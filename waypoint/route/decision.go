package route

import (
	"net/netip"

	"github.com/ambit-mesh/ambit/internal/identity"
)

// Client is who sends a request.
type Client struct {
	// Identity of the client's certificate; zero if it has none.
	Identity identity.ID
	Address  netip.Addr
}

// Outcome is what has become of a request.
type Outcome uint8

// Outcomes. The zero value is none of them.
const (
	// Matched: Decision.Rule is to be carried out.
	Matched Outcome = iota + 1
	// NoRoute: there are routes, and none of them matches.
	NoRoute
	// Invalid: what applies cannot be carried out.
	Invalid
	// NoPort: the frontend does not have the port.
	NoPort
)

// String names the outcome as metrics and explanations do.
func (o Outcome) String() string {
	switch o {
	case Matched:
		return "matched"
	case NoRoute:
		return "no_route"
	case Invalid:
		return "invalid"
	case NoPort:
		return "no_port"
	}
	return "unknown"
}

// Status is what an HTTP request is answered with; 0 when it is not answered but
// routed.
func (o Outcome) Status() int {
	switch o {
	case Matched:
		return 0
	case NoRoute, NoPort:
		return 404
	}
	return 500
}

// Code is Status for gRPC.
func (o Outcome) Code() Code {
	switch o {
	case Matched:
		return OK
	case NoRoute, NoPort:
		return Unimplemented
	}
	return Unavailable
}

// Source says where the rule of a decision is from.
type Source uint8

// Sources.
const (
	// FromNowhere: there is no such port.
	FromNowhere Source = iota
	// FromConsumer: routes of the client's namespace.
	FromConsumer
	// FromProducer: routes of the service's namespace.
	FromProducer
	// FromFallback: there are no routes for this client.
	FromFallback
)

// String names the source.
func (s Source) String() string {
	switch s {
	case FromConsumer:
		return "consumer"
	case FromProducer:
		return "producer"
	case FromFallback:
		return "fallback"
	}
	return "none"
}

// Decision is what Match has found.
type Decision struct {
	Outcome Outcome
	Source  Source
	// Rule that was found: with Matched always, with Invalid where it is a rule
	// that cannot be carried out.
	Rule *Rule
	// Prefix is the path prefix that matched, without a slash at its end unless it
	// is "/"; "" when it was no prefix that matched.
	Prefix string
	// Reason names the object and says what is wrong; "" with Matched.
	Reason string
}
