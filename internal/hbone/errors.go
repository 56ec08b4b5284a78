package hbone

import (
	"errors"
	"fmt"

	"github.com/ambit-mesh/ambit/internal/h2wire"
)

// ErrCode is an HTTP/2 error code.
type ErrCode = h2wire.ErrCode

// The codes that are used here.
const (
	CodeNo              = h2wire.CodeNo
	CodeProtocol        = h2wire.CodeProtocol
	CodeInternal        = h2wire.CodeInternal
	CodeFlowControl     = h2wire.CodeFlowControl
	CodeSettingsTimeout = h2wire.CodeSettingsTimeout
	CodeStreamClosed    = h2wire.CodeStreamClosed
	CodeFrameSize       = h2wire.CodeFrameSize
	CodeRefusedStream   = h2wire.CodeRefusedStream
	CodeCancel          = h2wire.CodeCancel
	CodeCompression     = h2wire.CodeCompression
	CodeConnect         = h2wire.CodeConnect
	CodeEnhanceYourCalm = h2wire.CodeEnhanceYourCalm
)

// ErrClosed is the end of a connection that was closed on purpose: drained, idle
// or retired.
var ErrClosed = errors.New("tunnel connection closed")

// ErrDraining says that a connection takes no new streams. Nothing of the stream
// was processed, so it may be opened on another connection.
var ErrDraining = errors.New("tunnel connection takes no new streams")

// errAnswered is a second answer to a CONNECT.
var errAnswered = errors.New("stream was answered before")

// appError is a failure of the application's connection.
func appError(err error) error { return fmt.Errorf("application: %w", err) }

// ConnError ends a connection: the peer broke the protocol or exceeded a bound.
type ConnError struct {
	Code   ErrCode
	Reason string
}

// Error says what the peer did.
func (e *ConnError) Error() string { return fmt.Sprintf("tunnel: %s: %s", e.Code, e.Reason) }

func connError(code ErrCode, format string, args ...any) error {
	return &ConnError{Code: code, Reason: fmt.Sprintf(format, args...)}
}

// GoAwayError ends the streams of a connection that the peer told to go away
// with an error.
type GoAwayError struct {
	Code  ErrCode
	Debug string
}

// Error gives the peer's words.
func (e *GoAwayError) Error() string {
	return fmt.Sprintf("tunnel: peer sent GOAWAY %s %q", e.Code, e.Debug)
}

// ResetError is a stream that was reset.
type ResetError struct {
	Code ErrCode
	// Remote says that it was the peer who reset it.
	Remote bool
}

// Error says who reset the stream.
func (e *ResetError) Error() string {
	if e.Remote {
		return fmt.Sprintf("stream reset by peer: %s", e.Code)
	}
	return fmt.Sprintf("stream reset: %s", e.Code)
}

// RefusedError is an answer other than 200 to a CONNECT.
type RefusedError struct {
	Status int
	// ProxyStatus is the peer's Proxy-Status field (RFC 9209), "" if it sent none.
	ProxyStatus string
}

// Error gives status and reason.
func (e *RefusedError) Error() string {
	if e.ProxyStatus == "" {
		return fmt.Sprintf("tunnel refused: status %d", e.Status)
	}
	return fmt.Sprintf("tunnel refused: status %d: %s", e.Status, e.ProxyStatus)
}

// maxReason bounds what is kept of a peer's words, in bytes.
const maxReason = 1 << 10

func clip(s string) string {
	if len(s) > maxReason {
		return s[:maxReason] + "..."
	}
	return s
}

// Unprocessed reports whether err says that the peer has not acted on the stream,
// so that opening it again elsewhere repeats nothing.
func Unprocessed(err error) bool {
	var reset *ResetError
	return errors.Is(err, ErrDraining) || errors.As(err, &reset) && reset.Remote && reset.Code == CodeRefusedStream
}
