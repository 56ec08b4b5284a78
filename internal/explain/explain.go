package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	waypointpb "github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/authz"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// explanation is the work on one query.
type explanation struct {
	*State
	q   *Query
	svc *wds.Service
	servicePort
	req *message.Request
	// Who sends it: source is zero for plaintext, known false for nobody in
	// particular.
	source identity.ID
	from   netip.Addr
	known  bool
	plain  bool
	report Report
}

// Explain says what would become of a request.
func (s *State) Explain(q Query) (Report, error) {
	x := &explanation{State: s, q: &q}
	var err error
	if x.svc, x.servicePort, err = s.service(&q); err != nil {
		return Report{}, err
	}
	if err := x.request(); err != nil {
		return Report{}, err
	}
	if err := x.client(); err != nil {
		return Report{}, err
	}
	x.subject(x.req.Method + " " + x.req.Path)
	if x.udp {
		x.report.Datagrams = true
		x.subject("a session of datagrams")
	}
	x.report.Outcome = Forwarded
	switch {
	case x.udp && !hasUDP(x.svc, x.port):
		x.refuse(fmt.Sprintf("the service has no UDP port %d", x.port))
	case !x.udp && !x.svc.HasPort(x.port):
		x.refuse(fmt.Sprintf("the service has no port %d", x.port))
	case x.waypoint():
		x.routed()
	case x.report.Outcome != Refused:
		x.direct()
	}
	return x.report, nil
}

func (x *explanation) subject(what string) {
	network := ""
	if x.udp {
		network = "UDP "
	}
	x.report.Subject = fmt.Sprintf("%s to Service %s/%s %sport %d", what, x.svc.Namespace, x.svc.Name, network, x.port)
}

func (x *explanation) request() error {
	x.req = &message.Request{
		Method: cmp.Or(x.q.Method, "GET"), Scheme: "http", Authority: cmp.Or(x.q.Host, x.svc.Hostname), Version: message.HTTP11,
	}
	var err error
	if x.req.Path, err = route.NormalizePath(cmp.Or(x.q.Path, "/")); err != nil {
		return fmt.Errorf("path: %w", err)
	}
	for _, h := range x.q.Headers {
		if strings.EqualFold(h.Name, "host") {
			x.req.Authority = h.Value
			continue
		}
		x.req.Fields.Add(strings.ToLower(h.Name), h.Value)
	}
	return nil
}

// client finds out who sends the request. Who is not captured is nobody to others.
func (x *explanation) client() error {
	c := &x.report.Client
	switch {
	case x.q.Pod != "":
		w := x.store.WorkloadByName(x.q.PodNamespace, x.q.Pod)
		if w == nil {
			return fmt.Errorf("the control plane does not know of pod %s/%s yet: wait until it runs", x.q.PodNamespace, x.q.Pod)
		}
		*c = Client{Workload: w.Namespace + "/" + w.Name, Node: w.Node, Captured: &w.HBONE, Identity: w.Identity().String()}
		x.known, x.plain = true, !w.HBONE
		if w.HBONE {
			x.source = w.Identity()
		}
		if len(w.Addresses) > 0 {
			x.from = w.Addresses[0]
		}
	case x.q.Identity != "":
		id, err := identity.Parse(x.q.Identity)
		if err != nil {
			return fmt.Errorf("identity: %w", err)
		}
		x.source, x.known, c.Identity = id, true, id.String()
		x.from = x.addressOf(id)
	}
	return nil
}

// addressOf gives the address of a workload with an identity. Without any it is
// one that no policy names.
func (x *explanation) addressOf(id identity.ID) netip.Addr {
	workloads, _, _ := x.store.Snapshot()
	for _, w := range workloads {
		if w.HBONE && w.Identity() == id && len(w.Addresses) > 0 {
			return w.Addresses[0]
		}
	}
	return netip.IPv4Unspecified()
}

func (x *explanation) refuse(reason string) {
	x.report.Outcome, x.report.Reason = Refused, reason
}

// waypoint says whether the request takes one.
func (x *explanation) waypoint() bool {
	r, g := &x.report, x.svc.Waypoint
	switch {
	case g == nil:
		r.Because = "Service " + x.svc.Namespace + "/" + x.svc.Name + " is not bound to a waypoint"
		return false
	case x.plain:
		r.Because = "the client is not captured, so that nobody takes it to waypoint " + x.gateway(g)
		return false
	}
	r.Because = cmp.Or(x.q.BoundBy, "the Service is bound to it")
	w := &Waypoint{Name: x.gateway(g), Refusal: g.Refusal}
	if w.Refusal == "" {
		_, list, err := x.store.Endpoints(nil, g.Service, g.Port)
		w.Ready = len(list)
		switch {
		case err != nil:
			w.Refusal = "none of its pods is ready"
		case x.udp && !list[0].Workload.UDP:
			w.Refusal = wds.ErrNoUDP.Error()
		default:
			w.Identity = list[0].Workload.Identity().String()
		}
	}
	if w.Refusal != "" && g.FailOpen {
		r.Because = "waypoint " + w.Name + " cannot be used (" + w.Refusal + "), and its absence is let pass by annotation"
		return false
	}
	r.Waypoint = w
	if w.Refusal != "" {
		x.refuse("waypoint " + w.Name + " is not available: " + w.Refusal)
	}
	return w.Refusal == ""
}

// gateway names a waypoint as its Gateway is called, which is how its host name
// begins.
func (x *explanation) gateway(g *wds.Gateway) string {
	name, _, _ := strings.Cut(g.String(), ".")
	return name
}

// routed follows the request through the waypoint.
func (x *explanation) routed() {
	w := x.report.Waypoint
	key := x.svc.Key
	f := x.frontends[key]
	if f == nil {
		x.refuse("waypoint " + w.Name + " does not serve the Service")
		return
	}
	compiled, _ := route.Compile(f)
	client := route.Client{Identity: x.source, Address: x.from}
	var routes route.Explanation
	asked := !x.udp && requests(compiled, x.port)
	switch {
	case x.udp:
		routes = compiled.ExplainUDP(client, x.port)
	case asked:
		routes = compiled.Explain(client, x.port, x.req)
	default:
		x.subject("a connection")
		routes = compiled.ExplainConnection(client, x.port, "")
	}
	w.Routes = &routes
	if asked {
		x.notes(f)
	}
	x.atWaypoint(f, asked)
	switch {
	case x.report.Outcome == Refused:
		return
	case routes.Outcome != route.Matched.String():
		x.refuse(cmp.Or(routes.Reason, "no rule matches"))
		return
	case routes.Answered:
		x.report.Outcome = Answered
		return
	}
	via, _ := identity.Parse(w.Identity)
	for _, share := range routes.Backends {
		if share.Weight == 0 {
			continue
		}
		b := Backend{Service: share.Service, Port: share.Port, Percent: share.Percent}
		switch {
		case share.Invalid == "":
			x.endpoints(&b, via)
			x.originate(&b, compiled)
		case asked:
			b.Refusal = "answered with 500: " + share.Invalid
		default:
			b.Refusal = share.Invalid
		}
		x.report.Backends = append(x.report.Backends, b)
	}
	if len(x.report.Backends) == 0 {
		x.refuse(cmp.Or(routes.NoBackend, "the rule has no backend"))
	}
	x.settle()
}

// requests says whether the waypoint sees requests on a port.
func requests(f *route.Frontend, number uint16) bool {
	p, ok := f.Port(number)
	if !ok {
		return true
	}
	switch p.Kind {
	case waypointpb.RouteKind_ROUTE_KIND_TLS, waypointpb.RouteKind_ROUTE_KIND_TCP:
		return false
	case waypointpb.RouteKind_ROUTE_KIND_UNSPECIFIED:
		return p.Protocol != waypointpb.Protocol_PROTOCOL_TLS && p.Protocol != waypointpb.Protocol_PROTOCOL_TCP
	}
	return true
}

// ofTLS says whether the waypoint looks for the TLS of clients on a port.
func ofTLS(f *route.Frontend, number uint16) bool {
	p, ok := f.Port(number)
	return ok && (p.Kind == waypointpb.RouteKind_ROUTE_KIND_TLS ||
		p.Kind == waypointpb.RouteKind_ROUTE_KIND_UNSPECIFIED && p.Protocol == waypointpb.Protocol_PROTOCOL_TLS)
}

// notes tells of what is decided by what nobody has sent.
func (x *explanation) notes(f *waypointpb.Frontend) {
	for _, p := range f.GetJwtProviders() {
		text := "tokens of " + p.GetIssuer() + " are verified (JWTAuthentication " + p.GetPolicy() + ")"
		if p.GetRequired() {
			text += "; a request without one is refused"
		}
		x.report.Waypoint.Notes = append(x.report.Waypoint.Notes, text+"; they are not looked at here")
	}
}

// atWaypoint asks the policies that the waypoint enforces.
func (x *explanation) atWaypoint(f *waypointpb.Frontend, asked bool) {
	if !x.known || len(f.GetAuthorizationPolicies()) == 0 {
		return
	}
	facts := authz.Connection{
		Source: x.source, Peer: x.source, SourceIP: x.from,
		DestIP: netip.IPv4Unspecified(), DestPort: x.store.TargetPort(x.svc.Key, x.port),
	}
	if x.udp {
		facts.DestPort = x.store.TargetPortUDP(x.svc.Key, x.port)
	}
	if len(x.svc.VIPs) > 0 {
		facts.DestIP = x.svc.VIPs[0]
	}
	e := x.store.EvaluatorOf(f.GetNamespace(), f.GetAuthorizationPolicies())
	d := e.Decide(facts)
	if asked {
		r := authz.Request{Method: x.req.Method, Path: x.req.Path, Host: x.req.Authority, Header: x.header}
		if strings.HasPrefix(x.req.Fields.Get("content-type"), "application/grpc") {
			r.GRPCService, r.GRPCMethod, _ = strings.Cut(strings.TrimPrefix(r.Path, "/"), "/")
		}
		d = e.DecideRequest(facts, &r)
	}
	v := verdict(&d)
	x.report.Waypoint.Policy = v
	if !v.Allowed {
		x.refuse(v.Reason)
	}
}

// header gives the lines of a header, as the waypoint does.
func (x *explanation) header(name string) []string {
	if name == "host" {
		return []string{x.req.Authority}
	}
	var out []string
	for _, f := range x.req.Fields {
		if f.Name == name {
			out = append(out, f.Value)
		}
	}
	return out
}

func verdict(d *authz.Decision) *Verdict {
	v := &Verdict{Allowed: d.Allowed, Rule: d.RuleName, Reason: d.Reason}
	if d.Policy != (authz.Key{}) {
		v.Policy = d.Policy.String()
	}
	if v.Rule == "" && d.Rule != authz.NoRule {
		v.Rule = strconv.Itoa(d.Rule)
	}
	return v
}
