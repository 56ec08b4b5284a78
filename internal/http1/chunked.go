package http1

import (
	"bytes"

	"github.com/ambit-mesh/ambit/internal/message"
)

const (
	// maxChunkLine bounds the line before a chunk, extensions included.
	maxChunkLine = 1 << 10
	// maxChunkDigits keeps a size below 2^60.
	maxChunkDigits = 15
	// chunkAllowance is how much of lines a body may have beyond what its content
	// makes plausible: a peer that sends a byte a chunk, or only extensions, makes
	// us work for nothing.
	chunkAllowance = 64 << 10
)

// chunks takes the chunked coding apart, RFC 9112 section 7.1.
type chunks struct {
	phase    chunkPhase
	left     int64 // of the chunk
	overhead int64
	scan     headScan // of the trailers
	trailers message.Fields
}

type chunkPhase uint8

const (
	chunkLine chunkPhase = iota
	chunkData
	chunkDataEnd
	chunkTrailers
	chunkEnd
)

// advance goes on with the bytes in src up to content or the end. It reports
// whether it needs more bytes for that.
func (c *chunks) advance(src *source, cfg *Config) (more bool, f *fault) {
	for {
		b := src.bytes()
		switch c.phase {
		case chunkLine:
			i := bytes.IndexByte(b[:min(len(b), maxChunkLine)], '\n')
			if i < 0 {
				if len(b) >= maxChunkLine {
					return false, malformed("chunk size line too long")
				}
				return true, nil
			}
			if f := c.size(b[:i]); f != nil {
				return false, f
			}
			src.skip(i + 1)
		case chunkData:
			return false, nil
		case chunkDataEnd:
			if len(b) < 2 {
				return true, nil
			}
			if b[0] != '\r' || b[1] != '\n' {
				return false, malformed("chunk is longer than its size")
			}
			src.skip(2)
			c.phase = chunkLine
		case chunkTrailers:
			n, f := c.scan.find(b, cfg)
			if f != nil || n == 0 {
				return f == nil, f
			}
			if f := c.take(b[:n], &src.buf.spans); f != nil {
				return false, f
			}
			src.skip(n)
			c.phase = chunkEnd
		case chunkEnd:
			return false, nil
		}
	}
}

// size reads the line before a chunk. Extensions are checked and left out, RFC 9112
// section 7.1.1. The section would allow white space before them; it is refused
// because some take it for the end of the size, and some do not.
func (c *chunks) size(line []byte) *fault {
	n, i := int64(0), 0
	for ; i < len(line) && hexDigit[line[i]] != 0xff; i++ {
		n = n<<4 | int64(hexDigit[line[i]])
	}
	switch {
	case i == 0:
		return malformed("chunk without a size")
	case i > maxChunkDigits:
		return malformed("chunk size is too large")
	case line[len(line)-1] != '\r':
		return malformed("line ends without CR")
	}
	ext := line[i : len(line)-1]
	if len(ext) > 0 && ext[0] != ';' {
		return malformed("malformed chunk size")
	}
	for _, b := range ext {
		if class[b]&inValue == 0 {
			return malformed("control character in a chunk extension")
		}
	}
	if c.overhead += int64(len(line)) - 16 - 2*n; c.overhead < 0 {
		c.overhead = 0
	}
	if c.overhead > chunkAllowance {
		return malformed("more chunk extensions than content")
	}
	c.left, c.phase = n, chunkData
	if n == 0 {
		c.phase = chunkTrailers
		c.scan = headScan{lines: 1}
	}
	return nil
}

// took counts content.
func (c *chunks) took(n int) {
	if c.left -= int64(n); c.left == 0 {
		c.phase = chunkDataEnd
	}
}

// take reads the trailers. What must not be among them is left out, RFC 9110
// section 6.5.1.
func (c *chunks) take(b []byte, spans *[]span) *fault {
	var f *fault
	*spans, f = scanFields(b, 0, (*spans)[:0])
	if f != nil || len(*spans) == 0 {
		return f
	}
	text := string(b)
	for _, s := range *spans {
		if name := text[s.name:s.nameEnd]; !notInTrailers(name) {
			c.trailers.Add(name, text[s.value:s.valueEnd])
		}
	}
	return nil
}

// notInTrailers names the fields that decide about framing, routing, identity or
// the treatment of content, so that who reads them late has decided without them.
func notInTrailers(name string) bool {
	switch name {
	case "content-length", "transfer-encoding", "trailer", "te", "connection", "keep-alive", "proxy-connection", "upgrade",
		"host", "expect", "max-forwards", "cache-control", "pragma", "vary", "range",
		"content-encoding", "content-type", "content-range", "content-location",
		"authorization", "proxy-authorization", "proxy-authenticate", "www-authenticate", "cookie", "set-cookie",
		"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-client-cert",
		"if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range",
		"age", "date", "expires", "location", "retry-after", "warning":
		return true
	}
	return false
}
