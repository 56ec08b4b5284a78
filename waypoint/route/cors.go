package route

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
)

// CORS answers preflight requests and marks responses for browsers, by the Fetch
// standard ("CORS protocol") and GEP-1767. A preflight request is an OPTIONS
// request of its own: a rule that asks for another method does not match it.
type CORS struct {
	anyOrigin   bool
	origins     []originPattern
	credentials bool
	// methods, headers and expose are the values of the fields; "" is none, and
	// "*" is any.
	methods, headers, expose string
	maxAge                   string
}

// originPattern is an origin of whose host a part may be anything.
type originPattern struct {
	scheme, port string
	// prefix and suffix of the host, around the wildcard.
	prefix, suffix string
	wild           bool
}

// defaultMaxAge is for how long browsers may keep the answer to a preflight when
// a route does not say (HTTPCORSFilter.MaxAge).
const defaultMaxAge = 5 * time.Second

// Preflight gives the fields of the answer to a preflight request, which is
// answered with 204 and goes no further; false means that the request is none. An
// origin that is not allowed gets an answer without the fields that would let it
// go on.
func (c *CORS) Preflight(req *message.Request) (message.Fields, bool) {
	origin, cross := req.Fields.Joined("origin")
	method := req.Fields.Get("access-control-request-method")
	if req.Method != "OPTIONS" || !cross || method == "" {
		return nil, false
	}
	fields := message.Fields{{Name: "vary", Value: "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"}}
	if !c.allowed(origin) {
		return fields, true
	}
	c.allow(origin, &fields)
	requested, _ := req.Fields.Joined("access-control-request-headers")
	c.list(&fields, "access-control-allow-methods", c.methods, method)
	c.list(&fields, "access-control-allow-headers", c.headers, requested)
	fields.Add("access-control-max-age", c.maxAge)
	return fields, true
}

// Apply marks the response to a request. What the backend itself has said about
// sharing is taken away, so that a route and not its backend decides.
func (c *CORS) Apply(req *message.Request, fields *message.Fields) {
	for _, name := range []string{
		"access-control-allow-origin", "access-control-allow-credentials", "access-control-allow-methods",
		"access-control-allow-headers", "access-control-expose-headers", "access-control-max-age",
	} {
		fields.Del(name)
	}
	if !c.anyOrigin || c.credentials {
		varyByOrigin(fields)
	}
	origin, cross := req.Fields.Joined("origin")
	if !cross || !c.allowed(origin) {
		return
	}
	c.allow(origin, fields)
	if c.expose != "" && (c.expose != "*" || !c.credentials) {
		fields.Add("access-control-expose-headers", c.expose)
	}
}

// allow adds what lets an origin in. A wildcard is not valid together with
// credentials (Fetch, "CORS protocol and credentials"), so the origin is named.
func (c *CORS) allow(origin string, fields *message.Fields) {
	if c.anyOrigin && !c.credentials {
		origin = "*"
	}
	fields.Add("access-control-allow-origin", origin)
	if c.credentials {
		fields.Add("access-control-allow-credentials", "true")
	}
}

// list adds a field of what is allowed. With credentials a wildcard is written
// out as what was asked for, and left away when nothing was.
func (c *CORS) list(fields *message.Fields, name, value, asked string) {
	if value == "*" && c.credentials {
		value = asked
	}
	if value != "" {
		fields.Add(name, value)
	}
}

func varyByOrigin(fields *message.Fields) {
	old, has := fields.Joined("vary")
	if !has {
		fields.Add("vary", "Origin")
		return
	}
	for _, v := range strings.Split(old, ",") {
		if v = trimSpace(v); v == "*" || strings.EqualFold(v, "origin") {
			return
		}
	}
	fields.Set("vary", old+", Origin")
}

func (c *CORS) allowed(origin string) bool {
	if c.anyOrigin {
		return true
	}
	scheme, host, port, ok := splitOrigin(origin)
	if !ok {
		return false
	}
	for i := range c.origins {
		if c.origins[i].matches(scheme, host, port) {
			return true
		}
	}
	return false
}

func (p *originPattern) matches(scheme, host, port string) bool {
	if p.scheme != scheme || p.port != port {
		return false
	}
	if !p.wild {
		return host == p.prefix
	}
	return len(host) > len(p.prefix)+len(p.suffix) && strings.HasPrefix(host, p.prefix) && strings.HasSuffix(host, p.suffix)
}

// splitOrigin takes an origin apart; the port of http and https is filled in.
// Schemes and hosts have no case.
func splitOrigin(origin string) (scheme, host, port string, ok bool) {
	scheme, host, ok = strings.Cut(strings.ToLower(origin), "://")
	if !ok || scheme == "" {
		return "", "", "", false
	}
	if bare := hostOf(host); bare != host {
		host, port = bare, host[len(bare)+1:]
	} else if p := wellKnownPort(scheme); p != 0 {
		port = strconv.Itoa(int(p))
	}
	return scheme, host, port, host != "" && !strings.ContainsAny(host, "/?#@, ")
}

func (c *compiler) cors(at string, pb *waypoint.CORS) *CORS {
	out := &CORS{
		credentials: pb.GetAllowCredentials(),
		methods:     c.names(at+".allow_methods", pb.GetAllowMethods()),
		headers:     c.names(at+".allow_headers", pb.GetAllowHeaders()),
		expose:      c.names(at+".expose_headers", pb.GetExposeHeaders()),
	}
	for i, origin := range pb.GetAllowOrigins() {
		if origin == "*" {
			out.anyOrigin = true
			continue
		}
		scheme, host, port, ok := splitOrigin(origin)
		prefix, suffix, wild := strings.Cut(host, "*")
		if !ok || strings.Contains(suffix, "*") || strings.Contains(scheme+port, "*") {
			c.problem(fmt.Sprintf("%s.allow_origins[%d]", at, i), fmt.Sprintf("%q is not an origin; use <scheme>://<host>[:<port>], with at most one * in the host, or * alone", origin))
			continue
		}
		out.origins = append(out.origins, originPattern{scheme, port, prefix, suffix, wild})
	}
	age := defaultMaxAge
	if pb.GetMaxAge() != nil {
		age = c.duration(at+".max_age", pb.GetMaxAge())
	}
	out.maxAge = strconv.FormatInt(int64(age/time.Second), 10)
	return out
}

// names reads a list of names of methods or headers. Where * is among them it is
// all there is.
func (c *compiler) names(at string, list []string) string {
	all := false
	for i, name := range list {
		if !token(name) {
			c.problem(fmt.Sprintf("%s[%d]", at, i), fmt.Sprintf("%q is not a name; use letters, digits and hyphens, or * for all", name))
		}
		all = all || name == "*"
	}
	if all {
		return "*"
	}
	return strings.Join(list, ", ")
}
