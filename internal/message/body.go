package message

import "io"

// BytesBody is a body that is all there.
func BytesBody(b []byte) Body { return &bytesBody{rest: b} }

type bytesBody struct{ rest []byte }

func (b *bytesBody) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

func (b *bytesBody) Buffered() int    { return len(b.rest) }
func (b *bytesBody) Trailers() Fields { return nil }
func (b *bytesBody) Close() error     { return nil }
