package proxy

import (
	"sync/atomic"

	"github.com/ambit-mesh/ambit/internal/message"
)

// countedBody counts the bytes of a request's body whose length was not said.
type countedBody struct {
	message.Body
	n atomic.Int64
}

// Read implements message.Body.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.Body.Read(p)
	b.n.Add(int64(n))
	return n, err
}

// count has the body counted if nobody has said how long it is.
func (x *exchange) count() {
	if x.req.Body != nil && x.req.ContentLength < 0 {
		x.counted = &countedBody{Body: x.req.Body}
		x.req.Body = x.counted
	}
}
