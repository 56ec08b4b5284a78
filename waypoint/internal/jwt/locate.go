package jwt

import (
	"net/url"
	"strings"

	"github.com/ambit-mesh/ambit/internal/message"
)

type kind uint8

const (
	inHeader kind = iota
	inQuery
	inCookie
)

// bearer is the scheme of RFC 6750 section 2.1, with the space behind it.
const bearer = "Bearer "

// location is a place where a token may be.
type location struct {
	kind         kind
	name, prefix string
}

// find gives the token that is there, "" if none is. Not ok: there are different
// ones. Other credentials in the same place, such as Basic, are none.
func (l *location) find(req *message.Request) (found string, ok bool) {
	take := func(value string) bool {
		t := l.cut(value)
		if t == "" || t == found {
			return true
		}
		if found != "" {
			return false
		}
		found = t
		return true
	}
	switch l.kind {
	case inHeader:
		for i := range req.Fields {
			if req.Fields[i].Name == l.name && !take(req.Fields[i].Value) {
				return "", false
			}
		}
	case inQuery:
		_, query, _ := strings.Cut(req.Path, "?")
		for query != "" {
			var pair string
			pair, query, _ = strings.Cut(query, "&")
			if key, value, _ := strings.Cut(pair, "="); l.named(key) && !take(unescaped(value)) {
				return "", false
			}
		}
	case inCookie:
		for i := range req.Fields {
			line := req.Fields[i].Value
			for req.Fields[i].Name == "cookie" && line != "" {
				var pair string
				pair, line, _ = strings.Cut(line, ";")
				if key, value, _ := strings.Cut(pair, "="); l.named(key) && !take(strings.Trim(value, " \t\"")) {
					return "", false
				}
			}
		}
	}
	return found, true
}

// cut gives the token of a value. Schemes have no case (RFC 9110 section 11.1).
func (l *location) cut(value string) string {
	if len(value) < len(l.prefix) || !strings.EqualFold(value[:len(l.prefix)], l.prefix) {
		return ""
	}
	return strings.Trim(value[len(l.prefix):], " \t")
}

// named reports whether a key is that of the parameter or cookie.
func (l *location) named(key string) bool {
	if l.kind == inQuery {
		return key == l.name || unescaped(key) == l.name
	}
	return strings.Trim(key, " \t") == l.name
}

func unescaped(s string) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	out, err := url.QueryUnescape(s)
	if err != nil {
		return s
	}
	return out
}

// strip takes the token out of the request. What stays is left as it was.
func (l *location) strip(req *message.Request) {
	switch l.kind {
	case inHeader:
		out := req.Fields[:0]
		for _, f := range req.Fields {
			if f.Name != l.name || l.cut(f.Value) == "" {
				out = append(out, f)
			}
		}
		clear(req.Fields[len(out):])
		req.Fields = out
	case inQuery:
		path, query, ok := strings.Cut(req.Path, "?")
		if !ok {
			return
		}
		if query = l.without(query, "&"); query != "" {
			path += "?" + query
		}
		req.Path = path
	case inCookie:
		out := req.Fields[:0]
		for _, f := range req.Fields {
			if f.Name == "cookie" {
				if f.Value = strings.Trim(l.without(f.Value, ";"), " \t"); f.Value == "" {
					continue
				}
			}
			out = append(out, f)
		}
		clear(req.Fields[len(out):])
		req.Fields = out
	}
}

// without gives a list of pairs without those that have the location's name.
func (l *location) without(list, separator string) string {
	var kept []string
	for pair := range strings.SplitSeq(list, separator) {
		if key, _, _ := strings.Cut(pair, "="); !l.named(key) {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, separator)
}
