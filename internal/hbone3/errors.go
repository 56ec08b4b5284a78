package hbone3

import (
	"context"
	"errors"
	"fmt"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// ErrUnreachable is a peer that does not answer over QUIC at all: UDP may be
// blocked on the way, or nobody listens. Whether HTTP/2 reaches it is another
// matter.
var ErrUnreachable = errors.New("no answer over QUIC")

// ErrBusy is a peer that takes no connection over QUIC now.
var ErrBusy = errors.New("the peer takes no connection over QUIC now")

// TooLargeError is a datagram that the path does not take.
type TooLargeError struct {
	Size, Max int // bytes
}

// Error names both.
func (e *TooLargeError) Error() string {
	return fmt.Sprintf("datagram of %d bytes: the path takes at most %d", e.Size, e.Max)
}

// tlsError is the range of codes that TLS alerts have, RFC 9001 section 4.8.
func tlsError(code quic.TransportErrorCode) bool { return code >= 0x100 && code < 0x200 }

// mapped gives errors of the library the types that those of internal/hbone have.
func mapped(err error) error {
	if err == nil {
		return nil
	}
	var stream *quic.StreamError
	var h3 *http3.Error
	var transport *quic.TransportError
	var app *quic.ApplicationError
	var shake *quic.HandshakeTimeoutError
	var idle *quic.IdleTimeoutError
	switch {
	case errors.As(err, &h3):
		return code(h3.ErrorCode, h3.Remote, h3.ErrorMessage)
	case errors.As(err, &stream):
		return code(http3.ErrCode(stream.ErrorCode), stream.Remote, "")
	case errors.As(err, &shake):
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	case errors.As(err, &idle):
		return &hbone.ConnError{Code: hbone.CodeConnect, Reason: "the peer is gone: " + idle.Error()}
	case errors.As(err, &transport) && tlsError(transport.ErrorCode):
		return &hbone.HandshakeError{Err: err}
	case errors.As(err, &transport) && transport.Remote && transport.ErrorCode == quic.ConnectionRefused:
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case errors.As(err, &transport):
		return &hbone.ConnError{Code: hbone.CodeProtocol, Reason: transport.Error()}
	case errors.As(err, &app):
		return code(http3.ErrCode(app.ErrorCode), app.Remote, app.ErrorMessage)
	}
	return err
}

func code(c http3.ErrCode, remote bool, message string) error {
	switch c {
	case http3.ErrCodeNoError:
		return hbone.ErrClosed
	case http3.ErrCodeRequestRejected:
		return &hbone.ResetError{Code: hbone.CodeRefusedStream, Remote: remote}
	case http3.ErrCodeRequestCanceled, http3.ErrCodeConnectError:
		return &hbone.ResetError{Code: hbone.CodeCancel, Remote: remote}
	}
	return &hbone.ConnError{Code: hbone.CodeProtocol, Reason: fmt.Sprintf("%s %s", c, message)}
}

// dialError tells a peer that nothing comes from from one that says no.
func dialError(ctx context.Context, err error) error {
	var idle *quic.IdleTimeoutError
	switch {
	case errors.As(err, &idle), ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return mapped(err)
}

// Unreachable reports whether err says that QUIC does not get through.
func Unreachable(err error) bool { return errors.Is(err, ErrUnreachable) }

// Unavailable reports whether err says that there is no connection over QUIC, and
// nothing against one over TCP.
func Unavailable(err error) bool { return Unreachable(err) || errors.Is(err, ErrBusy) }
