package route

import (
	"strings"

	"github.com/ambit-mesh/ambit/internal/message"
)

// Cookie gives the value of the first cookie with that name, and whether there
// is one. Field lines are read as servers do (RFC 6265bis section 5.8.3 turned
// around): pairs are apart by semicolons, white space around names and values
// does not count, a pair without = is a value without a name, and quotes are part
// of the value. Names have case.
func Cookie(fields message.Fields, name string) (value string, ok bool) {
	if name == "" {
		return "", false
	}
	for i := range fields {
		if fields[i].Name != "cookie" {
			continue
		}
		if value, ok = cookieIn(fields[i].Value, name); ok {
			return value, true
		}
	}
	return "", false
}

func cookieIn(line, name string) (string, bool) {
	for line != "" {
		var pair string
		pair, line, _ = strings.Cut(line, ";")
		key, value, ok := strings.Cut(pair, "=")
		if ok && trimSpace(key) == name {
			return trimSpace(value), true
		}
	}
	return "", false
}

// trimSpace takes off WSP, RFC 5234 appendix B.1.
func trimSpace(s string) string { return strings.Trim(s, " \t") }

// cookieName says that a name can be that of a cookie: a token (RFC 6265bis
// section 4.1.1).
func cookieName(name string) bool { return token(name) }

// token as RFC 9110 section 5.6.2 has it.
func token(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
