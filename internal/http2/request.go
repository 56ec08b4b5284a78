package http2

import (
	"strings"

	"github.com/ambit-mesh/ambit/internal/http2/hpack"
	"github.com/ambit-mesh/ambit/internal/message"
)

// pseudo are the pseudo-header fields of a block and what else of it has a meaning
// of its own.
type pseudo struct {
	method, scheme, authority, path, status, protocol string

	seen      uint8  // pseudo-header fields that came, by class
	host      string // "" when there was none
	hosts     int
	cookies   int
	expect    bool  // 100-continue
	length    int64 // Content-Length; -1 for none
	malformed string
}

func (p *pseudo) fail(reason string) {
	if p.malformed == "" {
		p.malformed = reason
	}
}

// parseBlock sorts the fields of a block: those that stay with the message are
// appended to out. It is RFC 9113 sections 8.1 to 8.3 as far as they hold for
// every block.
func parseBlock(fields []hpack.Field, out message.Fields) (p pseudo, _ message.Fields) {
	p.length = -1
	regular := false
	for i := range fields {
		f := &fields[i]
		if f.Class >= fieldMethod && f.Class <= fieldProtocol {
			if regular {
				p.fail("pseudo-header field behind a regular one")
			}
			p.pseudo(f)
			continue
		}
		regular = true
		switch f.Class {
		case fieldPlain:
			out = append(out, message.Field{Name: f.Name, Value: f.Value})
		case fieldCookie:
			p.cookies++
			out = append(out, message.Field{Name: f.Name, Value: f.Value})
		case fieldHost:
			if p.hosts++; p.hosts > 1 && !strings.EqualFold(p.host, f.Value) {
				p.fail("host fields that differ")
			}
			p.host = f.Value
		case fieldContentLength:
			n := length(f.Value)
			if n < 0 || p.length >= 0 && p.length != n {
				p.fail("content-length")
			}
			p.length = n
		case fieldExpect:
			p.expect = strings.EqualFold(f.Value, "100-continue")
			if !p.expect {
				out = append(out, message.Field{Name: f.Name, Value: f.Value})
			}
		case fieldHop:
			p.fail("field " + f.Name + " concerns one connection")
		default:
			p.fail("field " + clip([]byte(f.Name)))
		}
	}
	if p.cookies > 1 {
		out = joinCookies(out)
	}
	return p, out
}

func (p *pseudo) pseudo(f *hpack.Field) {
	bit := uint8(1) << (f.Class - fieldMethod)
	if p.seen&bit != 0 {
		p.fail("field " + f.Name + " twice")
	}
	p.seen |= bit
	switch f.Class {
	case fieldMethod:
		p.method = f.Value
	case fieldScheme:
		p.scheme = f.Value
	case fieldAuthority:
		p.authority = f.Value
	case fieldPath:
		p.path = f.Value
	case fieldStatus:
		p.status = f.Value
	case fieldProtocol:
		p.protocol = f.Value
	}
}

// joinCookies undoes the splitting of RFC 9113 section 8.2.3.
func joinCookies(fields message.Fields) message.Fields {
	var crumbs []string
	for i := range fields {
		if fields[i].Name == "cookie" {
			crumbs = append(crumbs, fields[i].Value)
		}
	}
	fields.Set("cookie", strings.Join(crumbs, "; "))
	return fields
}

// parseRequest makes the head of a request of a block. With end no body follows. A
// reason is given for what is malformed.
func parseRequest(req *message.Request, fields []hpack.Field, end bool) (reason string) {
	p, out := parseBlock(fields, req.Fields)
	req.Version, req.Fields = message.HTTP2, out
	req.Method, req.Scheme, req.Path, req.Authority, req.Protocol = p.method, p.scheme, p.path, p.authority, strings.ToLower(p.protocol)
	if p.hosts > 0 {
		switch {
		case req.Authority == "":
			req.Authority = p.host
		case !strings.EqualFold(p.host, req.Authority):
			// What this proxy decides by one and a server answers by the other is an
			// attack. RFC 9113 section 8.3.1.
			p.fail("host and :authority differ")
		}
	}
	p.target()
	switch {
	case p.malformed == "" && req.Authority == "":
		p.fail("no authority")
	case end && p.length > 0:
		p.fail("content-length without content")
	}
	req.ContentLength = p.length
	if end {
		req.ContentLength = 0
	} else {
		req.Continue = p.expect
	}
	if p.malformed == "" && req.Tunnel() {
		// RFC 9110 section 9.3.6: a length has no meaning.
		req.ContentLength, req.Continue = -1, false
	}
	return p.malformed
}

// target checks which pseudo-header fields a request has, RFC 9113 sections 8.3.1
// and 8.5 and RFC 8441 section 4.
func (p *pseudo) target() {
	connect := p.method == "CONNECT"
	switch {
	case p.malformed != "":
	case p.status != "":
		p.fail("field :status in a request")
	case p.method == "":
		p.fail("no :method")
	case p.protocol != "" && !connect:
		p.fail("field :protocol without CONNECT")
	case connect && p.protocol == "":
		if p.scheme != "" || p.path != "" {
			p.fail("CONNECT with :scheme or :path")
		} else if i := strings.LastIndexByte(p.authority, ':'); i < 0 || i == len(p.authority)-1 || strings.HasSuffix(p.authority, "]") {
			p.fail("CONNECT without a port")
		}
	case p.scheme == "":
		p.fail("no :scheme")
	case p.path == "":
		p.fail("no :path")
	case p.path == "*" && p.method != "OPTIONS":
		p.fail(":path * without OPTIONS")
	}
}

// parseTrailers gives the fields behind a body, RFC 9113 section 8.1.
func parseTrailers(fields []hpack.Field) (message.Fields, string) {
	p, out := parseBlock(fields, nil)
	if p.seen != 0 {
		p.fail("pseudo-header field in trailers")
	}
	return out, p.malformed
}

// parseResponse makes the head of a response, interim ones included, of a block.
func parseResponse(fields []hpack.Field, end bool, method string) (resp *message.Response, reason string) {
	p, out := parseBlock(fields, make(message.Fields, 0, len(fields)))
	switch {
	case p.malformed != "":
	case p.status == "":
		p.fail("no :status")
	case p.seen != 1<<(fieldStatus-fieldMethod):
		p.fail("pseudo-header field of a request")
	}
	if p.malformed != "" {
		return nil, p.malformed
	}
	status := int(p.status[0]-'0')*100 + int(p.status[1]-'0')*10 + int(p.status[2]-'0')
	resp = &message.Response{Status: status, Fields: out, ContentLength: p.length, Version: message.HTTP2}
	switch {
	case status == 101:
		return nil, "status 101" // RFC 9113 section 8.6
	case status < 200 && end:
		return nil, "interim response that ends the stream"
	case status < 200 || method == "HEAD" || status == 304:
	case end && p.length > 0 || status == 204 && p.length > 0:
		return nil, "content-length without content"
	case end || status == 204:
		resp.ContentLength = 0
	}
	return resp, ""
}

// bodiless reports whether a final response has no content whatever its fields say,
// RFC 9110 section 6.4.1.
func bodiless(method string, status int) bool {
	return method == "HEAD" || status == 204 || status == 304 || status < 200
}
