package proxy

import (
	"bytes"
	"errors"
	"io"
	"os"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// prefixed is a client's connection whose first bytes have been looked at.
type prefixed struct {
	*hbone.StreamConn
	rest []byte
}

// Read gives the bytes that were looked at first.
func (c *prefixed) Read(p []byte) (int, error) {
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		if c.rest = c.rest[n:]; len(c.rest) == 0 {
			c.rest = nil
		}
		return n, nil
	}
	return c.StreamConn.Read(p)
}

// Buffered is how many bytes Read gives without waiting.
func (c *prefixed) Buffered() int { return len(c.rest) + c.StreamConn.Buffered() }

// dialect is what the first bytes of a client look like.
type dialect uint8

const (
	undecided dialect = iota // more bytes are needed
	opaque
	http1Dialect
	http2Dialect
	tlsDialect
)

const (
	// preface of HTTP/2 with prior knowledge, RFC 9113 section 3.4.
	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	// maxSniffed is how many bytes tell a dialect.
	maxSniffed = len(preface)
	// sniffPatience is how long a client may take between the first and the
	// deciding byte before it is taken for one that speaks something else.
	sniffPatience = time.Second
)

var methods = [][]byte{
	[]byte("GET "), []byte("HEAD "), []byte("POST "), []byte("PUT "), []byte("DELETE "),
	[]byte("CONNECT "), []byte("OPTIONS "), []byte("TRACE "), []byte("PATCH "),
}

// classify tells the dialect from the first bytes.
func classify(b []byte) dialect {
	if len(b) == 0 {
		return undecided
	}
	if b[0] == 0x16 { // a TLS handshake record, version 3.x
		if len(b) < 2 {
			return undecided
		}
		if b[1] == 3 {
			return tlsDialect
		}
		return opaque
	}
	if d := begins(b, []byte(preface)); d != opaque {
		if d == undecided {
			return undecided
		}
		return http2Dialect
	}
	for _, m := range methods {
		switch begins(b, m) {
		case undecided:
			return undecided
		case http1Dialect:
			return http1Dialect
		}
	}
	return opaque
}

// begins compares as far as there are bytes: opaque is different, undecided is
// too short to tell.
func begins(b, want []byte) dialect {
	n := min(len(b), len(want))
	switch {
	case !bytes.Equal(b[:n], want[:n]):
		return opaque
	case n < len(want):
		return undecided
	}
	return http1Dialect
}

// sniff reads until the dialect is clear and gives the bytes read. It waits for
// the first byte until deadline (zero: for ever); os.ErrDeadlineExceeded says
// that none came.
func sniff(c *hbone.StreamConn, deadline time.Time) (dialect, []byte, error) {
	_ = c.SetReadDeadline(deadline)
	defer func() { _ = c.SetReadDeadline(time.Time{}) }()
	return sniffed(c)
}

// sniffed is sniff with the deadline that c has.
func sniffed(c *hbone.StreamConn) (dialect, []byte, error) {
	buf := make([]byte, 0, maxSniffed)
	for {
		n, err := c.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		d := classify(buf)
		switch {
		case d != undecided:
			return d, buf, nil
		case err == nil:
			_ = c.SetReadDeadline(time.Now().Add(sniffPatience))
		case len(buf) > 0 && (err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded)):
			return opaque, buf, nil
		default:
			return undecided, nil, err
		}
	}
}
