package route

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/internal/message"
)

// view is a request as conditions look at it.
type view struct {
	req         *message.Request
	path, query string
	// headers and params are the values by name when there are so many that to look
	// for each from the front would let a client make work that grows with the
	// square of what it sends; nil when there are not.
	headers, params map[string]string
}

// manyValues are looked up in a map.
const manyValues = 64

func look(req *message.Request) view {
	v := view{req: req}
	v.path, v.query = splitTarget(req.Path)
	if len(req.Fields) > manyValues {
		v.headers = headersByName(req.Fields)
	}
	if len(v.query) > manyValues && strings.Count(v.query, "&") > manyValues {
		v.params = paramsByName(v.query)
	}
	return v
}

func headersByName(fields message.Fields) map[string]string {
	lines := make(map[string][]string, len(fields))
	for _, f := range fields {
		lines[f.Name] = append(lines[f.Name], f.Value)
	}
	out := make(map[string]string, len(lines))
	for name, values := range lines {
		out[name] = strings.Join(values, separator(name))
	}
	return out
}

func paramsByName(query string) map[string]string {
	out := map[string]string{}
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		key, value, _ := strings.Cut(pair, "=")
		name, ok1 := decodeQuery(key)
		value, ok2 := decodeQuery(value)
		if _, has := out[name]; !has && ok1 && ok2 && pair != "" {
			out[name] = value
		}
	}
	return out
}

// header gives what a header condition is about.
func (v *view) header(name string) (string, bool) {
	if v.headers == nil || derived(name) {
		return headerValue(v.req, name)
	}
	value, ok := v.headers[name]
	return value, ok
}

// param gives what a condition on a query parameter is about.
func (v *view) param(name string) (string, bool) {
	if v.params == nil {
		return Query(v.query, name)
	}
	value, ok := v.params[name]
	return value, ok
}

// headerValue gives a header as a condition sees it.
func headerValue(req *message.Request, name string) (string, bool) {
	switch {
	case !derived(name):
		return joined(req.Fields, name)
	case name == "upgrade":
		return req.Protocol, req.Protocol != ""
	case name == "content-length":
		return strconv.FormatInt(req.ContentLength, 10), req.ContentLength > 0
	}
	return req.Authority, req.Authority != ""
}

// derived are headers that codecs take out of the fields, and keep elsewhere.
func derived(name string) bool {
	return name == "host" || name == ":authority" || name == "upgrade" || name == "content-length"
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
		value, has := v.header(m.headers[i].name)
		if !m.headers[i].text.any && (!has || !m.headers[i].text.holds(value)) {
			return false
		}
	}
	for i := range m.params {
		value, has := v.param(m.params[i].name)
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
