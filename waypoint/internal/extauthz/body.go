package extauthz

import (
	"context"
	"errors"
	"io"

	"github.com/ambit-mesh/ambit/internal/message"
)

var errTooLarge = errors.New("the body is too large")

// peek reads the whole body of a request, up to most bytes, and leaves the request
// with a body that gives the same again.
func peek(ctx context.Context, req *message.Request, most int64) ([]byte, error) {
	if req.Body == nil {
		return nil, nil
	}
	if req.ContentLength > most {
		return nil, errTooLarge
	}
	// A client that does not go on is waited for as long as the request may take.
	body := req.Body
	stop := context.AfterFunc(ctx, func() { body.Close() })
	defer stop()
	// One byte more tells a body that is just long enough from one that is longer.
	size := min(most+1, 4<<10)
	if req.ContentLength >= 0 {
		size = req.ContentLength + 1
	}
	buf := make([]byte, 0, size)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case int64(len(buf)) > most:
			return nil, errTooLarge
		case err == io.EOF:
			req.Body = &replay{head: buf, body: body}
			return buf, nil
		case err != nil:
			return nil, err
		}
	}
}

// replay is a body that has been read.
type replay struct {
	head []byte
	body message.Body
}

func (r *replay) Read(p []byte) (int, error) {
	if len(r.head) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.head)
	r.head = r.head[n:]
	return n, nil
}

func (r *replay) Buffered() int            { return len(r.head) }
func (r *replay) Trailers() message.Fields { return r.body.Trailers() }
func (r *replay) Close() error             { return r.body.Close() }
