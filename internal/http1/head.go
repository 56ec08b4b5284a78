package http1

import (
	"bytes"

	"github.com/ambit-mesh/ambit/internal/message"
)

// span is where a field lies in a head.
type span struct{ name, nameEnd, value, valueEnd int }

// headScan finds the end of a head whose bytes come piece by piece. It looks at
// each byte once.
type headScan struct {
	request bool // the first line holds a target, which has a limit of its own
	pos     int  // looked at so far
	line    int  // start of the line
	lines   int  // lines that have ended, the empty one not counted
}

// Room for method, version and spaces beside a target.
const maxRequestLineRest = 64

// find gives the length of the head that b begins with, 0 if it has not come whole.
func (h *headScan) find(b []byte, cfg *Config) (int, *fault) {
	for h.pos < len(b) {
		i := bytes.IndexByte(b[h.pos:], '\n')
		if i < 0 {
			h.pos = len(b)
			break
		}
		i += h.pos
		h.pos = i + 1
		if i == h.line || b[i-1] != '\r' {
			// RFC 9112 section 2.2 lets a recipient take a bare LF for a line end.
			// What a proxy before us does not take for one, too, is a way to smuggle.
			return 0, malformed("line ends without CR")
		}
		if i-1 == h.line {
			if h.pos > cfg.MaxHeaderBytes {
				return 0, tooManyBytes()
			}
			return h.pos, nil
		}
		h.line = i + 1
		if h.lines++; h.lines-1 > cfg.MaxFields {
			return 0, tooManyFields()
		}
	}
	switch {
	case h.request && h.lines == 0 && len(b) > cfg.MaxTargetBytes+maxRequestLineRest:
		return 0, targetTooLong()
	case len(b) >= cfg.MaxHeaderBytes:
		return 0, tooManyBytes()
	}
	return 0, nil
}

// scanFields finds the fields in b, which ends with an empty line, from off on and
// makes their names lower case in place.
func scanFields(b []byte, off int, spans []span) ([]span, *fault) {
	for end := len(b) - 2; off < end; {
		i := off
		for c := lower[b[i]]; c != 0; c = lower[b[i]] {
			b[i] = c
			i++
		}
		if i == off || b[i] != ':' {
			return spans, badName(b[off:], i-off)
		}
		sp := span{name: off, nameEnd: i}
		for i++; b[i] == ' ' || b[i] == '\t'; i++ {
		}
		sp.value = i
		for class[b[i]]&inValue != 0 {
			i++
		}
		if b[i] != '\r' || b[i+1] != '\n' {
			return spans, malformed("control character in a field value")
		}
		off = i + 2
		for i > sp.value && (b[i-1] == ' ' || b[i-1] == '\t') {
			i--
		}
		sp.valueEnd = i
		spans = append(spans, sp)
	}
	return spans, nil
}

// badName says what is wrong with a field line whose name stops after n bytes.
func badName(line []byte, n int) *fault {
	blank := line[n] == ' ' || line[n] == '\t'
	switch {
	case n == 0 && blank:
		return malformed("field line begins with white space") // RFC 9112 sections 2.2 and 5.2
	case n == 0 && line[0] == ':':
		return malformed("empty field name")
	case blank:
		return malformed("white space behind a field name") // RFC 9112 section 5.1
	case line[n] == '\r':
		return malformed("field line without a colon")
	}
	return malformed("invalid character in a field name")
}

// special is what fields that concern framing and the connection say. They do not
// get into a message's Fields.
type special struct {
	host, length, coding    string
	hosts, lengths, codings int
	upgrade, expect         string
	expects                 int
	te                      bool // trailers are welcome
	close, keepAlive        bool
	upgrading               bool     // Connection: upgrade
	nominated               []string // other options of Connection
}

// collect turns spans of head into fields, those of special aside. room is for
// fields that will be added.
func collect(head string, spans []span, room int, sp *special) message.Fields {
	fields := make(message.Fields, 0, len(spans)+room)
	for i := range spans {
		s := &spans[i]
		name, value := head[s.name:s.nameEnd], head[s.value:s.valueEnd]
		switch name {
		case "host":
			sp.host = value
			sp.hosts++
		case "content-length":
			sp.length = value
			sp.lengths++
		case "transfer-encoding":
			sp.coding = join(sp.coding, value, sp.codings)
			sp.codings++
		case "connection":
			sp.options(value)
		case "upgrade":
			sp.upgrade = join(sp.upgrade, value, len(sp.upgrade))
		case "te":
			sp.te = sp.te || listHas(value, "trailers")
		case "expect":
			sp.expect = join(sp.expect, value, sp.expects)
			sp.expects++
		case "keep-alive", "proxy-connection", "http2-settings":
			// RFC 9110 section 7.6.1 and RFC 7540 section 3.2.1: for one connection only.
		default:
			fields = append(fields, message.Field{Name: name, Value: value})
		}
	}
	return sp.strip(fields)
}

func join(have, more string, n int) string {
	if n == 0 {
		return more
	}
	return have + "," + more
}

// options takes in one Connection field line, RFC 9110 section 7.6.1.
func (sp *special) options(value string) {
	for value != "" {
		var o string
		o, value = cutList(value)
		switch {
		case o == "":
		case sameFold(o, "close"):
			sp.close = true
		case sameFold(o, "keep-alive"):
			sp.keepAlive = true
		case sameFold(o, "upgrade"):
			sp.upgrading = true
		case sameFold(o, "te"), sameFold(o, "proxy-connection"), sameFold(o, "http2-settings"):
		default:
			sp.nominated = append(sp.nominated, o)
		}
	}
}

// strip removes the fields that Connection nominates.
func (sp *special) strip(fields message.Fields) message.Fields {
	if len(sp.nominated) == 0 {
		return fields
	}
	kept := fields[:0]
	for _, f := range fields {
		if !sp.nominates(f.Name) {
			kept = append(kept, f)
		}
	}
	return kept
}

func (sp *special) nominates(name string) bool {
	for _, o := range sp.nominated {
		if sameFold(o, name) {
			return true
		}
	}
	return false
}

// cutList gives the first element of a list (RFC 9110 section 5.6.1) and the rest.
func cutList(s string) (first, rest string) {
	for i := range len(s) {
		if s[i] == ',' {
			return trim(s[:i]), s[i+1:]
		}
	}
	return trim(s), ""
}

func listHas(s, want string) bool {
	for s != "" {
		var e string
		if e, s = cutList(s); sameFold(e, want) {
			return true
		}
	}
	return false
}
