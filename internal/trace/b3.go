package trace

import (
	"encoding/hex"
	"strings"
)

// Field names of B3 propagation, https://github.com/openzipkin/b3-propagation,
// in lower case.
const (
	fieldB3             = "b3"
	fieldB3TraceID      = "x-b3-traceid"
	fieldB3SpanID       = "x-b3-spanid"
	fieldB3ParentSpanID = "x-b3-parentspanid"
	fieldB3Sampled      = "x-b3-sampled"
	fieldB3Flags        = "x-b3-flags"
)

// parseB3 reads the single field form: {trace}-{span}[-{sampled}[-{parent}]], or
// the decision alone.
func parseB3(s string) (Context, bool) {
	if len(s) == 1 {
		var c Context
		return c, c.setB3Sampled(s)
	}
	parts := [4]string{}
	n := 0
	for part := range strings.SplitSeq(s, "-") {
		if n == len(parts) {
			return Context{}, false
		}
		parts[n] = part
		n++
	}
	var c Context
	var parent SpanID
	switch {
	case n < 2, !c.setB3IDs(parts[0], parts[1]),
		n > 2 && !c.setB3Sampled(parts[2]),
		n > 3 && (len(parts[3]) != 16 || !digits(parent[:], parts[3])):
		return Context{}, false
	}
	return c, true
}

// setB3IDs takes a trace id of 16 or 32 digits and a span id.
func (c *Context) setB3IDs(trace, span string) bool {
	switch len(trace) {
	case 16:
		if !digits(c.TraceID[8:], trace) {
			return false
		}
	case 32:
		if !digits(c.TraceID[:], trace) {
			return false
		}
	default:
		return false
	}
	return len(span) == 16 && digits(c.SpanID[:], span) && c.Valid()
}

func (c *Context) setB3Sampled(s string) bool {
	switch s {
	case "0":
		c.Decision = NotSampled
	case "1":
		c.Decision = Sampled
	case "d":
		c.Decision, c.Debug = Sampled, true
	default:
		return false
	}
	return true
}

// b3Fields are the values of the form with several fields.
type b3Fields struct{ trace, span, sampled, flags string }

func (f b3Fields) parse() (Context, bool) {
	var c Context
	if (f.trace != "" || f.span != "") && !c.setB3IDs(f.trace, f.span) {
		return Context{}, false
	}
	switch f.sampled {
	case "":
	// Libraries of old said it in words.
	case "0", "false":
		c.Decision = NotSampled
	case "1", "true":
		c.Decision = Sampled
	default:
		return Context{}, false
	}
	switch f.flags {
	case "", "0":
	case "1":
		c.Decision, c.Debug = Sampled, true
	default:
		return Context{}, false
	}
	return c, c.Valid() || c.Decision != Undecided
}

// b3Sampled gives the decision as the single field form has it.
func (c Context) b3Sampled() string {
	switch {
	case c.Debug:
		return "d"
	case c.Decision == Sampled:
		return "1"
	}
	return "0"
}

// b3 gives the single field form.
func (c Context) b3() string {
	b := make([]byte, 0, 51)
	b = hex.AppendEncode(b, c.TraceID[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, c.SpanID[:])
	b = append(b, '-')
	return string(append(b, c.b3Sampled()...))
}
