package proxy

import (
	"errors"
	"io"
	"sync/atomic"

	"github.com/ambit-mesh/ambit/internal/message"
)

// upload is a request's body as its client sends it: it counts the bytes, and
// remembers that the request cannot be accepted.
type upload struct {
	message.Body
	n     atomic.Int64
	wrong atomic.Pointer[message.Rejection]
	cut   atomic.Bool // it has ended before its end
}

// broken reports a body that its client has not sent as it should: no endpoint has
// anything to do with that, and none can be asked again.
func (b *upload) broken() bool { return b != nil && (b.cut.Load() || b.wrong.Load() != nil) }

// Read implements message.Body.
func (b *upload) Read(p []byte) (int, error) {
	n, err := b.Body.Read(p)
	b.n.Add(int64(n))
	if err == nil || err == io.EOF {
		return n, err
	}
	var u message.Unacceptable
	if errors.As(err, &u) {
		r := u.Rejection()
		b.wrong.Store(&r)
	} else if errors.Is(err, io.ErrUnexpectedEOF) {
		b.cut.Store(true)
	}
	return n, err
}

// watch has the body counted, and heard of what is wrong with it.
func (x *exchange) watch() {
	if x.req.Body != nil {
		// Not a part of x, which is used again: an upstream connection may still read when the request is over.
		x.body = &upload{Body: x.req.Body}
		x.req.Body = x.body
	}
}

// unacceptable is the failure of a request whose body breaks a rule or a limit.
func (x *exchange) unacceptable() *failure {
	if x.body == nil {
		return nil
	}
	r := x.body.wrong.Load()
	if r == nil {
		return nil
	}
	x.d.rejected(*r)
	return failed(r.Status, flagMalformed, "http_request_error", "body: %s", r.Reason)
}
