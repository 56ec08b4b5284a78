package http1

import (
	"strings"

	"github.com/ambit-mesh/ambit/internal/message"
)

// spareFields is room in a message's Fields for what a proxy adds.
const spareFields = 6

// parseRequest reads the head b of a request, which ends with an empty line, into
// req. b is changed. The fields that are not req's are in sp.
func parseRequest(b []byte, cfg *Config, spans *[]span, req *message.Request, sp *special) (framing, *fault) {
	method := 0
	for lower[b[method]] != 0 {
		method++
	}
	if method == 0 || b[method] != ' ' {
		return noBody, malformed("malformed request line")
	}
	target := method + 1
	end := target
	for class[b[end]]&inTarget != 0 {
		end++
	}
	switch {
	case b[end] == '\r' && b[end+1] == '\n':
		return noBody, malformed("request line without a version")
	case end == target || b[end] != ' ':
		return noBody, malformed("invalid character in the target")
	case end-target > cfg.MaxTargetBytes:
		return noBody, targetTooLong()
	}
	v, n, f := parseVersion(b[end+1:])
	if f != nil {
		return noBody, f
	}
	off := end + 1 + n
	if b[off] != '\r' || b[off+1] != '\n' {
		return noBody, malformed("malformed request line")
	}
	*spans, f = scanFields(b, off+2, (*spans)[:0])
	if f != nil {
		return noBody, f
	}
	head := string(b) // names, values and target are parts of it
	req.Version, req.Method = v, head[:method]
	req.Fields = collect(head, *spans, spareFields, sp)
	if f := setTarget(req, head[target:end], sp); f != nil {
		return noBody, f
	}
	how, f := requestFraming(sp, req)
	if f == nil {
		f = setExpectations(req, how, sp)
	}
	return how, f
}

// setExpectations acts on Expect, TE and Upgrade.
func setExpectations(req *message.Request, how framing, sp *special) *fault {
	if sp.expects > 0 && req.Version != message.HTTP10 {
		if !sameFold(sp.expect, "100-continue") {
			return &fault{status: 417, reason: "unknown expectation"} // RFC 9110 section 10.1.1
		}
		req.Continue = how != noBody
	}
	if sp.te {
		req.Fields.Add("te", "trailers")
	}
	// RFC 9110 section 7.8 lets a server ignore Upgrade, and not in HTTP/1.0 only.
	// With content before the tunnel it would be easy to disagree where that begins.
	if !sp.upgrading || req.Version == message.HTTP10 || how != noBody || req.Method == "CONNECT" {
		return nil
	}
	for rest := sp.upgrade; rest != ""; {
		var p string
		p, rest = cutList(rest)
		switch {
		case p == "":
		case !validProtocol(p):
			return malformed("malformed Upgrade")
		case !sameFold(p, "h2c"): // RFC 9113 section 3.1: obsolete, and not for one hop to decide
			req.Protocol = strings.ToLower(p)
			return nil
		}
	}
	return nil
}

// validProtocol checks name[/version] of an Upgrade, RFC 9110 section 7.8.
func validProtocol(s string) bool {
	name, version, ok := strings.Cut(s, "/")
	return isToken(name) && (!ok || isToken(version))
}

// parseVersion reads the version that b begins with; n is its length. A higher
// minor version is taken for the highest that we know, RFC 9110 section 2.5.
func parseVersion(b []byte) (v message.Version, n int, f *fault) {
	const form = "HTTP/1.1"
	if len(b) < len(form) || string(b[:5]) != "HTTP/" || b[6] != '.' || !isDigit(b[5]) || !isDigit(b[7]) {
		return 0, 0, malformed("malformed version")
	}
	switch {
	case b[5] != '1':
		return 0, 0, &fault{status: 505, reason: "only HTTP/1.1 and HTTP/1.0 are spoken here"}
	case b[7] == '0':
		return message.HTTP10, len(form), nil
	}
	return message.HTTP11, len(form), nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
