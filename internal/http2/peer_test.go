package http2_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/ambit-mesh/ambit/internal/http2"
	"github.com/ambit-mesh/ambit/internal/message"
)

// peer speaks HTTP/2 frame by frame, so that a test can say anything.
type peer struct {
	t     testing.TB
	conn  net.Conn
	fr    *xhttp2.Framer
	buf   bytes.Buffer
	enc   *hpack.Encoder
	ended <-chan error // what Run of the other end returns
}

func newPeer(t testing.TB, conn net.Conn) *peer {
	p := &peer{t: t, conn: conn, fr: xhttp2.NewFramer(conn, conn)}
	p.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.fr.AllowIllegalWrites = true
	p.fr.SetMaxReadFrameSize(1 << 24)
	p.enc = hpack.NewEncoder(&p.buf)
	return p
}

// clientOf is a peer that has not said anything to a server of ours.
func clientOf(t testing.TB, cfg http2.Config, h message.HandlerFunc) *peer {
	t.Helper()
	c, s := bufferedPipe(t)
	p := newPeer(t, c)
	p.ended = newRunner(t).run(http2.NewServerConn(s, cfg, h).Run)
	t.Cleanup(func() { c.Close() }) // first of all, so that nobody lingers
	return p
}

// serverOf is a peer that is the server of a client of ours and has said hello.
func serverOf(t testing.TB, cfg http2.Config, settings ...xhttp2.Setting) (*peer, *http2.ClientConn) {
	t.Helper()
	c, s := bufferedPipe(t)
	cc := http2.NewClientConn(c, cfg)
	p := newPeer(t, s)
	p.ended = newRunner(t).run(cc.Run)
	t.Cleanup(func() { s.Close() })
	preface := make([]byte, len(xhttp2.ClientPreface))
	if _, err := io.ReadFull(s, preface); err != nil || string(preface) != xhttp2.ClientPreface {
		t.Fatalf("preface %q, %v", preface, err)
	}
	p.ok(p.fr.WriteSettings(settings...))
	return p, cc
}

func (p *peer) hello(settings ...xhttp2.Setting) *peer {
	p.t.Helper()
	p.write([]byte(xhttp2.ClientPreface))
	p.ok(p.fr.WriteSettings(settings...))
	return p
}

func (p *peer) ok(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	_, err := p.conn.Write(b)
	p.ok(err)
}

// block encodes name, value, name, value.
func (p *peer) block(fields ...string) []byte {
	p.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(p.buf.Bytes())
}

func (p *peer) headers(id uint32, end bool, fields ...string) {
	p.t.Helper()
	p.ok(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: p.block(fields...), EndHeaders: true, EndStream: end}))
}

func (p *peer) data(id uint32, end bool, b string) {
	p.t.Helper()
	p.ok(p.fr.WriteData(id, end, []byte(b)))
}

// get begins a request; more fields follow those that it needs.
func (p *peer) get(id uint32, end bool, path string, more ...string) {
	p.t.Helper()
	p.headers(id, end, append([]string{":method", "GET", ":scheme", "http", ":path", path, ":authority", "shop"}, more...)...)
}

// until reads frames up to the one that match wants.
func (p *peer) until(what string, match func(xhttp2.Frame) bool) {
	p.t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(5 * time.Minute))
	for {
		f, err := p.fr.ReadFrame()
		if err != nil {
			p.t.Fatalf("waiting for %s: %v", what, err)
		}
		if match(f) {
			return
		}
	}
}

func (p *peer) answer(id uint32) (got *xhttp2.MetaHeadersFrame) {
	p.t.Helper()
	p.until("an answer", func(f xhttp2.Frame) bool {
		if r, ok := f.(*xhttp2.RSTStreamFrame); ok && r.StreamID == id {
			p.t.Fatalf("stream %d reset with %s, want an answer", id, r.ErrCode)
		}
		h, ok := f.(*xhttp2.MetaHeadersFrame)
		if ok && h.StreamID == id {
			got = h
		}
		return got != nil
	})
	return got
}

func (p *peer) wantStatus(id uint32, status string) {
	p.t.Helper()
	if got := p.answer(id).PseudoValue("status"); got != status {
		p.t.Fatalf("stream %d: status %s, want %s", id, got, status)
	}
}

// wantReset reads up to a RST_STREAM with the code.
func (p *peer) wantReset(id uint32, code xhttp2.ErrCode) {
	p.t.Helper()
	p.until("RST_STREAM", func(f xhttp2.Frame) bool {
		if g, ok := f.(*xhttp2.GoAwayFrame); ok {
			p.t.Fatalf("GOAWAY %s %q, want RST_STREAM %s", g.ErrCode, g.DebugData(), code)
		}
		r, ok := f.(*xhttp2.RSTStreamFrame)
		if ok && r.StreamID == id && r.ErrCode != code {
			p.t.Fatalf("stream %d reset with %s, want %s", id, r.ErrCode, code)
		}
		return ok && r.StreamID == id
	})
}

// wantGoAway reads up to GOAWAY with the code, and the end after it.
func (p *peer) wantGoAway(code xhttp2.ErrCode) {
	p.t.Helper()
	p.until("GOAWAY", func(f xhttp2.Frame) bool {
		g, ok := f.(*xhttp2.GoAwayFrame)
		if ok && g.ErrCode != code {
			p.t.Fatalf("GOAWAY with %s %q, want %s", g.ErrCode, g.DebugData(), code)
		}
		return ok
	})
	for {
		if _, err := p.fr.ReadFrame(); errors.Is(err, io.EOF) {
			p.conn.Close() // what the other end waits for
			return
		} else if err != nil {
			p.t.Fatalf("after GOAWAY: %v, want the end", err)
		}
	}
}

// alive proves with a PING that the connection goes on and that what was written
// before was handled.
func (p *peer) alive() {
	p.t.Helper()
	data := [8]byte{'t', 'e', 's', 't', 1, 2, 3, 4}
	p.ok(p.fr.WritePing(false, data))
	p.until("an answer to PING", func(f xhttp2.Frame) bool {
		g, ok := f.(*xhttp2.PingFrame)
		return ok && g.IsAck() && g.Data == data
	})
}

// flood writes until the other side ends the connection or rounds are over, reads
// what it says meanwhile, and gives the code of its GOAWAY.
func (p *peer) flood(rounds int, write func(i int) error) xhttp2.ErrCode {
	p.t.Helper()
	got := make(chan xhttp2.ErrCode, 1)
	go func() {
		last := xhttp2.ErrCode(0xffff)
		for {
			f, err := p.fr.ReadFrame()
			if err != nil {
				if last == 0xffff {
					p.t.Logf("no GOAWAY, and then: %v", err)
				}
				got <- last
				return
			}
			if g, ok := f.(*xhttp2.GoAwayFrame); ok {
				last = g.ErrCode
			}
		}
	}()
	for i := range rounds {
		if err := write(i); err != nil {
			if errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			p.t.Fatal(err)
		}
	}
	_ = p.conn.(*memConn).CloseWrite()
	return <-got
}

// raw is a frame with any header.
func raw(typ, flags byte, stream uint32, payload ...byte) []byte {
	b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), typ, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// byPath lets the peer choose what becomes of its request.
func byPath(ctx context.Context, req *message.Request, w message.Responder) {
	switch req.Path {
	case "/parked": // answered, and goes on until the client has gone
		_ = w.Respond(&message.Response{Status: 200, ContentLength: -1})
		_ = w.Flush()
		<-ctx.Done()
	case "/undecided":
		<-ctx.Done()
	case "/ended": // reads nothing
		answer(w, 200, "early")
	case "/slow": // answered, reads nothing, waits
		<-ctx.Done()
	case "/silent":
	default:
		var n int64
		if req.Body != nil {
			n, _ = io.Copy(io.Discard, req.Body)
		}
		answer(w, 200, "", fields("n", string('0'+byte(min(n, 9))))...)
	}
}

func fields(nameValue ...string) (f message.Fields) {
	for i := 0; i < len(nameValue); i += 2 {
		f.Add(nameValue[i], nameValue[i+1])
	}
	return f
}

// holdConnect is byPath that leaves tunnels open.
func holdConnect(ctx context.Context, req *message.Request, w message.Responder) {
	if req.Tunnel() {
		<-ctx.Done()
		return
	}
	byPath(ctx, req, w)
}
