package http1

import (
	"math"

	"github.com/ambit-mesh/ambit/internal/message"
)

// framing is how the end of a body is found.
type framing uint8

const (
	noBody framing = iota
	byLength
	byChunks
	byClose // the body ends with the connection
	rawBytes
)

// codings checks Transfer-Encoding, RFC 9112 section 6.1. One chunked and nothing
// else is what all recipients agree about.
func (sp *special) chunked() (bool, *fault) {
	if sp.codings == 0 {
		return false, nil
	}
	if sp.codings == 1 && sameFold(sp.coding, "chunked") {
		return true, nil
	}
	n, other, last := 0, false, ""
	for rest := sp.coding; rest != ""; n++ {
		last, rest = cutList(rest)
		if !isToken(last) {
			return false, malformed("malformed Transfer-Encoding")
		}
		other = other || !sameFold(last, "chunked")
	}
	if !other || n == 0 {
		return false, malformed("malformed Transfer-Encoding")
	}
	if !sameFold(last, "chunked") {
		return false, malformed("Transfer-Encoding does not end with chunked")
	}
	return false, &fault{status: 501, reason: "unknown transfer coding"}
}

// contentLength checks Content-Length, RFC 9112 section 6.3 and RFC 9110 section
// 8.6; -1 is none. A repeated value is refused even where it is the same.
func (sp *special) contentLength() (int64, *fault) {
	switch sp.lengths {
	case 0:
		return -1, nil
	case 1:
	default:
		return 0, malformed("more than one Content-Length")
	}
	if sp.length == "" {
		return 0, malformed("empty Content-Length")
	}
	n := int64(0)
	for i := range len(sp.length) {
		d := int64(sp.length[i]) - '0'
		if d < 0 || d > 9 {
			return 0, malformed("Content-Length is not a number")
		}
		if n > (math.MaxInt64-d)/10 {
			return 0, malformed("Content-Length is too large")
		}
		n = n*10 + d
	}
	return n, nil
}

// Fields that no sender may nominate in Connection, because they are meant for all
// recipients (RFC 9110 section 7.6.1) and a request without them is another one.
// The RFC has us remove whatever else is nominated, Forwarded and X-Forwarded-For
// too: an attacker can strip his own fields that way, and nobody else's, as long
// as who adds such fields takes out Connection, as we do.
var essential = []string{
	"host", "content-length", "transfer-encoding", "content-type", "content-encoding",
	"authorization", "cookie", "expect", "cache-control",
}

// requestFraming decides about the body of a request.
func requestFraming(sp *special, req *message.Request) (framing, *fault) {
	for _, name := range essential {
		if len(sp.nominated) > 0 && sp.nominates(name) {
			return noBody, malformed("Connection names a field that concerns every recipient")
		}
	}
	chunked, f := sp.chunked()
	if f != nil {
		return noBody, f
	}
	n, f := sp.contentLength()
	switch {
	case f != nil:
		return noBody, f
	case chunked && n >= 0:
		return noBody, malformed("both Content-Length and Transfer-Encoding")
	case chunked && req.Version == message.HTTP10:
		return noBody, malformed("Transfer-Encoding in HTTP/1.0")
	case req.Method == "CONNECT" && (chunked || n > 0):
		// RFC 9110 section 9.3.6 gives it no meaning; others may take it for tunnel bytes.
		return noBody, malformed("CONNECT with content")
	case chunked:
		req.ContentLength = -1
		return byChunks, nil
	case n > 0:
		req.ContentLength = n
		return byLength, nil
	}
	return noBody, nil
}

// responseFraming decides about the body of a final response, RFC 9112 section 6.3.
// sure is false if the other end may send more than it should, so that the
// connection cannot be used again.
func responseFraming(sp *special, method string, resp *message.Response) (how framing, sure bool, f *fault) {
	chunked, f := sp.chunked()
	if f != nil {
		return noBody, false, f
	}
	n, f := sp.contentLength()
	switch {
	case f != nil:
		return noBody, false, f
	case chunked && n >= 0:
		return noBody, false, malformed("both Content-Length and Transfer-Encoding")
	case chunked && resp.Version == message.HTTP10:
		return noBody, false, malformed("Transfer-Encoding in HTTP/1.0")
	}
	resp.ContentLength = n
	switch {
	case method == "HEAD" || resp.Status == 304:
		return noBody, true, nil
	case resp.Status == 204:
		resp.ContentLength = 0
		return noBody, !chunked && n <= 0, nil
	case chunked:
		return byChunks, true, nil
	case n > 0:
		return byLength, true, nil
	case n == 0:
		return noBody, true, nil
	}
	return byClose, false, nil
}
