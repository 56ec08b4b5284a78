package route

import "github.com/ambit-mesh/ambit/apis/waypoint"

// callers are the clients that a fault or a limit is for: those that one of them
// names, or all when there are none.
type callers []caller

// caller is a client by what is set.
type caller struct{ namespace, account string }

func (s callers) match(c *Client) bool {
	for i := range s {
		if s[i].matches(c) {
			return true
		}
	}
	return len(s) == 0
}

// matches never holds for a client without an identity when anything is set.
func (s caller) matches(c *Client) bool {
	return (s.namespace == "" || s.namespace == c.Identity.Namespace) && (s.account == "" || s.account == c.Identity.ServiceAccount)
}

func compileCallers(list []*waypoint.Source) callers {
	out := make(callers, len(list))
	for i, s := range list {
		out[i] = caller{s.GetNamespace(), s.GetServiceAccount()}
	}
	return out
}

// scope is which requests a fault or a limit is about.
type scope struct {
	callers callers
	// matches are alternatives; none: any request.
	matches []*match
	// services are the backends, <namespace>/<hostname>; none: any.
	services []string
}

func (s *scope) holds(c *Client, v *view, service string) bool {
	return s.callers.match(c) && s.about(service) && s.matchesRequest(v)
}

func (s *scope) about(service string) bool {
	for _, name := range s.services {
		if name == service {
			return true
		}
	}
	return len(s.services) == 0
}

func (s *scope) matchesRequest(v *view) bool {
	for _, m := range s.matches {
		if m.holds(v) {
			return true
		}
	}
	return len(s.matches) == 0
}

func (c *compiler) scope(at string, from []*waypoint.Source, matches []*waypoint.Match, services []string) scope {
	return scope{callers: compileCallers(from), matches: c.matches(at+".matches", matches), services: services}
}
