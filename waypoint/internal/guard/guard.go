package guard

import (
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/ambit-mesh/ambit/internal/message"
)

// Fault is why a field is not let in; it is the value of a metric's label.
type Fault string

// Faults.
const (
	// Fine is no fault.
	Fine Fault = ""
	// BadName: not a token (RFC 9110 section 5.1).
	BadName Fault = "name"
	// BadValue: not a field value (RFC 9110 section 5.5).
	BadValue Fault = "value"
	// Pseudo: a pseudo-header field (RFC 9113 section 8.3) or Host, which is one.
	Pseudo Fault = "pseudo"
	// Connection: about one connection (RFC 9110 section 7.6.1), or about where
	// the message ends (section 8.6, RFC 9112 section 6).
	Connection Fault = "connection"
	// TooLarge: a name or value beyond MaxField bytes.
	TooLarge Fault = "size"
)

// MaxField bounds a name and a value, each.
const MaxField = 16 << 10

// MaxFields bounds how many fields one answer may name.
const MaxFields = 128

// Name gives a field's name in lower case. It may be removed, set or read by who
// does not send messages himself.
func Name(name string) (string, Fault) {
	switch {
	case strings.HasPrefix(name, ":"):
		return "", Pseudo
	case len(name) > MaxField:
		return "", TooLarge
	case !httpguts.ValidHeaderFieldName(name):
		return "", BadName
	}
	name = strings.ToLower(name)
	switch name {
	case "host":
		return "", Pseudo
	case "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
		"content-length", "http2-settings", "expect":
		return "", Connection
	}
	return name, Fine
}

// Value gives a field's value without the white space around it.
func Value(value string) (string, Fault) {
	value = strings.Trim(value, " \t")
	switch {
	case len(value) > MaxField:
		return "", TooLarge
	case !httpguts.ValidHeaderFieldValue(value):
		return "", BadValue
	}
	return value, Fine
}

// Field gives a field line that may be put into a message.
func Field(name, value string) (message.Field, Fault) {
	n, fault := Name(name)
	if fault != Fine {
		return message.Field{}, fault
	}
	v, fault := Value(value)
	if fault != Fine {
		return message.Field{}, fault
	}
	return message.Field{Name: n, Value: v}, Fine
}

// UTF8 gives text that protobuf strings can hold: what is not UTF-8 becomes an
// exclamation mark, as authorization services expect of Envoy.
func UTF8(s string) string { return strings.ToValidUTF8(s, "!") }
