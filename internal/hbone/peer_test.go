package hbone_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

// peer speaks HTTP/2 frame by frame, so that a test can say anything.
type peer struct {
	t    testing.TB
	conn *tls.Conn
	fr   *http2.Framer
	buf  bytes.Buffer
	enc  *hpack.Encoder
	seen func(http2.Frame) // called for each frame that until reads; may be nil
}

func newPeer(t testing.TB, conn *tls.Conn) *peer {
	p := &peer{t: t, conn: conn, fr: http2.NewFramer(conn, conn)}
	p.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.fr.AllowIllegalWrites = true
	p.fr.SetMaxReadFrameSize(1 << 24)
	p.enc = hpack.NewEncoder(&p.buf)
	return p
}

// dialRaw does the TLS handshake with the server of tn and nothing else.
func (tn *tunnel) dialRaw(t testing.TB) *peer {
	t.Helper()
	c := tls.Client(dial(t, tn.addr), tn.client)
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return newPeer(t, c)
}

// dialPeer also says hello.
func (tn *tunnel) dialPeer(t testing.TB, settings ...http2.Setting) *peer {
	t.Helper()
	p := tn.dialRaw(t)
	p.hello(settings...)
	return p
}

func (p *peer) hello(settings ...http2.Setting) {
	p.t.Helper()
	p.write([]byte(http2.ClientPreface))
	p.ok(p.fr.WriteSettings(settings...))
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

func (p *peer) headers(id uint32, end bool, fields ...string) error {
	return p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.block(fields...), EndHeaders: true, EndStream: end})
}

func (p *peer) connect(id uint32, authority string) {
	p.t.Helper()
	p.ok(p.headers(id, false, ":method", "CONNECT", ":authority", authority))
}

// accepted opens a stream and reads up to its 200.
func (p *peer) accepted(id uint32, authority string) {
	p.t.Helper()
	p.connect(id, authority)
	if got := p.answer(id); got.PseudoValue("status") != "200" {
		p.t.Fatalf("status %s, want 200", got.PseudoValue("status"))
	}
}

// until reads frames up to the one that match wants.
func (p *peer) until(what string, match func(http2.Frame) bool) {
	p.t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		f, err := p.fr.ReadFrame()
		if err != nil {
			p.t.Fatalf("waiting for %s: %v", what, err)
		}
		if p.seen != nil {
			p.seen(f)
		}
		if match(f) {
			return
		}
	}
}

func (p *peer) answer(id uint32) (got *http2.MetaHeadersFrame) {
	p.t.Helper()
	p.until("an answer", func(f http2.Frame) bool {
		h, ok := f.(*http2.MetaHeadersFrame)
		if ok && h.StreamID == id {
			got = h
		}
		return got != nil
	})
	return got
}

// wantReset reads up to a RST_STREAM with the code.
func (p *peer) wantReset(id uint32, code http2.ErrCode) {
	p.t.Helper()
	p.until("RST_STREAM", func(f http2.Frame) bool {
		r, ok := f.(*http2.RSTStreamFrame)
		if ok && r.StreamID == id && r.ErrCode != code {
			p.t.Fatalf("stream %d reset with %s, want %s", id, r.ErrCode, code)
		}
		return ok && r.StreamID == id
	})
}

// wantGoAway reads up to GOAWAY with the code, and the end after it.
func (p *peer) wantGoAway(code http2.ErrCode) {
	p.t.Helper()
	p.until("GOAWAY", func(f http2.Frame) bool {
		g, ok := f.(*http2.GoAwayFrame)
		if ok && g.ErrCode != code {
			p.t.Fatalf("GOAWAY with %s %q, want %s", g.ErrCode, g.DebugData(), code)
		}
		return ok
	})
	if _, err := p.fr.ReadFrame(); !errors.Is(err, io.EOF) {
		p.t.Fatalf("after GOAWAY: %v, want the end", err)
	}
}

// alive proves with a PING that the connection goes on and that what was written
// before was handled.
func (p *peer) alive() {
	p.t.Helper()
	data := [8]byte{'t', 'e', 's', 't', 1, 2, 3, 4}
	p.ok(p.fr.WritePing(false, data))
	p.until("an answer to PING", func(f http2.Frame) bool {
		g, ok := f.(*http2.PingFrame)
		return ok && g.IsAck() && g.Data == data
	})
}

// flood writes until the other side ends the connection or rounds are over. What
// it says meanwhile is for the caller to read.
func (p *peer) flood(rounds int, write func(i int) error) {
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

// unharmed runs attack while another client of the same server uses its stream,
// and checks that this one notices nothing and that nothing is left behind.
func (tn *tunnel) unharmed(t *testing.T, attack func()) {
	t.Helper()
	c := dial(t, tn.proxy(t, echo(t)))
	roundTrip(t, c)
	before := measureNow()
	stop, trips := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		defer func() { trips <- n }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			b := make([]byte, 10)
			if _, err := c.Write([]byte("bystanders")); err != nil {
				t.Errorf("a bystander's write: %v", err)
				return
			}
			if _, err := io.ReadFull(c, b); err != nil {
				t.Errorf("a bystander's read: %v", err)
				return
			}
			n++
		}
	}()
	attack()
	close(stop)
	if n := <-trips; n == 0 {
		t.Error("a bystander got nothing through")
	}
	testkit.Until(t, "goroutines of the attack end", func() bool { return runtime.NumGoroutine() <= before.goroutines+2 })
	if after := measureNow(); after.heap > before.heap+4<<20 {
		t.Errorf("the attack left %d bytes on the heap", after.heap-before.heap)
	}
}

type load struct {
	goroutines int
	heap       uint64
}

// measureNow counts what is there after a collection.
func measureNow() load {
	runtime.GC()
	runtime.GC() // what sync.Pool holds survives one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return load{runtime.NumGoroutine(), m.HeapAlloc}
}

// parked accepts and keeps the stream until it ends.
func parked(_ context.Context, in *hbone.Incoming) {
	s, err := in.Accept()
	if err == nil {
		<-s.Done()
	}
}
