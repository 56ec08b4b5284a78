package hbonetest

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Peer speaks HTTP/2 frame by frame, so that a test can say anything.
type Peer struct {
	Conn   *tls.Conn
	Framer *http2.Framer
	// Seen is called for each frame that Until reads; it may be nil.
	Seen func(http2.Frame)

	t   testing.TB
	buf bytes.Buffer
	enc *hpack.Encoder
}

// NewPeer speaks over a connection whose handshake is done.
func NewPeer(t testing.TB, conn *tls.Conn) *Peer {
	p := &Peer{t: t, Conn: conn, Framer: http2.NewFramer(conn, conn)}
	p.Framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.Framer.AllowIllegalWrites = true
	p.Framer.SetMaxReadFrameSize(1 << 24)
	p.enc = hpack.NewEncoder(&p.buf)
	return p
}

// Hello says hello as a client.
func (p *Peer) Hello(settings ...http2.Setting) {
	p.t.Helper()
	p.Write([]byte(http2.ClientPreface))
	p.OK(p.Framer.WriteSettings(settings...))
}

// OK ends the test on an error.
func (p *Peer) OK(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// Write sends bytes as they are.
func (p *Peer) Write(b []byte) {
	p.t.Helper()
	_, err := p.Conn.Write(b)
	p.OK(err)
}

// Block encodes name, value, name, value.
func (p *Peer) Block(fields ...string) []byte {
	p.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(p.buf.Bytes())
}

// Headers sends a header block in one frame.
func (p *Peer) Headers(id uint32, end bool, fields ...string) error {
	return p.Framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.Block(fields...), EndHeaders: true, EndStream: end})
}

// Connect asks for a stream.
func (p *Peer) Connect(id uint32, authority string) {
	p.t.Helper()
	p.OK(p.Headers(id, false, ":method", "CONNECT", ":authority", authority))
}

// Accepted opens a stream and reads up to its 200.
func (p *Peer) Accepted(id uint32, authority string) {
	p.t.Helper()
	p.Connect(id, authority)
	if got := p.Answer(id); got.PseudoValue("status") != "200" {
		p.t.Fatalf("status %s, want 200", got.PseudoValue("status"))
	}
}

// Until reads frames up to the one that match wants.
func (p *Peer) Until(what string, match func(http2.Frame) bool) {
	p.t.Helper()
	_ = p.Conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		f, err := p.Framer.ReadFrame()
		if err != nil {
			p.t.Fatalf("waiting for %s: %v", what, err)
		}
		if p.Seen != nil {
			p.Seen(f)
		}
		if match(f) {
			return
		}
	}
}

// Answer reads up to the header block that answers a stream.
func (p *Peer) Answer(id uint32) (got *http2.MetaHeadersFrame) {
	p.t.Helper()
	p.Until("an answer", func(f http2.Frame) bool {
		h, ok := f.(*http2.MetaHeadersFrame)
		if ok && h.StreamID == id {
			got = h
		}
		return got != nil
	})
	return got
}

// WantReset reads up to a RST_STREAM with the code.
func (p *Peer) WantReset(id uint32, code http2.ErrCode) {
	p.t.Helper()
	p.Until("RST_STREAM", func(f http2.Frame) bool {
		r, ok := f.(*http2.RSTStreamFrame)
		if ok && r.StreamID == id && r.ErrCode != code {
			p.t.Fatalf("stream %d reset with %s, want %s", id, r.ErrCode, code)
		}
		return ok && r.StreamID == id
	})
}

// WantGoAway reads up to GOAWAY with the code, and the end after it.
func (p *Peer) WantGoAway(code http2.ErrCode) {
	p.t.Helper()
	p.Until("GOAWAY", func(f http2.Frame) bool {
		g, ok := f.(*http2.GoAwayFrame)
		if ok && g.ErrCode != code {
			p.t.Fatalf("GOAWAY with %s %q, want %s", g.ErrCode, g.DebugData(), code)
		}
		return ok
	})
	if _, err := p.Framer.ReadFrame(); !errors.Is(err, io.EOF) {
		p.t.Fatalf("after GOAWAY: %v, want the end", err)
	}
}

// Alive proves with a PING that the connection goes on and that what was written
// before was handled.
func (p *Peer) Alive() {
	p.t.Helper()
	data := [8]byte{'t', 'e', 's', 't', 1, 2, 3, 4}
	p.OK(p.Framer.WritePing(false, data))
	p.Until("an answer to PING", func(f http2.Frame) bool {
		g, ok := f.(*http2.PingFrame)
		return ok && g.IsAck() && g.Data == data
	})
}

// Flood writes until the other side ends the connection or rounds are over. What
// it says meanwhile is for the caller to read.
func (p *Peer) Flood(rounds int, write func(i int) error) {
	p.t.Helper()
	for i := range rounds {
		if err := write(i); err != nil {
			if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) {
				return
			}
			p.t.Fatal(err)
		}
	}
}

// Request reads up to the HEADERS of a request.
func (p *Peer) Request() (id uint32) {
	p.Until("a request", func(f http2.Frame) bool {
		h, ok := f.(*http2.MetaHeadersFrame)
		if ok {
			id = h.StreamID
		}
		return ok
	})
	return id
}

// Rest reads until the connection has ended.
func (p *Peer) Rest() {
	for {
		if _, err := p.Framer.ReadFrame(); err != nil {
			return
		}
	}
}

// DrainReads reads what the server says while a flood is under way, so that the
// flood is not throttled by its answers. What it gives waits for the end, and
// tells the last GOAWAY's code and how reading ended.
func (p *Peer) DrainReads() (ended func() (http2.ErrCode, error)) {
	last := http2.ErrCode(0xffff)
	got := make(chan error, 1)
	go func() {
		for {
			f, err := p.Framer.ReadFrame()
			if err != nil {
				got <- err
				return
			}
			if g, ok := f.(*http2.GoAwayFrame); ok {
				last = g.ErrCode
			}
		}
	}()
	return func() (http2.ErrCode, error) {
		err := <-got
		return last, err
	}
}

// Raw is a frame with any header.
func Raw(typ, flags byte, stream uint32, payload ...byte) []byte {
	b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), typ, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}
