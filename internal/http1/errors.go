package http1

import (
	"errors"

	"github.com/ambit-mesh/ambit/internal/message"
)

var (
	// errClosed is what a connection or a body gives after Close.
	errClosed = errors.New("closed")
	// errBusy is a connection whose exchange is not over.
	errBusy = errors.New("connection is busy")
	// errGone is a client that did not wait for its answer.
	errGone = errors.New("client has gone away")
	// errAnswered is a second answer, or more of one that has ended.
	errAnswered = errors.New("http1: the request has been answered")
	// errNotAnswered is content before its head.
	errNotAnswered = errors.New("http1: no response head yet")
	// errNotAccepted is the content of a tunnel that the answer has not opened.
	errNotAccepted = errors.New("http1: the tunnel was not accepted")
	// errLength is content that does not have the length that was announced.
	errLength = errors.New("content and its announced length differ")
)

// fault is what is wrong with a message, and how a request with it is answered.
type fault struct {
	status int
	limit  string // as in message.Rejection
	reason string
}

func (f *fault) Error() string { return f.reason }

// Unwrap makes every fault an ErrProtocol: whoever forwards need not know more.
func (f *fault) Unwrap() error { return message.ErrProtocol }

// Rejection implements message.Unacceptable.
func (f *fault) Rejection() message.Rejection {
	return message.Rejection{Status: f.status, Limit: f.limit, Reason: f.reason}
}

func malformed(reason string) *fault { return &fault{status: 400, reason: reason} }

// What exceeds a limit.
func tooManyBytes() *fault {
	return &fault{status: 431, limit: "header_bytes", reason: "head too large"}
}

func tooManyFields() *fault {
	return &fault{status: 431, limit: "fields", reason: "too many fields"}
}

func targetTooLong() *fault {
	return &fault{status: 414, limit: "target_bytes", reason: "target too long"}
}

func headTooSlow() *fault {
	return &fault{status: 408, limit: "header_timeout", reason: "head did not come in time"}
}

// timeout is a peer that took too long. It is an os.ErrDeadlineExceeded, too.
type timeout struct {
	limit, reason string
	err           error
}

func (t *timeout) Error() string { return t.reason }
func (t *timeout) Unwrap() error { return t.err }

// Rejection implements message.Unacceptable.
func (t *timeout) Rejection() message.Rejection {
	return message.Rejection{Status: 408, Limit: t.limit, Reason: t.reason}
}
