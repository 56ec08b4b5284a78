// Package http2 speaks HTTP/2 (RFC 9113) on both sides of a proxy and hands over
// exchanges as internal/message has them. It is made for this one job: no server
// push, no priorities, no TLS; connections come ready from the tunnel (prior
// knowledge, section 3.3).
//
// The path of one exchange, and who runs it:
//
//	client ─▶ read loop: parse all frames that one Read gave, then  ─┐ goroutine of
//	          start a handler for each request among them            ─┘ the connection
//	              │ (a parked worker of the connection takes it)
//	              ▼
//	          Handler.Serve ─▶ ClientConn.RoundTrip                  ─┐
//	              HEADERS, and the body if it is there: one Write     │ goroutine of
//	              │ wait for the stream                               │ the worker
//	          Responder: HEADERS, DATA, END_STREAM: one Write        ─┘
//	              │ (somebody else writes? appended to what he writes next)
//	              ▼
//	          connection
//
// Frames are put together under the lock of their connection, in c.pending, which
// orders them; whoever finds nobody writing writes all of it, outside the lock.
// With several streams active the writer first lets other goroutines run, so that
// what they have to say goes into the same write.
//
// Only a request body that is not there yet costs a goroutine more on the client's
// side. What a slow reader does not take is bounded by its stream's window, which
// grows for readers that keep up, and the windows of all streams together never
// exceed the connection's: nobody waits because somebody else does not read.
package http2
