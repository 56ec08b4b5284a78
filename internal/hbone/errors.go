package hbone

import (
	"errors"
	"fmt"
)

// ErrCode is an HTTP/2 error code, RFC 9113 section 7.
type ErrCode uint32

// The codes that are used here.
const (
	CodeNo              ErrCode = 0x0
	CodeProtocol        ErrCode = 0x1
	CodeInternal        ErrCode = 0x2
	CodeFlowControl     ErrCode = 0x3
	CodeSettingsTimeout ErrCode = 0x4
	CodeStreamClosed    ErrCode = 0x5
	CodeFrameSize       ErrCode = 0x6
	CodeRefusedStream   ErrCode = 0x7
	CodeCancel          ErrCode = 0x8
	CodeCompression     ErrCode = 0x9
	CodeConnect         ErrCode = 0xa
	CodeEnhanceYourCalm ErrCode = 0xb
)

var codeNames = [...]string{
	"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
	"FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
}

// String gives the name of RFC 9113.
func (c ErrCode) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("error code %#x", uint32(c))
}

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
