package hbone

import (
	"sync"

	"github.com/ambit-mesh/ambit/internal/h2wire"
)

// bufSize is what one read takes from an app socket, and what one DATA frame
// carries at most. Four full TLS records.
const bufSize = 64 << 10

// buffers hold a frame header and bufSize bytes. They are taken when bytes have
// arrived and given back when those are passed on.
var buffers = sync.Pool{New: func() any { b := make([]byte, h2wire.FrameHeaderLen+bufSize); return &b }}

func takeBuffer() *[]byte  { return buffers.Get().(*[]byte) }
func giveBuffer(b *[]byte) { buffers.Put(b) }

// chunk is queued stream data that its reader has not taken yet.
type chunk struct {
	data []byte
	buf  *[]byte // what data lies in, given back when data is used up; may be nil
}

// newChunk copies p. Small pieces get memory of their own size, so that a trickle
// does not pin a large buffer for each byte, but of at least room bytes up to a
// bound, so that a long trickle does not become a long list.
func newChunk(p []byte, room int) chunk {
	if len(p) < bufSize/4 {
		data := make([]byte, len(p), max(len(p), min(room, bufSize/4)))
		copy(data, p)
		return chunk{data: data}
	}
	b := takeBuffer()
	return chunk{data: (*b)[:copy(*b, p)], buf: b}
}

func (c *chunk) release() {
	if c.buf != nil {
		giveBuffer(c.buf)
		c.buf = nil
	}
	c.data = nil
}
