package flow

import (
	"net/netip"
	"time"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// Record is one connection or request. What is not known is left zero.
type Record struct {
	// Opened says that the connection has only just been established.
	Opened   bool
	Start    time.Time
	Duration time.Duration
	Reporter flowpb.Reporter
	Protocol flowpb.Protocol
	Verdict  flowpb.Verdict
	// Encrypted says that the connection, or that of the request, is a tunnel's.
	Encrypted bool
	// TunnelIn and TunnelOut are the contexts that the CONNECT requests by which
	// it came in and went on carried; the trace is the application's.
	TunnelIn, TunnelOut trace.Context
	Trace               trace.TraceID
	Source, Destination End
	// Service was addressed, at ServicePort.
	Service     *wds.Service
	ServicePort uint16
	// Waypoint that it goes through, as <namespace>/<name>.
	Waypoint string
	// Policy decided, if one did; Audits only watched.
	Policy Policy
	Audits []Policy
	// Reason and Flags say why it was not forwarded, for people and in short.
	Reason, Flags string
	// Sent from the source to the destination, and Received by the source.
	Sent, Received int64
	// HTTP is what there is of a request; unused where Method is empty.
	HTTP HTTP
}

// End is one end of a flow.
type End struct {
	Workload *wds.Workload
	Identity identity.ID
	Address  netip.AddrPort
}

// Policy names a policy and the rule that matched.
type Policy struct {
	// Kind is "" for AuthorizationPolicy.
	Kind, Namespace, Name, Rule string
}

// HTTP is a request. Strings are kept as long as the record is: they must not be
// parts of buffers that are used again.
type HTTP struct {
	Version flowpb.HTTP_Version
	Method  string
	// Path without its query, unless somebody wants that.
	Path, Host, UserAgent string
	// Status that the client got; 0 when it got none.
	Status     int
	GRPC       bool
	GRPCStatus int
	// RequestBytes and ResponseBytes are those of the bodies.
	RequestBytes, ResponseBytes int64
	// Route as "kind namespace/name"; Backend as <namespace>/<hostname>.
	Route, Rule, Backend string
	// Attempts is how often the request was sent to a backend.
	Attempts int
	Mirrors  []string
	// Fault was injected by, or the request turned away by RateLimit.
	Fault, RateLimit Policy
	// Upgrade is the protocol that was upgraded to.
	Upgrade string
}

const (
	// maxPath and maxText bound what a client can make us keep.
	maxPath = 1024
	maxText = 256
)

// clip bounds the texts that a client chooses. What is cut is copied, so that the
// whole is not kept.
func (h *HTTP) clip() {
	h.Method, h.Host, h.UserAgent = clip(h.Method, maxText), clip(h.Host, maxText), clip(h.UserAgent, maxText)
	h.Path = clip(h.Path, maxPath)
}
