package hbonetest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"
)

// Types of streams and frames, RFC 9114 sections 6.2 and 7.2.
const (
	StreamControl = 0x00
	StreamPush    = 0x01
	FrameData     = 0x00
	FrameHeaders  = 0x01
	FrameSettings = 0x04
)

// patience is how long an answer may take on a busy machine.
const patience = 20 * time.Second

// QUICPeer speaks HTTP/3 frame by frame, so that a test can say anything.
type QUICPeer struct {
	Conn *quic.Conn

	t   testing.TB
	buf bytes.Buffer
	enc *qpack.Encoder
}

// DialQUIC shakes hands and says nothing else.
func DialQUIC(t testing.TB, tr *quic.Transport, addr net.Addr, cfg *tls.Config) *QUICPeer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := tr.Dial(ctx, addr, cfg, &quic.Config{EnableDatagrams: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseWithError(0, "") })
	p := &QUICPeer{Conn: c, t: t}
	p.enc = qpack.NewEncoder(&p.buf)
	return p
}

// OK ends the test on an error.
func (p *QUICPeer) OK(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// Hello opens the control stream: datagrams and extended CONNECT.
func (p *QUICPeer) Hello() *quic.SendStream {
	p.t.Helper()
	return p.Uni(StreamControl, Frame(FrameSettings, []byte{0x08, 1, 0x33, 1}))
}

// Uni opens a stream of one direction and says something on it.
func (p *QUICPeer) Uni(kind uint64, say []byte) *quic.SendStream {
	p.t.Helper()
	s, err := p.Conn.OpenUniStreamSync(p.t.Context())
	p.OK(err)
	_, err = s.Write(append(quicvarint.Append(nil, kind), say...))
	p.OK(err)
	return s
}

// Stream opens a request stream and says something on it, as far as the other end
// wants to hear it.
func (p *QUICPeer) Stream(say []byte) *quic.Stream {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	s, err := p.Conn.OpenStreamSync(ctx)
	p.OK(err)
	_, err = s.Write(say)
	if stopped := new(quic.StreamError); !errors.As(err, &stopped) {
		p.OK(err)
	}
	return s
}

// Frame is an HTTP/3 frame.
func Frame(kind uint64, payload []byte) []byte {
	return append(quicvarint.Append(quicvarint.Append(nil, kind), uint64(len(payload))), payload...)
}

// Headers is a HEADERS frame of pairs of name and value.
func (p *QUICPeer) Headers(fields ...string) []byte {
	p.t.Helper()
	p.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		p.OK(p.enc.WriteField(qpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	p.OK(p.enc.Close())
	return Frame(FrameHeaders, bytes.Clone(p.buf.Bytes()))
}

// Connect asks for a target.
func (p *QUICPeer) Connect(authority string) *quic.Stream {
	p.t.Helper()
	return p.Stream(p.Headers(":method", "CONNECT", ":authority", authority))
}

// Answer reads the header fields that answer a request.
func (p *QUICPeer) Answer(s *quic.Stream) map[string]string {
	p.t.Helper()
	_ = s.SetReadDeadline(time.Now().Add(patience))
	r := quicvarint.NewReader(s)
	kind, err := quicvarint.Read(r)
	p.OK(err)
	size, err := quicvarint.Read(r)
	p.OK(err)
	if kind != FrameHeaders || size > 1<<16 {
		p.t.Fatalf("the answer begins with a frame of type %d, %d bytes", kind, size)
	}
	block := make([]byte, size)
	_, err = io.ReadFull(s, block)
	p.OK(err)
	fields := make(map[string]string)
	for next := qpack.NewDecoder().Decode(block); ; {
		f, err := next()
		if err == io.EOF {
			return fields
		}
		p.OK(err)
		fields[f.Name] = f.Value
	}
}

// Refused wants an answer of this status, whose Proxy-Status has the reason.
func (p *QUICPeer) Refused(s *quic.Stream, status, reason string) {
	p.t.Helper()
	if got := p.Answer(s); got[":status"] != status || !strings.Contains(got["proxy-status"], reason) {
		p.t.Fatalf("answer %s, %q, want %s, %q", got[":status"], got["proxy-status"], status, reason)
	}
}

// Accepted asks for a target and wants it.
func (p *QUICPeer) Accepted(authority string) *quic.Stream {
	p.t.Helper()
	s := p.Connect(authority)
	p.Refused(s, "200", "")
	return s
}

// WantReset wants the stream reset by the other end with this code.
func (p *QUICPeer) WantReset(s *quic.Stream, code http3.ErrCode) {
	p.t.Helper()
	_ = s.SetReadDeadline(time.Now().Add(patience))
	_, err := io.Copy(io.Discard, s)
	var reset *quic.StreamError
	if !errors.As(err, &reset) || !reset.Remote || reset.ErrorCode != quic.StreamErrorCode(code) {
		p.t.Fatalf("got %v, want a reset with %s", err, code)
	}
}

// WantClosed wants the connection closed by the other end with this code.
func (p *QUICPeer) WantClosed(code http3.ErrCode) {
	p.t.Helper()
	var app *quic.ApplicationError
	if err := p.end(); !errors.As(err, &app) || !app.Remote || app.ErrorCode != quic.ApplicationErrorCode(code) {
		p.t.Fatalf("got %v, want the connection closed with %s", err, code)
	}
}

// end waits for the end of the connection and gives its reason.
func (p *QUICPeer) end() error {
	select {
	case <-p.Conn.Context().Done():
		return context.Cause(p.Conn.Context())
	case <-time.After(patience):
		return errors.New("the connection goes on")
	}
}

// RefusedOverQUIC is Refused for a server of HTTP/3. It reports false where QUIC has
// no such client.
func (h BadHandshake) RefusedOverQUIC(t testing.TB, tr *quic.Transport, addr net.Addr) bool {
	t.Helper()
	cfg := h.cfg.Clone()
	if cfg.MaxVersion == tls.VersionTLS12 {
		return false
	}
	if len(cfg.NextProtos) > 0 && cfg.NextProtos[0] == "h2" {
		cfg.NextProtos = []string{http3.NextProtoH3}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := tr.Dial(ctx, addr, cfg, nil)
	if err == nil {
		// The client's part of the handshake ends before the server has decided.
		err = (&QUICPeer{Conn: c, t: t}).end()
		_ = c.CloseWithError(0, "")
	}
	want := h.alert
	if want == 0 {
		want = alertNoProtocol // RFC 9001 section 8.1 is stricter than TLS alone
	}
	var te *quic.TransportError
	if !errors.As(err, &te) || !te.Remote || te.ErrorCode != 0x100+quic.TransportErrorCode(want) {
		t.Fatalf("got %v, want CRYPTO_ERROR with %s", err, want)
	}
	return true
}
