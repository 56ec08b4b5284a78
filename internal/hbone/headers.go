package hbone

import (
	"bytes"
	"strconv"

	"golang.org/x/net/http2/hpack"

	"github.com/ambit-mesh/ambit/internal/h2wire"
)

// Field is a header field beside the pseudo-header fields.
type Field = hpack.HeaderField

// header is a decoded header block.
type header struct {
	method, authority, status string
	// Of an extended CONNECT (RFC 8441), "" otherwise.
	protocol, scheme, path string
	malformed              string // what RFC 9113 section 8 forbids; "" when nothing
	tooLarge               bool
	fields                 []Field
}

// get gives the first value of a field, "" when there is none.
func (h *header) get(name string) string {
	for _, f := range h.fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// fieldSink collects the fields of one block.
type fieldSink struct {
	limit int
	size  int
	h     *header
}

func (f *fieldSink) start() { f.size, f.h = 0, &header{} }

func (f *fieldSink) emit(hf hpack.HeaderField) {
	if f.h == nil {
		return
	}
	// RFC 9113 section 6.5.2: each field counts 32 bytes more than its text.
	if f.size += len(hf.Name) + len(hf.Value) + 32; f.size > f.limit {
		f.h.tooLarge = true
		f.h.fields = nil
		return
	}
	if !hf.IsPseudo() {
		if !validField(hf) {
			f.h.malformed = "field " + strconv.Quote(hf.Name)
		}
		f.h.fields = append(f.h.fields, hf)
		return
	}
	if len(f.h.fields) > 0 {
		f.h.malformed = "pseudo-header field after a regular one"
	}
	var dst *string
	switch hf.Name {
	case ":method":
		dst = &f.h.method
	case ":authority":
		dst = &f.h.authority
	case ":status":
		dst = &f.h.status
	case ":protocol":
		dst = &f.h.protocol
	case ":scheme":
		dst = &f.h.scheme
	case ":path":
		dst = &f.h.path
	default:
		f.h.malformed = "pseudo-header field " + strconv.Quote(hf.Name)
		return
	}
	if *dst != "" {
		f.h.malformed = "pseudo-header field " + hf.Name + " twice"
	}
	*dst = hf.Value
}

// connectMalformed says what pseudo-header fields a CONNECT lacks or has too many:
// an ordinary one has neither :scheme nor :path (RFC 9113 section 8.5), an extended
// one has both (RFC 8441 section 4).
func (h *header) connectMalformed() string {
	extended := h.protocol != ""
	switch {
	case extended && h.scheme == "", extended && h.path == "":
		return "an extended CONNECT needs :scheme and :path"
	case !extended && h.scheme != "":
		return `pseudo-header field ":scheme"`
	case !extended && h.path != "":
		return `pseudo-header field ":path"`
	}
	return ""
}

// validField applies RFC 9113 section 8.2.1.
func validField(hf hpack.HeaderField) bool {
	switch hf.Name {
	case "", "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return false
	}
	for i := range len(hf.Name) {
		if c := hf.Name[i]; c <= 0x20 || c >= 0x7f || c == ':' || c >= 'A' && c <= 'Z' {
			return false
		}
	}
	for i := range len(hf.Value) {
		if c := hf.Value[i]; c == 0 || c == '\r' || c == '\n' {
			return false
		}
	}
	return true
}

func (r *reader) onHeaders(b []byte) error {
	f := r.frame
	if f.Stream == 0 || f.Stream%2 == 0 {
		return connError(CodeProtocol, "HEADERS on stream %d", f.Stream)
	}
	if f.Flags&h2wire.FlagPadded != 0 {
		if len(b) < 1 || int(b[0]) > len(b)-1 {
			return connError(CodeProtocol, "padding larger than the frame")
		}
		b = b[1 : len(b)-int(b[0])]
	}
	if f.Flags&h2wire.FlagPriority != 0 {
		if len(b) < 5 {
			return connError(CodeFrameSize, "HEADERS too short")
		}
		b = b[5:]
	}
	r.blockEnd = f.Flags&h2wire.FlagEndStream != 0
	if f.Flags&h2wire.FlagEndHeaders != 0 {
		return r.complete(f.Stream, b)
	}
	r.blockID, r.pieces = f.Stream, 0
	r.block = append(r.block[:0], b...)
	return nil
}

// maxPieces bounds how finely a header block may be cut (CVE-2024-27316).
const maxPieces = 16

func (r *reader) onContinuation(b []byte) error {
	if r.blockID == 0 {
		return connError(CodeProtocol, "CONTINUATION without HEADERS")
	}
	if r.pieces++; r.pieces > maxPieces || len(r.block)+len(b) > r.c.cfg.MaxHeaderBytes+256 {
		return connError(CodeEnhanceYourCalm, "header block too large or cut too finely")
	}
	r.block = append(r.block, b...)
	if r.frame.Flags&h2wire.FlagEndHeaders == 0 {
		return nil
	}
	id := r.blockID
	r.blockID = 0
	return r.complete(id, r.block)
}

// complete decodes one complete header block. It is decoded even if nobody wants
// it, since HPACK's state is the connection's.
func (r *reader) complete(id uint32, b []byte) error {
	r.fields.start()
	if _, err := r.decoder.Write(b); err != nil {
		return connError(CodeCompression, "%v", err)
	}
	if err := r.decoder.Close(); err != nil {
		return connError(CodeCompression, "%v", err)
	}
	h := r.fields.h
	r.fields.h = nil
	if cap(r.block) > maxKept {
		r.block = nil
	}
	cost, err := r.c.headers(id, h, r.blockEnd)
	if err == nil && cost > 0 {
		err = r.spend(cost)
	}
	return err
}

// blockEncoder encodes header blocks. It never refers to a dynamic table, so that
// blocks may be encoded in any order and cached.
type blockEncoder struct {
	buf bytes.Buffer
	enc *hpack.Encoder
}

func newBlockEncoder() *blockEncoder {
	e := &blockEncoder{}
	e.enc = hpack.NewEncoder(&e.buf)
	e.enc.SetMaxDynamicTableSizeLimit(0)
	return e
}

// headersFrame appends a HEADERS frame. Blocks here always fit the smallest
// maximum frame size, because the caller bounds what it puts in.
func (e *blockEncoder) headersFrame(b []byte, stream uint32, endStream bool, pseudo []Field, fields []Field) ([]byte, error) {
	e.buf.Reset()
	for _, list := range [2][]Field{pseudo, fields} {
		for _, f := range list {
			// Writing to a bytes.Buffer does not fail.
			_ = e.enc.WriteField(f)
		}
	}
	if e.buf.Len() > h2wire.MinMaxFrame {
		return b, connError(CodeInternal, "header block of %d bytes", e.buf.Len())
	}
	flags := byte(h2wire.FlagEndHeaders)
	if endStream {
		flags |= h2wire.FlagEndStream
	}
	b = h2wire.AppendFrameHeader(b, h2wire.FrameHeader{Length: e.buf.Len(), Type: h2wire.FrameHeaders, Flags: flags, Stream: stream})
	return append(b, e.buf.Bytes()...), nil
}
