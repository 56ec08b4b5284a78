package http2

import (
	"fmt"
	"strings"

	"github.com/ambit-mesh/ambit/internal/http2/hpack"
	"github.com/ambit-mesh/ambit/internal/message"
)

// Classes of fields. A field that comes from the HPACK table was looked at when it
// got in.
const (
	fieldPlain uint8 = iota
	fieldBad         // what RFC 9113 section 8.2 forbids, or a pseudo-header field with no valid value
	fieldHop         // concerns one connection, section 8.2.2
	fieldMethod
	fieldScheme
	fieldAuthority
	fieldPath
	fieldStatus
	fieldProtocol
	fieldHost
	fieldCookie
	fieldContentLength
	fieldExpect
)

var classes = hpack.NewClasses(classify)

// classify applies RFC 9113 sections 8.2 and 8.3 to one field.
func classify(name, value string) uint8 {
	if !validValue(value) || name == "" {
		return fieldBad
	}
	ok, class := true, fieldPlain
	switch name {
	case ":method":
		ok, class = validToken(value), fieldMethod
	case ":scheme":
		ok, class = value == "http" || value == "https", fieldScheme
	case ":authority":
		ok, class = validAuthority(value), fieldAuthority
	case ":path":
		ok, class = validPath(value), fieldPath
	case ":status":
		ok, class = validStatus(value), fieldStatus
	case ":protocol":
		ok, class = validToken(value), fieldProtocol
	case "host":
		ok, class = validAuthority(value), fieldHost
	case "cookie":
		class = fieldCookie
	case "content-length":
		class = fieldContentLength
	case "expect":
		class = fieldExpect
	case "te":
		if !strings.EqualFold(value, "trailers") {
			class = fieldHop
		}
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		class = fieldHop
	default:
		ok = validName(name)
	}
	if !ok {
		return fieldBad
	}
	return class
}

// Properties of bytes.
const (
	nameByte  = 1 << iota // token, and not an upper-case letter
	tokenByte             // RFC 9110 section 5.6.2
	pathByte
	hostByte
)

var bytesOf = func() (t [256]uint8) {
	for c := 0x21; c < 0x7f; c++ {
		if !strings.ContainsRune("\"(),/:;<=>?@[\\]{}", rune(c)) {
			t[c] |= tokenByte
			if c < 'A' || c > 'Z' {
				t[c] |= nameByte
			}
		}
		if c != '#' {
			t[c] |= pathByte
		}
		// RFC 3986 section 3.2.2: reg-name and IP-literal, no userinfo.
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-._~!$&'()*+,;=%[]:", rune(c)) {
			t[c] |= hostByte
		}
	}
	for c := 0x80; c < 0x100; c++ {
		t[c] |= pathByte // not in RFC 3986, but sent and understood
	}
	return t
}()

func all(s string, property uint8) bool {
	for i := range len(s) {
		if bytesOf[s[i]]&property == 0 {
			return false
		}
	}
	return s != ""
}

func validName(s string) bool  { return all(s, nameByte) }
func validToken(s string) bool { return all(s, tokenByte) }

// validValue applies RFC 9113 section 8.2.1.
func validValue(s string) bool {
	if s == "" {
		return true
	}
	if c := s[0]; c == ' ' || c == '\t' {
		return false
	}
	if c := s[len(s)-1]; c == ' ' || c == '\t' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c == 0 || c == '\r' || c == '\n' {
			return false
		}
	}
	return true
}

// validPath takes the origin form and "*", RFC 9113 section 8.3.1.
func validPath(s string) bool { return s == "*" || all(s, pathByte) && s[0] == '/' }

func validStatus(s string) bool {
	return len(s) == 3 && s[0] >= '1' && s[0] <= '9' && s[1] >= '0' && s[1] <= '9' && s[2] >= '0' && s[2] <= '9'
}

// validAuthority takes host[:port]. Of the host it only makes sure that nobody
// reads something else into it.
func validAuthority(s string) bool {
	if !all(s, hostByte) {
		return false
	}
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		host, port = s[:i], s[i+1:]
	}
	for i := range len(port) {
		if port[i] < '0' || port[i] > '9' || i > 4 {
			return false
		}
	}
	if strings.HasPrefix(host, "[") {
		return len(host) > 3 && strings.IndexByte(host, ']') == len(host)-1 && strings.LastIndexByte(host, '[') == 0
	}
	return host != "" && !strings.ContainsAny(host, "[]:")
}

// checkFields makes sure that fields can be sent: nothing in them begins another
// field.
func checkFields(fields message.Fields) error {
	for i := range fields {
		if f := &fields[i]; !validName(f.Name) || !validValue(f.Value) {
			return fmt.Errorf("field %q cannot be sent", f.Name)
		}
	}
	return nil
}

// sendable reports whether a field goes out as it is: framing is written anew from
// the message, and fields of one connection do not leave it.
func sendable(f *message.Field) bool {
	switch f.Name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade", "host", "content-length", "expect":
		return false
	case "te":
		return strings.EqualFold(f.Value, "trailers")
	}
	return true
}

// length parses a Content-Length; -1 for one that is none.
func length(s string) int64 {
	if s == "" || len(s) > 18 {
		return -1
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return -1
		}
		n = 10*n + int64(s[i]-'0')
	}
	return n
}
