package http2

import (
	"errors"
	"fmt"

	"github.com/ambit-mesh/ambit/internal/h2wire"
	"github.com/ambit-mesh/ambit/internal/message"
)

// ErrCode is an HTTP/2 error code.
type ErrCode = h2wire.ErrCode

// ErrClosed is the end of a connection that was closed on purpose: drained, idle
// or closed by its owner.
var ErrClosed = errors.New("connection closed")

var (
	errDraining   = errors.New("connection takes no new requests")
	errFull       = errors.New("as many streams are open as the peer takes")
	errSlow       = errors.New("peer does not take what was sent before")
	errNoConnect  = errors.New("peer does not take extended CONNECT (RFC 8441)")
	errAnswered   = errors.New("request was answered before")
	errUnanswered = errors.New("no response was begun")
	errEnded      = errors.New("response has been ended")
	errLength     = errors.New("body does not have the length that was announced")
	errBodyClosed = errors.New("body has been closed")
	errCanceled   = errors.New("stream was given up")
)

// ConnError ends a connection: the peer broke the protocol or exceeded a bound.
type ConnError struct {
	Code   ErrCode
	Reason string
}

// Error says what the peer did.
func (e *ConnError) Error() string { return fmt.Sprintf("http2: %s: %s", e.Code, e.Reason) }

func connError(code ErrCode, format string, args ...any) error {
	return &ConnError{Code: code, Reason: fmt.Sprintf(format, args...)}
}

// GoAwayError is how a connection ended whose peer told it to go away with an
// error.
type GoAwayError struct {
	Code  ErrCode
	Debug string
}

// Error gives the peer's words.
func (e *GoAwayError) Error() string {
	return fmt.Sprintf("http2: peer sent GOAWAY %s %q", e.Code, e.Debug)
}

// ResetError is a stream that the peer has reset.
type ResetError struct{ Code ErrCode }

// Error says with which code.
func (e *ResetError) Error() string { return fmt.Sprintf("stream reset by peer: %s", e.Code) }

// malformed is what the peer sent on a stream and RFC 9113 section 8 forbids.
func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", message.ErrProtocol, fmt.Sprintf(format, args...))
}

// maxReason bounds what is kept of a peer's words, in bytes.
const maxReason = 1 << 10

func clip(s []byte) string {
	if len(s) > maxReason {
		return string(s[:maxReason]) + "..."
	}
	return string(s)
}
