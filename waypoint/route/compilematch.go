package route

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/ambit-mesh/ambit/apis/waypoint"
)

func (c *compiler) matches(at string, list []*waypoint.Match) []*match {
	out := make([]*match, len(list))
	for i, pb := range list {
		out[i] = c.match(fmt.Sprintf("%s[%d]", at, i), pb)
	}
	return out
}

func (c *compiler) match(at string, pb *waypoint.Match) *match {
	m := &match{path: c.path(at+".path", pb.GetPath()), method: pb.GetMethod(), grpc: c.grpc(at+".grpc", pb.GetGrpc())}
	if m.method != "" && !token(m.method) {
		c.problem(at+".method", fmt.Sprintf("%q is not a method; use a name such as GET", m.method))
		m.method = ""
	}
	for i, pb := range pb.GetHeaders() {
		at := fmt.Sprintf("%s.headers[%d]", at, i)
		name := strings.ToLower(pb.GetName())
		if has(m.headers, name) {
			continue
		}
		n := named{name, c.value(at, pb)}
		if !token(name) && name != ":authority" {
			c.problem(at+".name", fmt.Sprintf("%q is not the name of a header; use letters, digits and hyphens", name))
			n.text = text{any: true}
		}
		m.headers = append(m.headers, n)
	}
	for i, pb := range pb.GetQueryParams() {
		if !has(m.params, pb.GetName()) {
			m.params = append(m.params, named{pb.GetName(), c.value(fmt.Sprintf("%s.query_params[%d]", at, i), pb)})
		}
	}
	m.plain = m.isPlain()
	return m
}

// has says that there is a condition on a name already. The first one counts, and
// others are not looked at (HTTPHeaderMatch, HTTPQueryParamMatch: "only the first
// entry MUST be considered").
func has(list []named, name string) bool {
	for i := range list {
		if list[i].name == name {
			return true
		}
	}
	return false
}

func (c *compiler) path(at string, pb *waypoint.PathMatch) pathCondition {
	if pb == nil {
		return pathCondition{written: "/"}
	}
	switch t := pb.GetType().(type) {
	case *waypoint.PathMatch_Exact:
		if value, ok := c.pathValue(at+".exact", t.Exact); ok {
			return pathCondition{class: classExact, value: value, written: t.Exact}
		}
	case *waypoint.PathMatch_Prefix:
		if value, ok := c.pathValue(at+".prefix", t.Prefix); ok {
			return pathCondition{class: classPrefix, value: strings.TrimSuffix(value, "/"), written: t.Prefix}
		}
	case *waypoint.PathMatch_Regex:
		p := pathCondition{class: classRegex, written: t.Regex}
		p.regex = c.regex(at+".regex", t.Regex)
		if p.regex.plain() {
			// A pattern without anything special is still an expression in precedence.
			p.literal = p.regex.exact
		} else if p.regex.re != nil {
			p.literal = literalOf(t.Regex)
		}
		return p
	default:
		c.problem(at, "none of exact, prefix and regex is set; set one of them")
	}
	return pathCondition{class: classUnread}
}

// literalOf gives what every match of an expression begins with.
func literalOf(pattern string) string {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return ""
	}
	literal, _ := re.LiteralPrefix()
	return literal
}

// pathValue reads an exact path or a prefix in the form that requests have.
func (c *compiler) pathValue(at, value string) (string, bool) {
	if !strings.HasPrefix(value, "/") {
		c.problem(at, fmt.Sprintf("%q does not begin with a slash; put one before it", value))
		return "", false
	}
	if strings.Contains(value, "?") {
		c.problem(at, fmt.Sprintf("%q has a query; match it by query parameters", value))
		return "", false
	}
	path, err := NormalizePath(value)
	if err != nil {
		c.problem(at, fmt.Sprintf("%q is not a path: %v", value, err))
		return "", false
	}
	return path, true
}

// value reads a condition on a header or query parameter.
func (c *compiler) value(at string, pb *waypoint.ValueMatch) text {
	switch t := pb.GetType().(type) {
	case *waypoint.ValueMatch_Exact:
		return text{exact: t.Exact, written: t.Exact}
	case *waypoint.ValueMatch_Regex:
		return c.regex(at+".regex", t.Regex)
	}
	c.problem(at, "neither exact nor regex is set; set one of them")
	return text{any: true}
}

// regex reads an expression that is to match a whole value. One that can only
// match one value is a condition of equality.
func (c *compiler) regex(at, pattern string) text {
	out := text{expression: true, written: pattern}
	alone, err := regexp.Compile(pattern)
	if err == nil {
		if literal, complete := alone.LiteralPrefix(); complete {
			out.exact = literal
			return out
		}
		// Compiled alone before, the pattern cannot reach out of the group.
		out.re, err = regexp.Compile(`\A(?:` + pattern + `)\z`)
	}
	if err != nil {
		c.problem(at, fmt.Sprintf("%q is not a regular expression of RE2: %v", pattern, err))
		out.re, out.any = nil, true
	}
	return out
}

func (c *compiler) grpc(at string, pb *waypoint.GRPCMethodMatch) grpcCondition {
	name := func(field, value string) *text {
		switch {
		case value == "":
			return nil
		case pb.GetRegex():
			t := c.regex(at+field, value)
			return &t
		}
		return &text{exact: value, written: value}
	}
	return grpcCondition{service: name(".service", pb.GetService()), method: name(".method", pb.GetMethod())}
}
