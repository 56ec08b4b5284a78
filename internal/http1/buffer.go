package http1

import "sync"

const (
	// smallSize is enough for most heads.
	smallSize = 4 << 10
	// largeSize is what one Write of ours carries at most, and room for a large head.
	largeSize = 64 << 10
)

// buffer is memory for what is being read or written. It is taken when there are
// bytes and given back when they have been passed on.
type buffer struct {
	b     []byte
	spans []span // where the fields of a head lie, while it is parsed
}

var (
	small = sync.Pool{New: func() any { return &buffer{b: make([]byte, smallSize)} }}
	large = sync.Pool{New: func() any { return &buffer{b: make([]byte, largeSize)} }}
)

func takeSmall() *buffer { return small.Get().(*buffer) }
func takeLarge() *buffer { return large.Get().(*buffer) }

func (b *buffer) give() {
	switch len(b.b) {
	case smallSize:
		small.Put(b)
	case largeSize:
		large.Put(b)
	}
}
