package message

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Version of HTTP that a message was sent in.
type Version uint8

// Versions.
const (
	HTTP10 Version = iota + 1
	HTTP11
	HTTP2
)

// String gives the version as logs have it.
func (v Version) String() string {
	switch v {
	case HTTP10:
		return "HTTP/1.0"
	case HTTP11:
		return "HTTP/1.1"
	case HTTP2:
		return "HTTP/2"
	}
	return "HTTP/?"
}

// Request is the head of a request and its body.
type Request struct {
	// Method as it was sent. An extended CONNECT (RFC 8441) is CONNECT with
	// Protocol set.
	Method string
	// Scheme is http or https; HTTP/1.1: http unless the target says otherwise.
	Scheme string
	// Authority is host[:port], from the target or else from Host. It is never
	// among Fields.
	Authority string
	// Path is the target in origin form, query included, or "*". "" for CONNECT
	// without Protocol.
	Path string
	// Protocol is the token of an upgrade, in lower case, such as websocket. ""
	// is none.
	Protocol string
	Fields   Fields
	// Body is nil when there is none.
	Body Body
	// ContentLength of the body, -1 when it is not known before its end.
	ContentLength int64
	// Continue says that the client waits for 100 (Continue) before it sends the
	// body. Reading Body sends it.
	Continue bool
	Version  Version
}

// Tunnel reports whether the bodies are raw bytes once the request is accepted.
func (r *Request) Tunnel() bool { return r.Protocol != "" || r.Method == "CONNECT" }

// Response is the head of a final response and its body.
type Response struct {
	Status int
	Fields Fields
	// Body is nil when there is none.
	Body Body
	// ContentLength of the body, -1 when it is not known before its end. In an
	// answer to HEAD, or 304, what Content-Length said, -1 for nothing.
	ContentLength int64
	// Protocol is the token of the upgrade that was accepted.
	Protocol string
	Version  Version
}

// Body is the content of a message as it arrives. It is used by one goroutine at
// a time, except that Close may be called at any time.
type Body interface {
	// Read gives what has arrived and waits if nothing has. io.EOF means that the
	// body has come whole; any other error that it never will.
	io.Reader
	// Buffered is how many bytes Read gives without waiting.
	Buffered() int
	// Trailers that came behind the body; valid once Read has given io.EOF.
	Trailers() Fields
	// Close ends the interest in the rest. It does not wait; a Read that does ends.
	io.Closer
}

// Unacceptable is what reading a body fails with where the request breaks a rule or a
// limit: whoever reads answers with what it says, and tells of it as the codec would.
type Unacceptable interface {
	error
	Rejection() Rejection
}

// Responder answers one request. Its methods are called by one goroutine at a
// time.
type Responder interface {
	// Inform sends an interim response, status 1xx but 101.
	Inform(status int, fields Fields) error
	// Respond gives the head; of resp, Body is not looked at. It may be held back
	// until Write, Flush or End. A second call is an error.
	Respond(resp *Response) error
	// Write sends a piece of the body. It waits while the client is slow.
	Write(p []byte) (int, error)
	// Flush sends what is held back.
	Flush() error
	// End completes the answer; for a tunnel it half-closes.
	End(trailers Fields) error
	// Break ends the answer so that the client does not take it for complete, and
	// with HTTP/2 tells why. Reason is for the log of the codec's owner.
	Break(reason error)
}

// Handler answers requests. The exchange is over when Serve returns; an answer
// that has not been ended then is broken off. ctx ends when the client has gone
// away.
type Handler interface {
	Serve(ctx context.Context, req *Request, w Responder)
}

// HandlerFunc is a function as a Handler.
type HandlerFunc func(ctx context.Context, req *Request, w Responder)

// Serve implements Handler.
func (f HandlerFunc) Serve(ctx context.Context, req *Request, w Responder) { f(ctx, req, w) }

// Informer takes interim responses, status 1xx but 101, while a request is under
// way. It is called by the goroutine that called RoundTrip, or before that
// returns.
type Informer func(status int, fields Fields)

// Stage says how far a request got that has failed.
type Stage uint8

// Stages.
const (
	// Unprocessed: the other end has provably not acted on the request, so that
	// sending it again repeats nothing.
	Unprocessed Stage = iota + 1
	// Sent: the request may have been acted on; no response had begun.
	Sent
	// Answered: the response broke off.
	Answered
	// Aborted: our own side gave up: ctx ended, or the request's body failed.
	Aborted
)

// ExchangeError is a request that has failed.
type ExchangeError struct {
	Stage Stage
	// Reused says that the connection had served a request before, so that its
	// other end may just have closed it for being idle.
	Reused bool
	// Unread says that nothing of the request's body was taken, so that the request can be
	// sent again as it stands. Of any other, what is left of its body would pass for all.
	Unread bool
	Err    error
}

// Error says what happened and when.
func (e *ExchangeError) Error() string {
	switch e.Stage {
	case Unprocessed:
		return fmt.Sprintf("request not processed: %v", e.Err)
	case Answered:
		return fmt.Sprintf("response broke off: %v", e.Err)
	case Aborted:
		return fmt.Sprintf("request given up: %v", e.Err)
	}
	return fmt.Sprintf("no response: %v", e.Err)
}

// Unwrap gives the cause.
func (e *ExchangeError) Unwrap() error { return e.Err }

// ErrProtocol is the cause of what fails because the other end does not keep to
// the protocol.
var ErrProtocol = errors.New("malformed message")

// LimitIdle is the limit of a Rejection of no request: of a connection that was ended
// because none came.
const LimitIdle = "idle_timeout"

// Rejection is a request that a codec has answered itself.
type Rejection struct {
	// Status that was sent; 0 when the connection or stream was ended without.
	Status int
	// Limit is the name of the limit that was exceeded, in the form that metrics
	// use, such as header_bytes; "" for a message that was malformed.
	Limit string
	// Reason is for people.
	Reason string
}
