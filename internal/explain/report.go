package explain

import (
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// Header is a header of the request.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Query is a request that nobody sends.
type Query struct {
	Service   string `json:"service"`
	Namespace string `json:"namespace"`
	Port      uint16 `json:"port,omitempty"` // 0 is the only one, or 80
	// Protocol of the port, TCP or UDP. Without it TCP is meant where the service has
	// such a port.
	Protocol string `json:"protocol,omitempty"`
	// PodNamespace and Pod are who sends it. Without them, Identity is who does;
	// without that nobody is, and policies are not asked.
	PodNamespace string   `json:"podNamespace,omitempty"`
	Pod          string   `json:"pod,omitempty"`
	Identity     string   `json:"identity,omitempty"`
	Method       string   `json:"method,omitempty"` // GET
	Path         string   `json:"path,omitempty"`   // /
	Host         string   `json:"host,omitempty"`   // the service's name
	Headers      []Header `json:"headers,omitempty"`
	// BoundBy says what binds the service to its waypoint, if that is known.
	BoundBy string `json:"boundBy,omitempty"`
}

// Outcomes of a request.
const (
	Forwarded = "forwarded"
	Answered  = "answered"
	Refused   = "refused"
	// Depends: it is refused by some of the endpoints that it may reach.
	Depends = "depends"
)

// Report is what would become of a request.
type Report struct {
	Subject string `json:"subject"`
	// Datagrams says that it is about a session of datagrams and no request.
	Datagrams bool   `json:"datagrams,omitempty"`
	Outcome   string `json:"outcome"`
	// Reason names what refuses it, if something does.
	Reason string `json:"reason,omitempty"`
	Client Client `json:"client"`
	// Waypoint is absent where the request takes none, Because says why.
	Waypoint *Waypoint `json:"waypoint,omitempty"`
	Because  string    `json:"because"`
	Backends []Backend `json:"backends,omitempty"`
}

// Client is who sends the request.
type Client struct {
	Workload string `json:"workload,omitempty"`
	Identity string `json:"identity,omitempty"`
	Node     string `json:"node,omitempty"`
	// Captured is absent where no workload is named.
	Captured *bool `json:"captured,omitempty"`
}

// Waypoint is what the request goes through.
type Waypoint struct {
	Name     string `json:"name"`
	Ready    int    `json:"ready"`
	Identity string `json:"identity,omitempty"`
	// Refusal is why it cannot be used.
	Refusal string             `json:"refusal,omitempty"`
	Policy  *Verdict           `json:"policy,omitempty"`
	Notes   []string           `json:"notes,omitempty"`
	Routes  *route.Explanation `json:"routes,omitempty"`
}

// Backend is a service that the request may be sent to.
type Backend struct {
	Service string `json:"service"`
	Port    uint16 `json:"port"`
	// Percent of the requests, or sessions.
	Percent float64 `json:"percent"`
	Refusal string  `json:"refusal,omitempty"`
	// TLS is what the waypoint originates of it, and by which policy; "" for none.
	TLS       string     `json:"tls,omitempty"`
	Endpoints []Endpoint `json:"endpoints,omitempty"`
}

// Endpoint is a workload of a backend.
type Endpoint struct {
	Workload string `json:"workload"`
	Address  string `json:"address"`
	Node     string `json:"node,omitempty"`
	Captured bool   `json:"captured"`
	// Outside says that it is a host outside of the mesh, and TLS that the waypoint
	// speaks that to it.
	Outside  bool   `json:"outside,omitempty"`
	TLS      bool   `json:"tls,omitempty"`
	Identity string `json:"identity,omitempty"`
	// Refusal is why it cannot be reached.
	Refusal string `json:"refusal,omitempty"`
	// Policy is what its node decides; absent where no policy is asked.
	Policy *Verdict `json:"policy,omitempty"`
}

// Verdict is what policies say.
type Verdict struct {
	Allowed bool `json:"allowed"`
	// Policy and Rule decided; empty when none did.
	Policy string `json:"policy,omitempty"`
	Rule   string `json:"rule,omitempty"`
	Reason string `json:"reason,omitempty"`
}
