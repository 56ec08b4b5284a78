package proxy

import (
	"errors"
	"io"
	"net"
	"testing"

	"github.com/ambit-mesh/ambit/internal/message"
)

// endingBody gives a few bytes with the error that it ends with.
type endingBody struct {
	message.Body
	err error
}

func (b endingBody) Read(p []byte) (int, error) { return copy(p, "abc"), b.err }

// tooLate is what a codec gives for a body that breaks a limit.
type tooLate struct{}

func (tooLate) Error() string { return "body did not come in time" }
func (tooLate) Rejection() message.Rejection {
	return message.Rejection{Status: 408, Limit: "body_timeout", Reason: "body did not come in time"}
}

// What is wrong with a body is its client's failure only where the client's bytes were
// wrong: a body that we have closed because of the endpoint is not.
func TestUpload(t *testing.T) {
	for name, tc := range map[string]struct {
		err    error
		broken bool
		status int
	}{
		"goes on":       {nil, false, 0},
		"whole":         {io.EOF, false, 0},
		"breaks a rule": {tooLate{}, true, 408},
		"cut off":       {io.ErrUnexpectedEOF, true, 0},
		"given up here": {net.ErrClosed, false, 0},
		"another cause": {errors.New("x"), false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := &upload{Body: endingBody{err: tc.err}}
			n, err := b.Read(make([]byte, 10))
			if n != 3 || err != tc.err || b.n.Load() != 3 {
				t.Errorf("read %d bytes, %v; counted %d", n, err, b.n.Load())
			}
			r := b.wrong.Load()
			if b.broken() != tc.broken || (r != nil) != (tc.status != 0) || r != nil && r.Status != tc.status {
				t.Errorf("broken %v, rejected %+v", b.broken(), r)
			}
		})
	}
	if (*upload)(nil).broken() {
		t.Error("a request without a body has a broken one")
	}
}
