package extauthz

import (
	"net/netip"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/message"
)

// Service is one that is asked, and how.
type Service struct {
	// Name of who has configured it, such as HTTPRoute/shop/cart/0, for reasons.
	Name    string
	Backend *waypoint.BackendRef
	// GRPC: Authorization/Check; otherwise HTTP.
	GRPC bool
	// Path is put before the path that is asked for; HTTP only.
	Path string
	// AllowedHeaders of the request are sent, in lower case. None: with gRPC all,
	// with HTTP only Authorization, which always is.
	AllowedHeaders []string
	// AllowedResponseHeaders go on with the request, in lower case; none: all. HTTP
	// only.
	AllowedResponseHeaders []string
	// MaxBodyBytes of a body that is sent along; 0: bodies are not.
	MaxBodyBytes int64
	// Timeout of asking; 0: DefaultTimeout.
	Timeout time.Duration
	// FailOpen lets requests pass while the service cannot be asked.
	FailOpen bool
}

// DefaultTimeout is how long a service has to answer.
const DefaultTimeout = time.Second

// FromProto reads a service as the control plane has it.
func FromProto(name string, pb *waypoint.ExternalAuthorization) *Service {
	s := &Service{
		Name: name, Backend: pb.GetBackend(), MaxBodyBytes: int64(pb.GetMaxBodyBytes()),
		Timeout: pb.GetTimeout().AsDuration(), FailOpen: pb.GetFailOpen(),
	}
	switch p := pb.GetProtocol().(type) {
	case *waypoint.ExternalAuthorization_Grpc:
		s.GRPC, s.AllowedHeaders = true, lower(p.Grpc.GetAllowedHeaders())
	case *waypoint.ExternalAuthorization_Http:
		s.Path, s.AllowedHeaders = p.Http.GetPath(), lower(p.Http.GetAllowedHeaders())
		s.AllowedResponseHeaders = lower(p.Http.GetAllowedResponseHeaders())
	default:
		s.Backend = &waypoint.BackendRef{
			Service: pb.GetBackend().GetService(),
			Invalid: "external_authorization.protocol is not known; use grpc or http",
		}
	}
	return s
}

func lower(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strings.ToLower(n)
	}
	return out
}

// Peer is an end of the request.
type Peer struct {
	// ID is zero for plaintext.
	ID      identity.ID
	Address netip.AddrPort
	// Service is <namespace>/<hostname>; "" if there is none.
	Service string
}

// Input is what the service is asked about.
type Input struct {
	Request             *message.Request
	Source, Destination Peer
	// Context is told to the service as context_extensions; gRPC only.
	Context map[string]string
	// Time at which the request came.
	Time time.Time
}

// Decision is what has become of the question.
type Decision uint8

// Decisions.
const (
	// Failed: the service cannot be asked; the request is refused.
	Failed Decision = iota
	// FailedOpen: the service cannot be asked; the request passes.
	FailedOpen
	Allowed
	Denied
	// TooLarge: the body is longer than what may be sent along.
	TooLarge
	// Broken: the request's body did not come whole.
	Broken
)

// String gives the decision as metrics have it.
func (d Decision) String() string {
	switch d {
	case FailedOpen:
		return "failed_open"
	case Allowed:
		return "allowed"
	case Denied:
		return "denied"
	case TooLarge:
		return "too_large"
	case Broken:
		return "broken"
	}
	return "failed"
}

// Outcome is an answer.
type Outcome struct {
	Allowed  bool
	Decision Decision
	// Status, Fields and Body of the answer to the client, if not Allowed.
	Status int
	Fields message.Fields
	Body   []byte
	// Reason is for people and names who has configured the service, and the
	// service; "" if nothing is to be said.
	Reason string

	request     []edit
	query       queryEdit
	respond     []edit
	authorities []string
}

// ApplyRequest makes the changes that the service wants in a request that passes.
func (o *Outcome) ApplyRequest(req *message.Request) {
	for _, name := range o.authorities {
		req.Fields.Del(name)
	}
	apply(o.request, &req.Fields)
	req.Path = o.query.apply(req.Path)
}

// ApplyResponse makes the changes that the service wants in the final response.
func (o *Outcome) ApplyResponse(f *message.Fields) { apply(o.respond, f) }
