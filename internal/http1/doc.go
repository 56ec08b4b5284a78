// Package http1 speaks HTTP/1.1 (RFC 9112) for a proxy: ServerConn takes requests
// from a connection and gives them to a message.Handler, ClientConn sends them on.
// It is our own because the layer-7 data path is what a waypoint does all day, and
// because a proxy needs more strictness than a web server: whatever two parsers
// may read differently is refused, and what is passed on is written anew.
//
// The byte path of one exchange, and who runs it:
//
//	client ── first bytes read into a pooled buffer ──┐  goroutine of the ServerConn
//	          head parsed: one string, sub-sliced     │  (there is no other, except
//	          Handler.Serve                           │  one that waits for the end of
//	          └─ RoundTrip: head and buffered body    │  a transport that tells it)
//	             in one Write ────────────────────────┼─▶ other end
//	             body still coming? a second          │
//	             goroutine sends it on                │
//	             response head parsed ◀───────────────┼── other end
//	          Respond (held back), Write: one Write   │
//	client ◀──────────────────────────────────────────┘
//
// A connection that waits holds no buffer: ServerConn gives its own back after a
// second or two without a request and waits with a few bytes, ClientConn when a
// response has been read.
//
// Bodies are framed by Content-Length, by chunks, or (responses) by the end of the
// connection. Request.Body and Response.Body read straight into the caller's memory
// what does not lie in the buffer yet.
//
// What a peer may not do is in request.go, response.go, framing.go and chunked.go;
// testdata has a case for each. The package knows nothing of routes, pools, retries
// or time of day (a Date field is the business of who makes the answer).
package http1
