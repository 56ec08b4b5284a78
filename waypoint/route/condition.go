package route

import (
	"regexp"
	"strings"

	"github.com/ambit-mesh/ambit/internal/message"
)

// view is a request as conditions look at it.
type view struct {
	req         *message.Request
	path, query string
}

func look(req *message.Request) view {
	v := view{req: req}
	v.path, v.query = splitTarget(req.Path)
	return v
}

// headerValue gives what a header condition is about.
func headerValue(req *message.Request, name string) (string, bool) {
	if name == "host" || name == ":authority" {
		return req.Authority, req.Authority != ""
	}
	return joined(req.Fields, name)
}

// text is a condition on a value. The zero value is the exact "".
type text struct {
	exact string
	re    *regexp.Regexp
	// any is a condition that cannot be read. It is taken as met, so that its rule,
	// which is invalid, refuses whatever it could have been meant for.
	any bool
	// expression says that it was written as one, written is how.
	expression bool
	written    string
}

func (t *text) holds(value string) bool {
	switch {
	case t.any:
		return true
	case t.re != nil:
		return t.re.MatchString(value)
	}
	return value == t.exact
}

// plain says that the condition is one of equality.
func (t *text) plain() bool { return !t.any && t.re == nil }

// named is a condition on the header or query parameter of a name.
type named struct {
	name string
	text text
}

// pathClass orders path conditions, the first to come last.
type pathClass uint8

const (
	classPrefix pathClass = iota
	classRegex
	classExact
	// classUnread are paths that cannot be read. They come first, because what they
	// are meant for cannot be told, so that nothing is led past them.
	classUnread
)

// pathCondition of a match. The zero value is the prefix "/".
type pathCondition struct {
	class pathClass
	// value of exact and prefix paths; a prefix is without its slash at the end,
	// so that "/" is "".
	value string
	// regex of classRegex.
	regex text
	// literal is what every path that regex matches begins with.
	literal string
	written string
}

func (p *pathCondition) holds(path string) bool {
	switch p.class {
	case classPrefix:
		if p.value == "" {
			return true
		}
		return strings.HasPrefix(path, p.value) && (len(path) == len(p.value) || path[len(p.value)] == '/')
	case classRegex:
		return strings.HasPrefix(path, p.literal) && p.regex.holds(path)
	case classExact:
		return path == p.value
	}
	return true
}

// length is what orders paths of one class.
func (p *pathCondition) length() int {
	switch p.class {
	case classPrefix:
		return len(p.value)
	case classRegex:
		return len(p.written)
	}
	return 0
}

// grpcCondition is one on service and method, each of which may be nil.
type grpcCondition struct{ service, method *text }

func (g *grpcCondition) holds(path string) bool {
	if g.service == nil && g.method == nil {
		return true
	}
	service, method, ok := splitGRPC(path)
	return grpcPart(g.service, service, ok) && grpcPart(g.method, method, ok)
}

func grpcPart(t *text, value string, ok bool) bool {
	return t == nil || t.any || ok && t.holds(value)
}

// match is the conditions of one match, all of which must hold.
type match struct {
	path    pathCondition
	grpc    grpcCondition
	method  string
	headers []named
	params  []named
	// plain says that path, and all conditions of equality, are all there is.
	plain bool
}

func (m *match) holds(v *view) bool {
	if !m.path.holds(v.path) || !m.grpc.holds(v.path) || m.method != "" && m.method != v.req.Method {
		return false
	}
	for i := range m.headers {
		value, has := headerValue(v.req, m.headers[i].name)
		if !m.headers[i].text.any && (!has || !m.headers[i].text.holds(value)) {
			return false
		}
	}
	for i := range m.params {
		value, has := Query(v.query, m.params[i].name)
		if !m.params[i].text.any && (!has || !m.params[i].text.holds(value)) {
			return false
		}
	}
	return true
}

// isPlain computes plain.
func (m *match) isPlain() bool {
	ok := m.path.class != classRegex
	for _, t := range []*text{m.grpc.service, m.grpc.method} {
		ok = ok && (t == nil || t.plain())
	}
	for i := range m.headers {
		ok = ok && m.headers[i].text.plain()
	}
	for i := range m.params {
		ok = ok && m.params[i].text.plain()
	}
	return ok
}
