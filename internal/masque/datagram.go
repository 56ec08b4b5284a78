package masque

import (
	"errors"
	"fmt"
	"io"

	"github.com/quic-go/quic-go/quicvarint"
)

// Contexts of a payload.
const (
	contextUDP   = 0
	contextBatch = 2
)

// MaxUDP is the largest UDP payload there is (RFC 9298 section 5).
const MaxUDP = 65527

// overhead bounds what stands before the UDP payloads: a context ID and, for each
// payload of a batch, its length.
const overhead = 1 + 4

// ErrMalformed is a payload or capsule that nobody may send.
var ErrMalformed = errors.New("malformed datagram")

// AppendUDP appends a payload that carries one datagram.
func AppendUDP(b, p []byte) []byte { return append(append(b, contextUDP), p...) }

// Batch gathers datagrams for one payload. The zero value is empty.
type Batch struct {
	buf []byte
	n   int
	one int // where the first datagram begins
}

// Add appends a datagram unless that would make the payload larger than max bytes;
// it reports whether it did. An empty batch takes any datagram: whether it fits
// alone is the transport's to say.
func (b *Batch) Add(p []byte, max int) bool {
	if b.n > 0 && len(b.buf)+quicvarint.Len(uint64(len(p)))+len(p) > max {
		return false
	}
	if b.n == 0 {
		b.buf = append(b.buf[:0], contextBatch)
	}
	b.buf = quicvarint.Append(b.buf, uint64(len(p)))
	if b.n == 0 {
		b.one = len(b.buf)
	}
	b.buf = append(b.buf, p...)
	b.n++
	return true
}

// Len is the number of datagrams gathered.
func (b *Batch) Len() int { return b.n }

// Take gives the payload and empties the batch. It is valid until the next Add.
func (b *Batch) Take() []byte {
	out := b.buf
	if b.n == 1 {
		// As RFC 9298 has it: context 0 in the byte before the datagram.
		out = b.buf[b.one-1:]
		out[0] = contextUDP
	}
	b.n = 0
	return out
}

// Each calls f for each datagram of a payload. Payloads of contexts that were not
// agreed on are dropped, as RFC 9298 section 4 wants.
func Each(payload []byte, f func(p []byte)) error {
	context, n, err := quicvarint.Parse(payload)
	if err != nil {
		return fmt.Errorf("%w: no context", ErrMalformed)
	}
	payload = payload[n:]
	switch context {
	case contextUDP:
		if len(payload) > MaxUDP {
			return fmt.Errorf("%w: %d bytes", ErrMalformed, len(payload))
		}
		f(payload)
	case contextBatch:
		return eachOf(payload, f)
	}
	return nil
}

func eachOf(batch []byte, f func(p []byte)) error {
	for len(batch) > 0 {
		size, n, err := quicvarint.Parse(batch)
		if err != nil || size > uint64(len(batch)-n) || size > MaxUDP {
			return fmt.Errorf("%w: a datagram of a batch is cut short", ErrMalformed)
		}
		f(batch[n : n+int(size)])
		batch = batch[n+int(size):]
	}
	return nil
}

// capsuleDatagram is the type of the DATAGRAM capsule, RFC 9297 section 3.5.
const capsuleDatagram = 0

// AppendCapsule appends a capsule with a payload.
func AppendCapsule(b, payload []byte) []byte {
	b = append(b, capsuleDatagram)
	return append(quicvarint.Append(b, uint64(len(payload))), payload...)
}

// CapsuleReader takes capsules off a stream.
type CapsuleReader struct {
	r    io.Reader
	buf  []byte
	from int // what of buf is not read yet
}

// NewCapsuleReader reads from r, with one buffer that holds the largest capsule.
func NewCapsuleReader(r io.Reader) *CapsuleReader {
	return &CapsuleReader{r: r, buf: make([]byte, 0, 16<<10)}
}

// maxCapsule bounds a DATAGRAM capsule's payload: one datagram of the largest size,
// or a batch that is as large.
const maxCapsule = MaxUDP + overhead

// Next gives the payload of the next DATAGRAM capsule, valid until the call after.
// Capsules of other types are passed over (RFC 9297 section 3.2). io.EOF is the end
// of the stream between two capsules.
func (c *CapsuleReader) Next() ([]byte, error) {
	for {
		kind, err := c.varint()
		if err != nil {
			return nil, err
		}
		size, err := c.varint()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		if kind != capsuleDatagram {
			if err := c.skip(size); err != nil {
				return nil, err
			}
			continue
		}
		if size > maxCapsule {
			return nil, fmt.Errorf("%w: capsule of %d bytes", ErrMalformed, size)
		}
		if err := c.have(int(size)); err != nil {
			return nil, unexpected(err)
		}
		p := c.buf[c.from : c.from+int(size)]
		c.from += int(size)
		return p, nil
	}
}

// Buffered reports whether a whole DATAGRAM capsule behind the last one has come
// already.
func (c *CapsuleReader) Buffered() bool {
	b := c.buf[c.from:]
	kind, n, err := quicvarint.Parse(b)
	if err != nil || kind != capsuleDatagram {
		return false
	}
	size, m, err := quicvarint.Parse(b[n:])
	return err == nil && uint64(len(b)-n-m) >= size
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (c *CapsuleReader) varint() (uint64, error) {
	if err := c.have(1); err != nil {
		return 0, err
	}
	n := 1 << (c.buf[c.from] >> 6)
	if err := c.have(n); err != nil {
		return 0, unexpected(err)
	}
	v, _, err := quicvarint.Parse(c.buf[c.from : c.from+n])
	c.from += n
	return v, err
}

// have reads until n bytes are there.
func (c *CapsuleReader) have(n int) error {
	for len(c.buf)-c.from < n {
		if c.from > 0 {
			c.buf = c.buf[:copy(c.buf, c.buf[c.from:])]
			c.from = 0
		}
		if n > cap(c.buf) {
			c.buf = append(make([]byte, 0, maxCapsule+8), c.buf...)
		}
		m, err := c.r.Read(c.buf[len(c.buf):cap(c.buf)])
		c.buf = c.buf[:len(c.buf)+m]
		if err != nil && len(c.buf) < n {
			return err
		}
	}
	return nil
}

// skip passes over what nobody reads.
func (c *CapsuleReader) skip(n uint64) error {
	for n > 0 {
		if err := c.have(1); err != nil {
			return unexpected(err)
		}
		m := min(n, uint64(len(c.buf)-c.from))
		c.from += int(m)
		n -= m
	}
	return nil
}
