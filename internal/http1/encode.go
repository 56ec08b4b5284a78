package http1

import (
	"fmt"
	"strconv"

	"github.com/ambit-mesh/ambit/internal/message"
)

// FieldError is a field, or another part of a head, that cannot be sent.
type FieldError struct {
	// Name of the field, or method, path, authority, protocol, status.
	Name   string
	Reason string
}

// Error names the field. Its value may be a secret.
func (e *FieldError) Error() string {
	return fmt.Sprintf("http1: cannot send %q: %s", e.Name, e.Reason)
}

// appendFields writes field lines. Names are written in lower case: they have no
// case (RFC 9110 section 5.1), proxies have sent them so for years, HTTP/2 knows no
// other form, and it costs nothing. Fields about framing and the connection are
// left out whatever the caller says, because the codec writes its own.
func appendFields(b []byte, fields message.Fields, drop func(name []byte) bool) ([]byte, error) {
	for i := range fields {
		f := &fields[i]
		start := len(b)
		for j := range len(f.Name) {
			c := lower[f.Name[j]]
			if c == 0 {
				return b, &FieldError{Name: f.Name, Reason: "invalid character in its name"}
			}
			b = append(b, c)
		}
		if len(b) == start {
			return b, &FieldError{Reason: "empty name"}
		}
		if drop(b[start:]) {
			b = b[:start]
			continue
		}
		if !only(f.Value, inValue) {
			return b, &FieldError{Name: f.Name, Reason: "invalid character in its value"}
		}
		b = append(b, ": "...)
		b = append(b, f.Value...)
		b = append(b, "\r\n"...)
	}
	return b, nil
}

// oneHop reports fields that only a codec writes.
func oneHop(name []byte) bool {
	switch string(name) {
	case "connection", "content-length", "transfer-encoding", "keep-alive", "proxy-connection", "upgrade", "te", "http2-settings":
		return true
	}
	return false
}

func notInRequest(name []byte) bool {
	return oneHop(name) || string(name) == "host" || string(name) == "expect"
}

func notInTrailer(name []byte) bool { return notInTrailers(string(name)) }

// appendRequest writes the head of a request and says how its body is framed. key,
// unless empty, is that of a WebSocket.
func appendRequest(b []byte, req *message.Request, key string) ([]byte, framing, error) {
	how, err := checkRequest(req)
	if err != nil {
		return b, how, err
	}
	method, target := req.Method, req.Path
	if method == "CONNECT" {
		method, target = "GET", req.Path // RFC 8441 section 5: this is what was meant
		if req.Protocol == "" {
			method, target = "CONNECT", req.Authority
		}
	}
	b = append(b, method...)
	b = append(b, ' ')
	b = append(b, target...)
	b = append(b, " HTTP/1.1\r\nhost: "...)
	b = append(b, req.Authority...)
	b = append(b, "\r\n"...)
	b, err = appendFields(b, req.Fields, notInRequest)
	if err != nil {
		return b, how, err
	}
	te := listHas(req.Fields.Get("te"), "trailers")
	switch {
	case req.Protocol != "":
		b = append(b, "connection: upgrade"...)
		if te {
			b = append(b, ", te\r\nte: trailers"...)
		}
		b = append(b, "\r\nupgrade: "...)
		b = append(b, req.Protocol...)
		b = append(b, "\r\n"...)
		if key != "" {
			b = append(b, "sec-websocket-key: "...)
			b = append(b, key...)
			b = append(b, "\r\n"...)
		}
	case te: // RFC 9110 section 10.1.4
		b = append(b, "connection: te\r\nte: trailers\r\n"...)
	}
	if req.Continue && how != noBody && how != rawBytes {
		b = append(b, "expect: 100-continue\r\n"...)
	}
	switch {
	case how == byLength:
		b = appendLength(b, req.ContentLength)
	case how == byChunks:
		b = append(b, "transfer-encoding: chunked\r\n"...)
	case how == noBody && (method == "POST" || method == "PUT" || method == "PATCH"):
		b = append(b, "content-length: 0\r\n"...) // RFC 9110 section 8.6
	}
	return append(b, "\r\n"...), how, nil
}

// checkRequest checks what goes into the request line, so that nothing can end it
// early, and decides about framing.
func checkRequest(req *message.Request) (framing, error) {
	plainConnect := req.Method == "CONNECT" && req.Protocol == ""
	switch {
	case !isToken(req.Method):
		return noBody, &FieldError{Name: "method", Reason: "not a token"}
	case (req.Authority != "" || plainConnect) && !validAuthority(req.Authority):
		return noBody, &FieldError{Name: "authority", Reason: "not host[:port]"}
	case plainConnect && !hasPort(req.Authority):
		return noBody, &FieldError{Name: "authority", Reason: "no port"}
	case req.Protocol != "" && !validProtocol(req.Protocol):
		return noBody, &FieldError{Name: "protocol", Reason: "not a token"}
	case plainConnect:
		return rawBytes, nil
	case req.Path == "" || req.Path[0] != '/' && (req.Path != "*" || req.Method != "OPTIONS") || !only(req.Path, inTarget):
		return noBody, &FieldError{Name: "path", Reason: "not in origin form, or with an invalid character"}
	case req.Protocol != "":
		return rawBytes, nil
	case req.Body == nil && req.ContentLength > 0:
		return noBody, &FieldError{Name: "content-length", Reason: "there is no body"}
	case req.Body == nil || req.ContentLength == 0:
		return noBody, nil
	case req.ContentLength > 0:
		return byLength, nil
	}
	return byChunks, nil
}

func appendLength(b []byte, n int64) []byte {
	b = append(b, "content-length: "...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, "\r\n"...)
}

// appendStatus writes a status line.
func appendStatus(b []byte, status int) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, reasons[status]...)
	return append(b, "\r\n"...)
}

// appendInterim writes an interim response.
func appendInterim(b []byte, status int, fields message.Fields) ([]byte, error) {
	b, err := appendFields(appendStatus(b, status), fields, oneHop)
	return append(b, "\r\n"...), err
}

// appendChunk writes a chunk. An empty one would be the last.
func appendChunk(b, p []byte) []byte {
	if len(p) == 0 {
		return b
	}
	b = strconv.AppendInt(b, int64(len(p)), 16)
	b = append(b, "\r\n"...)
	b = append(b, p...)
	return append(b, "\r\n"...)
}

// appendLastChunk writes the end of a chunked body. Trailers that must not be
// there are left out.
func appendLastChunk(b []byte, trailers message.Fields) ([]byte, error) {
	b, err := appendFields(append(b, "0\r\n"...), trailers, notInTrailer)
	return append(b, "\r\n"...), err
}

// reasons are for people; a status without one has an empty reason.
var reasons = map[int]string{
	100: "Continue", 101: "Switching Protocols", 103: "Early Hints",
	200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 206: "Partial Content",
	301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified",
	307: "Temporary Redirect", 308: "Permanent Redirect",
	400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
	406: "Not Acceptable", 408: "Request Timeout", 409: "Conflict", 410: "Gone", 411: "Length Required",
	412: "Precondition Failed", 413: "Content Too Large", 414: "URI Too Long", 415: "Unsupported Media Type",
	416: "Range Not Satisfiable", 417: "Expectation Failed", 421: "Misdirected Request",
	422: "Unprocessable Content", 425: "Too Early", 426: "Upgrade Required", 428: "Precondition Required",
	429: "Too Many Requests", 431: "Request Header Fields Too Large",
	500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
	504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}
