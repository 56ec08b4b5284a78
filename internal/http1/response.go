package http1

import (
	"github.com/ambit-mesh/ambit/internal/message"
)

// parseResponse reads the head b of a response, which ends with an empty line,
// into resp. b is changed. The fields that are not resp's are in sp.
func parseResponse(b []byte, spans *[]span, resp *message.Response, sp *special) *fault {
	v, n, f := parseVersion(b)
	if f != nil {
		return f
	}
	// RFC 9112 section 4 wants a space behind the code even without a reason; many
	// servers leave it out, and nothing can be mistaken without it.
	c := b[n:]
	if len(c) < 6 || c[0] != ' ' || !isDigit(c[1]) || c[1] == '0' || !isDigit(c[2]) || !isDigit(c[3]) || c[4] != ' ' && c[4] != '\r' {
		return malformed("malformed status line")
	}
	off := n + 4
	for class[b[off]]&inValue != 0 {
		off++
	}
	if b[off] != '\r' || b[off+1] != '\n' {
		return malformed("control character in the status line")
	}
	*spans, f = scanFields(b, off+2, (*spans)[:0])
	if f != nil {
		return f
	}
	resp.Version = v
	resp.Status = int(c[1]-'0')*100 + int(c[2]-'0')*10 + int(c[3]-'0')
	resp.Fields = collect(string(b), *spans, spareFields, sp)
	if resp.Status < 200 && (sp.codings > 0 || sp.lengths > 0) {
		return malformed("interim response with content") // RFC 9110 section 8.6, RFC 9112 section 6.1
	}
	return nil
}

// persists reports whether the connection stays open after the response, RFC 9112
// section 9.3.
func (sp *special) persists(v message.Version) bool {
	return !sp.close && (v != message.HTTP10 || sp.keepAlive)
}
