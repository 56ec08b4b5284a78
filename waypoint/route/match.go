package route

import "github.com/ambit-mesh/ambit/internal/message"

// Match finds the rule for a request. Its Path is as NormalizePath gives it.
//
// It does not allocate, except for a condition on a header that has several lines
// or on a query parameter that is encoded, and for a request that has more than 64
// of either.
func (f *Frontend) Match(client Client, number uint16, req *message.Request) Decision {
	p, t, d := f.table(&client, number)
	switch {
	case d.Outcome != 0:
		return d
	case t == nil:
		return decide(p.fallback, FromFallback)
	case connections(p.Kind):
		return Decision{Outcome: Invalid, Source: t.source, Reason: p.notHTTP}
	}
	v := look(req)
	e, prefix := t.first(&v)
	if e == nil {
		return Decision{Outcome: NoRoute, Source: t.source, Reason: t.unmatched}
	}
	d = decide(e.rule, t.source)
	d.Prefix = prefix
	return d
}

// MatchConnection finds the rule for a connection whose protocol the waypoint
// does not speak: by the server name of TLS, "" if there is none.
func (f *Frontend) MatchConnection(client Client, number uint16, name string) Decision {
	p, t, d := f.table(&client, number)
	switch {
	case d.Outcome != 0:
		return d
	case t == nil:
		return decide(p.fallback, FromFallback)
	case !connections(p.Kind):
		return Decision{Outcome: Invalid, Source: t.source, Reason: p.notConnection}
	}
	r := t.servers.find(name)
	if r == nil {
		return Decision{Outcome: NoRoute, Source: t.source, Reason: t.unmatched}
	}
	return decide(r, t.source)
}

// MatchUDP finds the rule for a session of datagrams.
func (f *Frontend) MatchUDP(client Client, number uint16) Decision {
	return f.udp.MatchConnection(client, number, "")
}

// table gives port and table of a client. An outcome means that there is nothing
// more to find out; without one, no table means the fallback.
func (f *Frontend) table(client *Client, number uint16) (*port, *table, Decision) {
	p := f.ports[number]
	switch {
	case p == nil:
		return nil, nil, Decision{Outcome: NoPort, Reason: f.noPort}
	case p.refusal != "":
		return p, nil, Decision{Outcome: Invalid, Reason: p.refusal}
	}
	return p, p.table(client.Identity.Namespace), Decision{}
}

func decide(r *Rule, from Source) Decision {
	if r.Invalid != "" {
		return Decision{Outcome: Invalid, Source: from, Rule: r, Reason: r.Invalid}
	}
	return Decision{Outcome: Matched, Source: from, Rule: r}
}
