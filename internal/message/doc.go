// Package message is what HTTP/1.1 and HTTP/2 have in common, as a proxy handles
// it (RFC 9110): heads with ordered fields, bodies that arrive piece by piece, and
// the two ends of an exchange. internal/http1 and internal/http2 translate their
// wire formats from and to it, so that whoever routes, filters and forwards does
// not know which of them was spoken.
//
//	client ─▶ http1/http2 server conn ─▶ Handler.Serve(Request, Responder)
//	                                        │ forwards
//	                                        ▼
//	          http1/http2 client conn ◀─ RoundTrip(Request) ─▶ Response
//
// A codec delivers only what is well-formed: framing fields (Content-Length,
// Transfer-Encoding) and fields that concern one connection (RFC 9110 section
// 7.6.1) have been checked, acted on and taken out; they are written anew from
// ContentLength, Protocol and trailers.
//
// Upgrades and CONNECT are exchanges whose bodies have no end of their own: after
// Respond with 101 (HTTP/2: 2xx) the request's Body gives the raw bytes that the
// client sends and Responder.Write sends raw bytes, End being a half-close. In a
// RoundTrip Request.Body is sent raw once the other end has accepted, and
// Response.Body gives what it sends.
package message
