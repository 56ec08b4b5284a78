package route

import (
	"fmt"
	"strings"

	"github.com/ambit-mesh/ambit/internal/message"
)

// Explanation says what Match decides, and why. It is made for people and for
// JSON; String renders it.
type Explanation struct {
	Frontend string `json:"frontend"`
	Port     uint16 `json:"port"`
	Subject  string `json:"subject"`
	Outcome  string `json:"outcome"`
	// Opaque says that it is about a connection or a session, which is passed on as it
	// is and has no answer.
	Opaque bool `json:"opaque,omitempty"`
	// Answered says that a filter of the rule answers, so that no backend is asked.
	Answered bool `json:"answered,omitempty"`
	// Status and Code are the answer to a request that is refused. Connections are
	// closed.
	Status int    `json:"status,omitempty"`
	Code   string `json:"code,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Table says which routes apply, and Because why these.
	Table    string         `json:"table"`
	Because  string         `json:"because"`
	Rule     *ExplainedRule `json:"rule,omitempty"`
	Filters  []string       `json:"filters,omitempty"`
	Backends []Share        `json:"backends,omitempty"`
	// NoBackend says why no backend can be chosen.
	NoBackend  string   `json:"noBackend,omitempty"`
	Session    string   `json:"session,omitempty"`
	Faults     []string `json:"faults,omitempty"`
	RateLimits []string `json:"rateLimits,omitempty"`
	// Others are the matches of the table that were not chosen, in the order of
	// precedence.
	Others []Considered `json:"others,omitempty"`
}

// ExplainedRule is a rule, and the match of it that is meant.
type ExplainedRule struct {
	Route RouteRef `json:"route"`
	Index uint32   `json:"index"`
	Name  string   `json:"name,omitempty"`
	// Match is its position in the rule; -1 when the rule is for everything.
	Match      int      `json:"match"`
	Conditions []string `json:"conditions,omitempty"`
	Prefix     string   `json:"prefix,omitempty"`
	// Label names the rule for people.
	Label string `json:"label"`
}

// Share is a backend and what part of the requests it gets.
type Share struct {
	Service string  `json:"service"`
	Port    uint16  `json:"port"`
	Weight  uint32  `json:"weight"`
	Percent float64 `json:"percent"`
	// Invalid is why the share is answered with 500.
	Invalid string   `json:"invalid,omitempty"`
	Filters []string `json:"filters,omitempty"`
	// Pinned says that the client's session is here.
	Pinned bool `json:"pinned,omitempty"`
}

// Considered is a match that was not chosen.
type Considered struct {
	ExplainedRule
	// Differs is the first condition that does not hold: path, grpc, method, header,
	// query or server name; "" if all hold, so that precedence decided.
	Differs string `json:"differs,omitempty"`
	Why     string `json:"why"`
}

// Explain says what Match decides, and why.
func (f *Frontend) Explain(client Client, number uint16, req *message.Request) Explanation {
	d := f.Match(client, number, req)
	x := f.explain(d, &client, number, req.Method+" "+req.Path)
	if d.Outcome != Matched {
		x.Status, x.Code = d.Outcome.Status(), d.Outcome.Code().String()
	}
	p := f.ports[number]
	if p == nil || p.refusal != "" {
		return x
	}
	v := look(req)
	var chosen *entry
	if t := p.table(client.Identity.Namespace); t != nil && !connections(p.Kind) {
		chosen, _ = t.first(&v)
		x.Others = consider(t, chosen, &v)
	}
	if d.Rule == nil {
		return x
	}
	x.Rule = explained(d.Rule, -1, nil)
	if chosen != nil {
		x.Rule = explained(d.Rule, chosen.number, chosen.match)
		x.Rule.Prefix = d.Prefix
	}
	x.describe(d.Rule)
	x.explainSession(d.Rule, req)
	for _, fault := range d.Rule.Faults {
		if fault.scope.callers.match(&client) && fault.scope.matchesRequest(&v) {
			x.Faults = append(x.Faults, fault.String())
		}
	}
	for _, l := range d.Rule.RateLimits {
		if l.scope.callers.match(&client) && l.scope.matchesRequest(&v) {
			x.RateLimits = append(x.RateLimits, l.String())
		}
	}
	return x
}

// ExplainConnection says what MatchConnection decides, and why.
func (f *Frontend) ExplainConnection(client Client, number uint16, name string) Explanation {
	d := f.MatchConnection(client, number, name)
	subject := "a connection without a server name"
	if name != "" {
		subject = "a connection for server name " + name
	}
	x := f.explain(d, &client, number, subject)
	x.Opaque = true
	if d.Rule != nil {
		x.Rule = explained(d.Rule, -1, nil)
		x.describe(d.Rule)
	}
	if p := f.ports[number]; p != nil && p.refusal == "" {
		if t := p.table(client.Identity.Namespace); t != nil && connections(p.Kind) {
			x.Others = t.servers.consider(d.Rule)
		}
	}
	return x
}

// ExplainUDP says what MatchUDP decides, and why.
func (f *Frontend) ExplainUDP(client Client, number uint16) Explanation {
	x := f.udp.ExplainConnection(client, number, "")
	x.Subject = "a session of datagrams"
	return x
}

func (f *Frontend) explain(d Decision, client *Client, number uint16, subject string) Explanation {
	return Explanation{
		Frontend: f.Namespace + "/" + f.Name, Port: number, Subject: subject, Outcome: d.Outcome.String(),
		Reason: d.Reason, Table: d.Source.String(), Because: f.because(d.Source, client, number),
	}
}

// because says why a table applies.
func (f *Frontend) because(s Source, client *Client, number uint16) string {
	p, namespace := f.ports[number], client.Identity.Namespace
	switch {
	case p == nil:
		return "the service has no such port"
	case p.refusal != "":
		return "the port cannot be served as it is configured"
	case s == FromConsumer:
		return fmt.Sprintf("the client's namespace %q has routes of its own for this service", namespace)
	case s == FromFallback && len(p.consumers) == 0:
		return "there are no routes for this port"
	case s == FromFallback:
		return fmt.Sprintf("the service's namespace has no routes for this port, and neither has the client's (%q)", namespace)
	case namespace == "":
		return "the client has no identity, so that no consumer routes can apply"
	}
	return fmt.Sprintf("the client's namespace %q has no routes of its own for this service", namespace)
}

func explained(r *Rule, number int, m *match) *ExplainedRule {
	out := &ExplainedRule{Route: r.Route, Index: r.Index, Name: r.Name, Match: number, Label: r.label}
	if m != nil {
		out.Conditions = m.conditions()
	}
	return out
}

// describe adds what the rule does.
func (x *Explanation) describe(r *Rule) {
	x.Filters, x.Answered = describeFilters(r.Filters), r.answers && r.Invalid == ""
	total := uint64(0)
	if n := len(r.sums); n > 0 {
		total = r.sums[n-1]
	}
	for i := range r.Backends {
		b := &r.Backends[i]
		s := Share{Service: b.Service, Port: b.Port, Weight: b.Weight, Invalid: b.Invalid, Filters: describeFilters(b.Filters)}
		if total > 0 {
			s.Percent = float64(b.Weight) * 100 / float64(total)
		}
		x.Backends = append(x.Backends, s)
	}
	if total == 0 && !r.answers {
		x.NoBackend = r.noBackend()
	}
}

// explainSession says what a session makes of the request. Whether it is over
// depends on the time, which is not known here.
func (x *Explanation) explainSession(r *Rule, req *message.Request) {
	s := r.Session
	if s == nil {
		return
	}
	how := "header " + s.Name
	if s.Cookie {
		how = "cookie " + s.Name
	}
	t, ok := s.Read(req)
	b := r.backend(t.Backend)
	switch {
	case !ok:
		x.Session = how + ": the request has none of ours; the response gives one"
	case b == nil:
		x.Session = how + ": its backend is not in use any more; another is chosen by weight"
	default:
		x.Session = fmt.Sprintf("%s: pinned to %s:%d, endpoint %016x, unless the session is over", how, b.Service, b.Port, t.Endpoint)
		for i := range r.Backends {
			x.Backends[i].Pinned = &r.Backends[i] == b
		}
	}
}

// consider says of every other match why it was not chosen.
func consider(t *table, chosen *entry, v *view) []Considered {
	var out []Considered
	for _, e := range t.entries {
		if e == chosen {
			continue
		}
		c := Considered{ExplainedRule: *explained(e.rule, e.number, e.match)}
		c.Differs, c.Why = e.match.differs(v)
		if c.Differs == "" && chosen != nil {
			c.Why = "it matches too, but " + chosen.label() + " comes first: " + precedence(chosen, e)
		}
		out = append(out, c)
	}
	return out
}

func (e *entry) label() string {
	if e.number < 0 {
		return e.rule.label
	}
	return fmt.Sprintf("%s match %d", e.rule.label, e.number)
}

// precedence says why a comes before b.
func precedence(a, b *entry) string {
	for i := range a.rank {
		if a.rank[i] > b.rank[i] {
			return criteria[i](a, b)
		}
	}
	switch {
	case a.route == b.route && a.position == b.position:
		return "it is the earlier match of the rule"
	case a.route == b.route:
		return "it is the earlier rule of the route"
	case compareAges(age{created: a.age.created}, age{created: b.age.created}) < 0:
		return "its route is older"
	}
	return "the name of its route comes first"
}

// criteria are those of rank.
var criteria = [len(rank{})]func(a, b *entry) string{
	func(a, b *entry) string {
		return a.match.path.class.String() + " goes before " + b.match.path.class.String()
	},
	func(a, b *entry) string {
		return fmt.Sprintf("its path is longer (%s before %s)", a.match.path.written, b.match.path.written)
	},
	func(_, _ *entry) string { return "it names the gRPC service more exactly" },
	func(_, _ *entry) string { return "it names the gRPC service at greater length" },
	func(_, _ *entry) string { return "it names the gRPC method more exactly" },
	func(_, _ *entry) string { return "it names the gRPC method at greater length" },
	func(_, _ *entry) string { return "it asks for a method" },
	func(a, b *entry) string {
		return fmt.Sprintf("it asks for more headers (%d, not %d)", len(a.match.headers), len(b.match.headers))
	},
	func(a, b *entry) string {
		return fmt.Sprintf("it asks for more query parameters (%d, not %d)", len(a.match.params), len(b.match.params))
	},
}

// String names the class in precedence.
func (c pathClass) String() string {
	switch c {
	case classPrefix:
		return "a prefix"
	case classRegex:
		return "a regular expression"
	case classExact:
		return "an exact path"
	}
	return "a path that cannot be read"
}

// consider lists the names of servers that other rules are for.
func (s *servers) consider(chosen *Rule) []Considered {
	names := map[*Rule][]string{}
	var order []*Rule
	add := func(name string, r *Rule) {
		if r == nil || r == chosen {
			return
		}
		if names[r] == nil {
			order = append(order, r)
		}
		names[r] = append(names[r], name)
	}
	for _, name := range sortedKeys(s.exact) {
		add(name, s.exact[name])
	}
	for _, suffix := range sortedKeys(s.wild) {
		add("*"+suffix, s.wild[suffix])
	}
	add("any name", s.all)
	out := make([]Considered, len(order))
	for i, r := range order {
		out[i] = Considered{ExplainedRule: *explained(r, -1, nil), Differs: "server name", Why: "it is for " + strings.Join(names[r], ", ")}
	}
	return out
}
