package report

import (
	"slices"
	"time"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/flow"
	"github.com/ambit-mesh/ambit/internal/flow/join"
)

// Line is what there is to say about a call. Its JSON form is for programs.
type Line struct {
	Time     time.Time `json:"time"`
	Duration float64   `json:"durationSeconds"`
	// Kind is connection or request.
	Kind        string   `json:"kind"`
	Verdict     string   `json:"verdict"`
	Source      Endpoint `json:"source"`
	Destination Endpoint `json:"destination"`
	Service     *Service `json:"service,omitempty"`
	Protocol    string   `json:"protocol"`
	// Security is mtls when every hop that is known was encrypted, plaintext when
	// one was not, and none when the call got nowhere.
	Security string   `json:"security"`
	HTTP     *HTTP    `json:"http,omitempty"`
	Policy   *Policy  `json:"policy,omitempty"`
	Audits   []Policy `json:"audits,omitempty"`
	Reason   string   `json:"reason,omitempty"`
	Flags    string   `json:"flags,omitempty"`
	Sent     uint64   `json:"bytesSent"`
	Received uint64   `json:"bytesReceived"`
	TraceID  string   `json:"traceId,omitempty"`
	// Hops are the proxies that carried the call, in the order of its way.
	Hops []Hop `json:"hops"`
}

// Endpoint is one end of a call.
type Endpoint struct {
	Namespace string `json:"namespace,omitempty"`
	Workload  string `json:"workload,omitempty"`
	Owner     string `json:"owner,omitempty"`
	Service   string `json:"canonicalService,omitempty"`
	Version   string `json:"version,omitempty"`
	Identity  string `json:"identity,omitempty"`
	Address   string `json:"address,omitempty"`
	Node      string `json:"node,omitempty"`
	Zone      string `json:"zone,omitempty"`
}

// Service is what was addressed.
type Service struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Hostname  string `json:"hostname"`
	Port      uint32 `json:"port"`
}

// HTTP is what a waypoint knows of a request.
type HTTP struct {
	Method     string   `json:"method"`
	Path       string   `json:"path"`
	Host       string   `json:"host,omitempty"`
	Status     uint32   `json:"status"`
	GRPCStatus *uint32  `json:"grpcStatus,omitempty"`
	Route      string   `json:"route,omitempty"`
	Rule       string   `json:"rule,omitempty"`
	Backend    string   `json:"backend,omitempty"`
	Attempts   uint32   `json:"attempts"`
	Mirrors    []string `json:"mirrors,omitempty"`
	Fault      *Policy  `json:"fault,omitempty"`
	RateLimit  *Policy  `json:"rateLimit,omitempty"`
	Upgrade    string   `json:"upgrade,omitempty"`
	UserAgent  string   `json:"userAgent,omitempty"`
}

// Policy is one that decided or matched; without a name when no policy allowed it.
type Policy struct {
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	Rule      string `json:"rule,omitempty"`
}

// Hop is a proxy.
type Hop struct {
	// Proxy is ztunnel or waypoint.
	Proxy    string `json:"proxy"`
	Reporter string `json:"reporter"`
	// Name of the waypoint.
	Name    string `json:"name,omitempty"`
	Node    string `json:"node"`
	Verdict string `json:"verdict,omitempty"`
	// Told says that the proxy told of the call. Another one did otherwise.
	Told bool `json:"told"`
}

// Of gives the line of a call.
func Of(c join.Call) *Line {
	records := c.Records()
	main := mainOf(c)
	decided := decisive(c, main)
	l := &Line{
		Time: main.GetStart().AsTime(), Duration: main.GetDuration().AsDuration().Seconds(), Kind: "connection",
		Verdict: flow.VerdictName(decided.GetVerdict()), Source: endpoint(main.GetSource()), Destination: endpoint(destination(c, main)),
		Service: service(records), Security: security(records), Protocol: protocol(main),
		Policy: policy(decided.GetPolicy()), Reason: decided.GetReason(), Flags: decided.GetResponseFlags(),
		Sent: main.GetBytesSent(), Received: main.GetBytesReceived(), TraceID: main.GetTraceId(), Hops: hops(c, main),
	}
	for _, r := range records {
		for _, a := range r.GetAudits() {
			l.Audits = append(l.Audits, *policy(a))
		}
	}
	if h := main.GetHttp(); h != nil {
		l.Kind, l.HTTP = "request", http(h)
		l.Sent, l.Received = h.GetRequestBytes(), h.GetResponseBytes()
	}
	return l
}

// mainOf is the record that knows most: the waypoint's, or else that of the side
// where the connection began.
func mainOf(c join.Call) *flowpb.FlowRecord {
	switch {
	case c.Waypoint != nil:
		return c.Waypoint
	case c.Source != nil:
		return c.Source
	}
	return c.Destination
}

// decisive is the record of who decided: the one that names a policy, or else the
// first that did not forward. Records of streams that requests share say nothing
// about one of them.
func decisive(c join.Call, main *flowpb.FlowRecord) *flowpb.FlowRecord {
	if c.Waypoint != nil {
		return main
	}
	records := c.Records()
	if i := slices.IndexFunc(records, func(r *flowpb.FlowRecord) bool { return r.GetPolicy() != nil }); i >= 0 {
		return records[i]
	}
	if i := slices.IndexFunc(records, func(r *flowpb.FlowRecord) bool { return r.GetVerdict() != flowpb.Verdict_VERDICT_FORWARDED }); i >= 0 {
		return records[i]
	}
	return main
}

// destination prefers what the other end says about itself.
func destination(c join.Call, main *flowpb.FlowRecord) *flowpb.Endpoint {
	if c.Waypoint == nil && c.Destination != nil {
		return c.Destination.GetDestination()
	}
	if main.GetDestination().GetWorkload() == "" && c.Destination != nil {
		return c.Destination.GetDestination()
	}
	return main.GetDestination()
}

// The values of Security.
const (
	mtls      = "mtls"
	plaintext = "plaintext"
	none      = "none"
)

func security(records []*flowpb.FlowRecord) string {
	if slices.ContainsFunc(records, flow.Plaintext) {
		return plaintext
	}
	if slices.ContainsFunc(records, func(r *flowpb.FlowRecord) bool { return r.GetSecurity().GetMutualTls() }) {
		return mtls
	}
	return none
}

func service(records []*flowpb.FlowRecord) *Service {
	for _, r := range records {
		if s := r.GetService(); s != nil {
			return &Service{Namespace: s.GetNamespace(), Name: s.GetName(), Hostname: s.GetHostname(), Port: s.GetPort()}
		}
	}
	return nil
}

func endpoint(e *flowpb.Endpoint) Endpoint {
	out := Endpoint{
		Namespace: e.GetNamespace(), Workload: e.GetWorkload(), Owner: e.GetOwner(), Service: e.GetCanonicalService(), Version: e.GetVersion(),
		Identity: e.GetIdentity(), Node: e.GetNode(), Zone: e.GetZone(),
	}
	if a := flow.Address(e); a.IsValid() {
		out.Address = a.String()
		if a.Port() == 0 {
			out.Address = a.Addr().String()
		}
	}
	return out
}

func protocol(r *flowpb.FlowRecord) string {
	h := r.GetHttp()
	switch {
	case h.GetUpgrade() != "":
		return h.GetUpgrade()
	case h.GetGrpc():
		return "grpc"
	case h.GetVersion() == flowpb.HTTP_VERSION_HTTP2:
		return "http2"
	case h != nil:
		return "http1"
	case r.GetProtocol() == flowpb.Protocol_PROTOCOL_UDP:
		return "udp"
	}
	return "tcp"
}

func policy(p *flowpb.PolicyRef) *Policy {
	if p == nil {
		return nil
	}
	return &Policy{Kind: p.GetKind(), Namespace: p.GetNamespace(), Name: p.GetName(), Rule: p.GetRule()}
}

func http(h *flowpb.HTTP) *HTTP {
	out := &HTTP{
		Method: h.GetMethod(), Path: h.GetPath(), Host: h.GetHost(), Status: h.GetStatus(), Route: h.GetRoute(), Rule: h.GetRule(),
		Backend: h.GetBackend(), Attempts: h.GetAttempts(), Mirrors: h.GetMirrors(), Fault: policy(h.GetFault()), RateLimit: policy(h.GetRateLimit()),
		Upgrade: h.GetUpgrade(), UserAgent: h.GetUserAgent(),
	}
	if h.GetGrpc() {
		s := h.GetGrpcStatus()
		out.GRPCStatus = &s
	}
	return out
}

// hops gives the proxies that told of the call, and those that others name.
func hops(c join.Call, main *flowpb.FlowRecord) (all []Hop) {
	add := func(r *flowpb.FlowRecord, named bool, h Hop) {
		switch {
		case r != nil:
			h.Node, h.Verdict, h.Told = r.GetNode(), flow.VerdictName(r.GetVerdict()), true
		case !named || h.Node == "" && h.Name == "":
			return
		}
		all = append(all, h)
	}
	add(c.Source, main.GetTunnelIn() != "", Hop{Proxy: "ztunnel", Reporter: "source", Node: main.GetSource().GetNode()})
	add(c.Waypoint, main.GetWaypoint() != "", Hop{Proxy: "waypoint", Reporter: "waypoint", Name: main.GetWaypoint()})
	// What goes to a waypoint and comes of it is told by the waypoint only; where a
	// connection failed, nobody may have been reached.
	reached := main.GetTunnelOut() != "" && (c.Waypoint != nil || main.GetWaypoint() == "" && main.GetVerdict() != flowpb.Verdict_VERDICT_FAILED)
	add(c.Destination, reached, Hop{Proxy: "ztunnel", Reporter: "destination", Node: main.GetDestination().GetNode()})
	return all
}
