package route_test

import (
	"net/url"
	"regexp"
	"strings"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// slowVerdict is what the reference decides: by the position of route, rule and
// match, which are unique.
type slowVerdict struct {
	outcome            route.Outcome
	source             route.Source
	route, rule, match int
	prefix             string
}

// slow decides as the Gateway API says it, without regard to speed: all matches
// that hold are compared with each other, criterion by criterion. It reads the
// configuration itself and shares no code with what it checks.
func slow(f *waypoint.Frontend, namespace string, number uint16, req *message.Request) slowVerdict {
	var port *waypoint.Port
	for _, p := range f.Ports {
		if p.Number == uint32(number) {
			port = p
		}
	}
	if port == nil {
		return slowVerdict{outcome: route.NoPort}
	}
	table, source := port.Producer, route.FromProducer
	for _, c := range port.Consumers {
		if c.Namespace == namespace {
			table, source = c.Table, route.FromConsumer
		}
	}
	if table == nil {
		return slowVerdict{outcome: slowOutcome(port.Fallback, nil), source: route.FromFallback}
	}
	var best *slowCandidate
	for ri, r := range table.Routes {
		for pi, rule := range r.Rules {
			matches := rule.Matches
			if len(matches) == 0 {
				matches = []*waypoint.Match{{}}
			}
			for mi, m := range matches {
				c := &slowCandidate{r, rule, m, ri, pi, mi}
				if slowHolds(m, req) && (best == nil || c.before(best)) {
					best = c
				}
			}
		}
	}
	if best == nil {
		return slowVerdict{outcome: route.NoRoute, source: source}
	}
	v := slowVerdict{outcome: slowOutcome(best.rule, best.rule.Matches), source: source, route: best.ri, rule: best.pi, match: best.mi}
	if len(best.rule.Matches) == 0 {
		v.match = -1
	}
	switch p := best.match.Path.GetType().(type) {
	case *waypoint.PathMatch_Prefix:
		if slowPathReadable(p.Prefix) {
			v.prefix = strings.TrimSuffix(slowPath(p.Prefix), "/")
		}
		if v.prefix == "" && slowPathReadable(p.Prefix) {
			v.prefix = "/"
		}
	case nil:
		if best.match.Path == nil {
			v.prefix = "/"
		}
	}
	return v
}

type slowCandidate struct {
	route      *waypoint.Route
	rule       *waypoint.Rule
	match      *waypoint.Match
	ri, pi, mi int
}

func (a *slowCandidate) before(b *slowCandidate) bool {
	more := []func(c *slowCandidate) int{
		func(c *slowCandidate) int { return slowPathClass(c.match.Path) },
		func(c *slowCandidate) int { return slowPathLength(c.match.Path) },
		func(c *slowCandidate) int { return slowNameClass(c.match.Grpc.GetService(), c.match.Grpc.GetRegex()) },
		func(c *slowCandidate) int { return len(c.match.Grpc.GetService()) },
		func(c *slowCandidate) int { return slowNameClass(c.match.Grpc.GetMethod(), c.match.Grpc.GetRegex()) },
		func(c *slowCandidate) int { return len(c.match.Grpc.GetMethod()) },
		func(c *slowCandidate) int { return min(len(c.match.Method), 1) },
		func(c *slowCandidate) int { return len(slowFirst(c.match.Headers, strings.ToLower)) },
		func(c *slowCandidate) int { return len(slowFirst(c.match.QueryParams, strings.Clone)) },
		func(c *slowCandidate) int { return -slowCreated(c.route) },
		func(c *slowCandidate) int {
			return strings.Compare(b.route.Namespace+"/"+b.route.Name, c.route.Namespace+"/"+c.route.Name)
		},
		func(c *slowCandidate) int { return -c.ri },
		func(c *slowCandidate) int { return -c.pi },
		func(c *slowCandidate) int { return -c.mi },
	}
	for _, f := range more {
		if f(a) != f(b) {
			return f(a) > f(b)
		}
	}
	return false
}

// slowCreated is in seconds; routes without a time are the youngest.
func slowCreated(r *waypoint.Route) int {
	if r.Created == nil {
		return 1 << 60
	}
	return int(r.Created.Seconds)
}

func slowPathClass(p *waypoint.PathMatch) int {
	if p == nil {
		return 1
	}
	switch t := p.Type.(type) {
	case *waypoint.PathMatch_Prefix:
		if slowPathReadable(t.Prefix) {
			return 1
		}
	case *waypoint.PathMatch_Regex:
		return 2
	case *waypoint.PathMatch_Exact:
		if slowPathReadable(t.Exact) {
			return 3
		}
	}
	return 4
}

func slowPathLength(p *waypoint.PathMatch) int {
	switch t := p.GetType().(type) {
	case *waypoint.PathMatch_Prefix:
		if slowPathReadable(t.Prefix) {
			return len(strings.TrimSuffix(slowPath(t.Prefix), "/"))
		}
	case *waypoint.PathMatch_Regex:
		return len(t.Regex)
	}
	return 0
}

func slowNameClass(name string, regex bool) int {
	switch {
	case name == "":
		return 0
	case regex:
		return 1
	}
	return 2
}

// slowPath is the normal form of what the tests have in paths.
func slowPath(p string) string { return strings.ReplaceAll(p, "%61", "a") }

func slowPathReadable(p string) bool { return strings.HasPrefix(p, "/") && !strings.Contains(p, "%2f") }

// slowFirst keeps the first condition on each name.
func slowFirst(list []*waypoint.ValueMatch, fold func(string) string) []*waypoint.ValueMatch {
	var out []*waypoint.ValueMatch
	seen := map[string]bool{}
	for _, m := range list {
		if !seen[fold(m.Name)] {
			seen[fold(m.Name)] = true
			out = append(out, m)
		}
	}
	return out
}

func slowHolds(m *waypoint.Match, req *message.Request) bool {
	path, query, _ := strings.Cut(req.Path, "?")
	ok := slowPathHolds(m.Path, path) && slowGRPCHolds(m.Grpc, path) && (m.Method == "" || m.Method == req.Method)
	for _, h := range slowFirst(m.Headers, strings.ToLower) {
		var values []string
		for _, f := range req.Fields {
			if f.Name == strings.ToLower(h.Name) {
				values = append(values, f.Value)
			}
		}
		if strings.EqualFold(h.Name, "host") {
			values = []string{req.Authority}
		}
		ok = ok && slowValueHolds(h, len(values) > 0, strings.Join(values, ","))
	}
	params, _ := url.ParseQuery(query)
	for _, q := range slowFirst(m.QueryParams, strings.Clone) {
		ok = ok && slowValueHolds(q, params.Has(q.Name), params.Get(q.Name))
	}
	return ok
}

func slowPathHolds(p *waypoint.PathMatch, path string) bool {
	if p == nil {
		return true
	}
	switch t := p.Type.(type) {
	case *waypoint.PathMatch_Exact:
		return !slowPathReadable(t.Exact) || slowPath(t.Exact) == path
	case *waypoint.PathMatch_Prefix:
		if !slowPathReadable(t.Prefix) {
			return true
		}
		want, have := strings.Split(strings.TrimSuffix(slowPath(t.Prefix), "/"), "/"), strings.Split(path, "/")
		if len(want) > len(have) {
			return false
		}
		for i := range want {
			if want[i] != have[i] && i > 0 {
				return false
			}
		}
		return true
	case *waypoint.PathMatch_Regex:
		return slowRegex(t.Regex, path)
	}
	return true
}

func slowRegex(pattern, value string) bool {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return true
	}
	// The longest match that begins at the beginning is the whole, if any is.
	re.Longest()
	at := re.FindStringIndex(value)
	return at != nil && at[0] == 0 && at[1] == len(value)
}

func slowGRPCHolds(g *waypoint.GRPCMethodMatch, path string) bool {
	parts := strings.Split(path, "/")
	is := len(parts) >= 3 && parts[0] == ""
	if is {
		// The method is behind the last slash.
		parts = []string{"", strings.Join(parts[1:len(parts)-1], "/"), parts[len(parts)-1]}
	}
	name := func(want string, i int) bool {
		switch {
		case want == "":
			return true
		case g.Regex && !slowCompiles(want):
			return true
		case g.Regex:
			return is && slowRegex(want, parts[i])
		}
		return is && parts[i] == want
	}
	return name(g.GetService(), 1) && name(g.GetMethod(), 2)
}

func slowValueHolds(m *waypoint.ValueMatch, has bool, value string) bool {
	switch t := m.Type.(type) {
	case *waypoint.ValueMatch_Exact:
		return has && value == t.Exact
	case *waypoint.ValueMatch_Regex:
		return !slowCompiles(t.Regex) || has && slowRegex(t.Regex, value)
	}
	return true
}

func slowCompiles(pattern string) bool {
	_, err := regexp.Compile(pattern)
	return err == nil
}

// slowOutcome says whether a rule can be carried out, of what the tests have in
// rules.
func slowOutcome(r *waypoint.Rule, matches []*waypoint.Match) route.Outcome {
	ok := r != nil && r.Invalid == ""
	for _, m := range matches {
		switch t := m.GetPath().GetType().(type) {
		case *waypoint.PathMatch_Exact:
			ok = ok && slowPathReadable(t.Exact)
		case *waypoint.PathMatch_Prefix:
			ok = ok && slowPathReadable(t.Prefix)
		case *waypoint.PathMatch_Regex:
			ok = ok && slowCompiles(t.Regex)
		case nil:
			ok = ok && m.Path == nil
		}
		if m.Grpc.GetRegex() {
			ok = ok && slowCompiles(m.Grpc.Service) && slowCompiles(m.Grpc.Method)
		}
		for _, v := range append(slowFirst(m.Headers, strings.ToLower), slowFirst(m.QueryParams, strings.Clone)...) {
			ok = ok && v.Type != nil && slowCompiles(v.GetRegex())
		}
	}
	for _, f := range r.GetFilters() {
		ok = ok && f.Type != nil
	}
	for _, b := range r.GetBackends() {
		ok = ok && b.Weight <= 1_000_000
	}
	if !ok {
		return route.Invalid
	}
	return route.Matched
}
