package route

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/apis/waypoint"
)

// Frontend is a compiled frontend. It is immutable and safe for concurrent use.
type Frontend struct {
	Namespace, Name, Hostname string
	// Tracing is for what has no rule; nil is the waypoint's own.
	Tracing *Tracing
	// Telemetry is for all requests; nil is as the waypoint does by itself.
	Telemetry *Telemetry

	ports map[uint16]*port
	// udp is the frontend as datagrams see it, with its ports of UDP alone; nil there.
	udp *Frontend
	// noPort is the reason for a port that is not among them.
	noPort string
}

// Port is what is known of a port beside its routes.
type Port struct {
	Number   uint16
	Name     string
	Protocol waypoint.Protocol
	// Kind of the routes; ROUTE_KIND_UNSPECIFIED when there are none.
	Kind waypoint.RouteKind
}

type port struct {
	Port
	producer  *table
	consumers map[string]*table
	fallback  *Rule
	// refusal is why nothing is let through; "" if that is not so.
	refusal string
	// notHTTP and notConnection are the reasons when routes are of the other sort.
	notHTTP, notConnection string
}

// Port gives a port by its number.
func (f *Frontend) Port(number uint16) (Port, bool) {
	p := f.ports[number]
	if p == nil {
		return Port{}, false
	}
	return p.Port, true
}

// UDPPort gives a UDP port by its number.
func (f *Frontend) UDPPort(number uint16) (Port, bool) { return f.udp.Port(number) }

// PortNumbers gives the ports, in order.
func (f *Frontend) PortNumbers() []uint16 { return slices.Sorted(maps.Keys(f.ports)) }

// String names the frontend for people.
func (f *Frontend) String() string { return "service " + f.Namespace + "/" + f.Name }

// table gives the routes for clients of a namespace; nil when there are none.
func (p *port) table(namespace string) *table {
	if namespace != "" && len(p.consumers) > 0 {
		if t := p.consumers[namespace]; t != nil {
			return t
		}
	}
	return p.producer
}

// Compile reads a frontend. What cannot be carried out is reported, and refused
// when it is asked for: the frontend that is given is to be used all the same.
func Compile(pb *waypoint.Frontend) (*Frontend, []Problem) {
	f := &Frontend{Namespace: pb.GetNamespace(), Name: pb.GetName(), Hostname: pb.GetHostname(), ports: map[uint16]*port{}}
	c := &frontendCompiler{frontend: f, called: "port", own: &compiler{where: Problem{Object: f.String(), Rule: -1}}}
	f.Tracing = c.own.tracing("tracing", pb.GetTracing())
	if f.Tracing != nil {
		f.Tracing.Sampling = min(f.Tracing.Sampling, million)
	}
	f.Telemetry = c.own.telemetry("telemetry", pb.GetTelemetry())
	udp := *f
	udp.ports, f.udp = map[uint16]*port{}, &udp
	c.all("ports", pb.GetPorts())
	c.frontend, c.called, c.udp = &udp, "UDP port", true
	c.all("udp_ports", pb.GetUdpPorts())
	return f, append(c.own.problems, c.problems...)
}

// all compiles the ports of one sort.
func (c *frontendCompiler) all(at string, list []*waypoint.Port) {
	for i, p := range list {
		c.port(fmt.Sprintf("%s[%d]", at, i), p)
	}
	c.frontend.noPort = fmt.Sprintf("%s has no such %s; it has %v", c.frontend, c.called, c.frontend.PortNumbers())
}

// frontendCompiler compiles a frontend: own are the problems of its ports,
// problems those of rules.
type frontendCompiler struct {
	frontend *Frontend
	udp      bool
	called   string // what its ports are
	own      *compiler
	problems []Problem
}

func (c *frontendCompiler) port(at string, pb *waypoint.Port) {
	number := pb.GetNumber()
	if number == 0 || number > 65535 {
		c.own.problem(at+".number", fmt.Sprintf("%d is not a port, and is not served; use 1 to 65535", number))
		return
	}
	p := &port{
		Port:      Port{Number: uint16(number), Name: pb.GetName(), Protocol: pb.GetProtocol(), Kind: pb.GetKind()},
		consumers: map[string]*table{},
	}
	before := len(c.own.problems)
	c.checkPort(at, p, pb)
	if pb.GetProducer() != nil {
		p.producer = c.table(p, FromProducer, pb.GetProducer())
	}
	for i, consumer := range pb.GetConsumers() {
		namespace := consumer.GetNamespace()
		if namespace == "" || p.consumers[namespace] != nil {
			c.own.problem(fmt.Sprintf("%s.consumers[%d].namespace", at, i), fmt.Sprintf("%q is empty or there already, so that the port is refused; there must be one table for each namespace", namespace))
		}
		p.consumers[namespace] = c.table(p, FromConsumer, consumer.GetTable())
	}
	p.fallback = c.fallback(p, pb.GetFallback())
	p.refusal = reasonOf(c.own.problems[before:])
	c.frontend.ports[p.Number] = p
}

// checkPort reports what makes the port as a whole unusable.
func (c *frontendCompiler) checkPort(at string, p *port, pb *waypoint.Port) {
	if c.frontend.ports[p.Number] != nil {
		c.own.problem(at+".number", fmt.Sprintf("%d is there twice, so that it is refused; there must be one of each", p.Number))
	}
	if _, known := waypoint.Protocol_name[int32(p.Protocol)]; !known {
		c.own.problem(at+".protocol", fmt.Sprintf("%d is not known, so that the port is refused; update the waypoint", p.Protocol))
	}
	kind := kindName(p.Kind)
	routed := pb.GetProducer() != nil || len(pb.GetConsumers()) > 0
	if kind == "" && (routed || p.Kind != waypoint.RouteKind_ROUTE_KIND_UNSPECIFIED) {
		c.own.problem(at+".kind", fmt.Sprintf("%d is no kind of routes that is known, so that the port is refused; update the waypoint", p.Kind))
	}
	if kind != "" && c.udp != (p.Kind == waypoint.RouteKind_ROUTE_KIND_UDP) {
		c.own.problem(at+".kind", fmt.Sprintf("%ss do not apply to a %s, so that it is refused; detach them", kind, c.called))
	}
	where := fmt.Sprintf("%s %d of %s is routed by %ss", c.called, p.Number, c.frontend, kind)
	p.notHTTP = where + ", which do not apply to requests"
	p.notConnection = where + ", and what the client speaks is not HTTP"
}

// table compiles merged routes. A rule without an entry of its own, as in a
// TLSRoute, is found by its route.
func (c *frontendCompiler) table(p *port, source Source, pb *waypoint.RouteTable) *table {
	routes := slices.Clone(pb.GetRoutes())
	var entries []*entry
	var heads []head
	for i, route := range routes {
		a := age{route.GetCreated(), route.GetNamespace() + "/" + route.GetName()}
		rules, list := c.route(p, i, a, route)
		entries = append(entries, list...)
		if connections(p.Kind) {
			heads = append(heads, c.head(p, i, a, route, rules))
		}
	}
	t := newTable(source, entries)
	t.servers = newServers(heads)
	t.unmatched = fmt.Sprintf("no rule matches at %s %d of %s: %s", c.called, p.Number, c.frontend, considered(source, routes))
	return t
}

// maxNamed bounds how many routes a reason names.
const maxNamed = 4

func considered(source Source, routes []*waypoint.Route) string {
	if len(routes) == 0 {
		return "the " + source.String() + " routes are none"
	}
	var names []string
	for _, r := range routes[:min(len(routes), maxNamed)] {
		names = append(names, r.GetKind()+" "+r.GetNamespace()+"/"+r.GetName())
	}
	text := fmt.Sprintf("considered the %s routes %s", source, strings.Join(names, ", "))
	if more := len(routes) - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// connections says that routes of a kind are for connections, or sessions of
// datagrams, and not for requests.
func connections(k waypoint.RouteKind) bool {
	return k == waypoint.RouteKind_ROUTE_KIND_TLS || k == waypoint.RouteKind_ROUTE_KIND_TCP || k == waypoint.RouteKind_ROUTE_KIND_UDP
}

// route compiles the rules of a route.
func (c *frontendCompiler) route(p *port, number int, a age, pb *waypoint.Route) ([]*Rule, []*entry) {
	ref := RouteRef{Kind: pb.GetKind(), Namespace: pb.GetNamespace(), Name: pb.GetName()}
	var rules []*Rule
	var entries []*entry
	for position, rule := range pb.GetRules() {
		rc := &compiler{where: Problem{Object: ref.String(), Rule: int(rule.GetIndex()), RuleName: rule.GetName()}}
		if ref.Kind != kindName(p.Kind) {
			rc.problem("", fmt.Sprintf("a %s does not apply to a port that is routed by %ss; detach one of them", ref.Kind, kindName(p.Kind)))
		}
		matches := rc.matches("matches", rule.GetMatches())
		if connections(p.Kind) && len(matches) > 0 {
			rc.problem("matches", "a "+ref.Kind+" cannot have matches; remove them")
		}
		if connections(p.Kind) && len(rule.GetFilters()) > 0 {
			rc.problem("filters", "a "+ref.Kind+" cannot have filters; remove them")
		}
		r := rc.rule(rule, ref, labelOf(ref, rule), matches)
		c.finish(r, rc)
		rules = append(rules, r)
		e := entry{rule: r, age: a, route: number, position: position}
		entries = append(entries, entriesOf(e, matches)...)
	}
	return rules, entries
}

func (c *frontendCompiler) finish(r *Rule, rc *compiler) {
	c.problems = append(append(c.problems, rc.problems...), rc.minor...)
	if r.Tracing == nil {
		r.Tracing = c.frontend.Tracing
	}
}

func entriesOf(of entry, matches []*match) []*entry {
	if len(matches) == 0 {
		every := &match{path: pathCondition{written: "/"}, plain: true}
		of.match, of.number, of.rank, of.plain = every, -1, rankOf(every), true
		return []*entry{&of}
	}
	out := make([]*entry, len(matches))
	for i, m := range matches {
		e := of
		e.match, e.number, e.rank, e.plain = m, i, rankOf(m), m.plain
		out[i] = &e
	}
	return out
}

func labelOf(ref RouteRef, pb *waypoint.Rule) string {
	label := fmt.Sprintf("%s rule %d", ref, pb.GetIndex())
	if pb.GetName() != "" {
		label += " (" + pb.GetName() + ")"
	}
	return label
}

// head is a route for connections, which its first rule is for.
type head struct {
	age      age
	number   int
	names    []string
	readable bool
	rule     *Rule
}

func (c *frontendCompiler) head(p *port, number int, a age, pb *waypoint.Route, rules []*Rule) head {
	ref := RouteRef{Kind: pb.GetKind(), Namespace: pb.GetNamespace(), Name: pb.GetName()}
	rc := &compiler{where: Problem{Object: ref.String(), Rule: -1}}
	h := head{age: a, number: number, readable: true}
	if p.Kind == waypoint.RouteKind_ROUTE_KIND_TLS {
		h.names, h.readable = rc.serverNames(pb.GetServerNames())
	}
	if len(rules) == 0 {
		rc.problem("rules", "there is none; add one that names backends")
		rules = []*Rule{{Route: ref, label: ref.String(), id: ref.Kind + "/" + a.name}}
	}
	h.rule = rules[0]
	if reason := rc.reason(); reason != "" && h.rule.Invalid == "" {
		h.rule.Invalid = reason
	}
	c.problems = append(c.problems, rc.problems...)
	return h
}

func newServers(heads []head) *servers {
	slices.SortFunc(heads, func(a, b head) int { return cmp.Or(compareAges(a.age, b.age), cmp.Compare(a.number, b.number)) })
	s := &servers{exact: map[string]*Rule{}, wild: map[string]*Rule{}}
	for _, h := range heads {
		s.insert(h.names, h.readable, h.rule)
	}
	return s
}

// fallback compiles what applies without routes. Where it is missing everything
// is refused.
func (c *frontendCompiler) fallback(p *port, pb *waypoint.Rule) *Rule {
	label := fmt.Sprintf("the fallback of %s %d of %s", c.called, p.Number, c.frontend)
	rc := &compiler{where: Problem{Object: label, Rule: -1}}
	if pb == nil {
		return &Rule{label: label, id: "fallback", Invalid: label + " is missing, and there is no route", Tracing: c.frontend.Tracing}
	}
	matches := rc.matches("matches", pb.GetMatches())
	if len(matches) > 0 {
		rc.problem("matches", "are not for a fallback, which is for everything; remove them")
	}
	r := rc.rule(pb, RouteRef{}, label, matches)
	c.finish(r, rc)
	return r
}
