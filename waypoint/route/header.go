package route

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
)

// HeaderModifier sets, adds and removes header fields, in this order. Names are
// in lower case.
type HeaderModifier struct {
	Set, Add []message.Field
	Remove   []string
}

// Apply changes fields, which the caller owns. An added value is joined to the
// one that is there, as the Gateway API shows it (HTTPHeaderFilter); a field that
// is no list, set-cookie, gets a line of its own.
func (m *HeaderModifier) Apply(fields *message.Fields) {
	for _, h := range m.Set {
		fields.Set(h.Name, h.Value)
	}
	for _, h := range m.Add {
		old, has := joined(*fields, h.Name)
		if !has || h.Name == "set-cookie" {
			fields.Add(h.Name, h.Value)
			continue
		}
		fields.Set(h.Name, old+separator(h.Name)+h.Value)
	}
	for _, name := range m.Remove {
		fields.Del(name)
	}
}

// joined gives the lines with a name as one value.
func joined(fields message.Fields, name string) (string, bool) {
	if name != "cookie" {
		return fields.Joined(name)
	}
	// HTTP/2 may split a cookie into crumbs, RFC 9113 section 8.2.3.
	value, n := "", 0
	for i := range fields {
		switch {
		case fields[i].Name != name:
		case n == 0:
			value, n = fields[i].Value, 1
		default:
			value += "; " + fields[i].Value
		}
	}
	return value, n > 0
}

func separator(name string) string {
	if name == "cookie" {
		return "; "
	}
	return ","
}

// protected are fields that are not a filter's to change: those that are about
// one connection or about framing (RFC 9110 section 7.6.1), and Host, which is a
// rewrite's.
var protected = []string{
	"connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}

func (c *compiler) headerModifier(at string, pb *waypoint.HeaderModifier) *HeaderModifier {
	m := &HeaderModifier{}
	for i, h := range pb.GetSet() {
		m.Set = append(m.Set, c.header(fmt.Sprintf("%s.set[%d]", at, i), h))
	}
	for i, h := range pb.GetAdd() {
		m.Add = append(m.Add, c.header(fmt.Sprintf("%s.add[%d]", at, i), h))
	}
	for i, name := range pb.GetRemove() {
		m.Remove = append(m.Remove, c.headerName(fmt.Sprintf("%s.remove[%d]", at, i), name))
	}
	return m
}

func (c *compiler) header(at string, h *waypoint.Header) message.Field {
	value := trimSpace(h.GetValue())
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		c.problem(at+".value", "has a control character; take it out (RFC 9110 section 5.5)")
	}
	return message.Field{Name: c.headerName(at+".name", h.GetName()), Value: value}
}

// headerName reads the name of a field that a filter changes.
func (c *compiler) headerName(at, name string) string {
	lower := strings.ToLower(name)
	switch {
	case strings.HasPrefix(name, ":"):
		c.problem(at, fmt.Sprintf("%q is a pseudo-header and cannot be changed; use a rewrite or redirect filter", name))
	case !token(name):
		c.problem(at, fmt.Sprintf("%q is not the name of a header; use letters, digits and hyphens", name))
	case lower == "host":
		c.problem(at, "Host cannot be changed as a header; use a rewrite filter with hostname")
	case slices.Contains(protected, lower):
		c.problem(at, fmt.Sprintf("%q is about one connection and the proxy's own; remove it from the filter", name))
	}
	return lower
}

// headerNames reads a list of names of fields that are read only.
func (c *compiler) headerNames(at string, list []string) []string {
	out := make([]string, len(list))
	for i, name := range list {
		if !token(name) {
			c.problem(fmt.Sprintf("%s[%d]", at, i), fmt.Sprintf("%q is not the name of a header; use letters, digits and hyphens", name))
		}
		out[i] = strings.ToLower(name)
	}
	return out
}
