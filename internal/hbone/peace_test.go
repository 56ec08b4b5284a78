package hbone_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/hbonetest"
)

// slowTunnel has a server that connects all streams to an application that has ended its
// direction, takes hardly anything into its buffers, and reads when it is told to.
func slowTunnel(t *testing.T) (tn *tunnel, read func() ([]byte, error)) {
	type result struct {
		b   []byte
		err error
	}
	start, all := make(chan struct{}), make(chan result, 1)
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.(*net.TCPConn).SetReadBuffer(64 << 10)
		_ = c.(*net.TCPConn).CloseWrite()
		<-start
		b, err := io.ReadAll(c)
		all <- result{b, err}
	}()
	tn = newTunnel(t, hbone.Config{StreamWindow: 4 << 20}, func(_ context.Context, in *hbone.Incoming) {
		app, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			in.Refuse(503, "")
			return
		}
		defer app.Close()
		_ = app.(*net.TCPConn).SetWriteBuffer(64 << 10)
		if s, err := in.Accept(); err == nil {
			_ = s.Splice(app)
		}
	})
	return tn, func() ([]byte, error) {
		close(start)
		r := <-all
		return r.b, r.err
	}
}

// upload sends what ends stream 1, and waits until the server has ended it too.
func upload(p *hbonetest.Peer, data []byte) {
	p.OK(p.Framer.WriteWindowUpdate(0, 1<<20))
	for len(data) > 0 {
		n := min(len(data), 16<<10)
		p.OK(p.Framer.WriteData(1, n == len(data), data[:n]))
		data = data[n:]
	}
	p.Until("the end of the stream", func(f http2.Frame) bool {
		d, ok := f.(*http2.DataFrame)
		return ok && d.StreamEnded()
	})
}

// Both ends have said all, and only the application has not taken it: the peer closes
// the connection, as it may, and nothing is lost.
func TestCompleteStreamOutlivesItsConnection(t *testing.T) {
	tn, read := slowTunnel(t)
	p := tn.dialPeer(t)
	p.Accepted(1, "app:1")
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	upload(p, data)
	p.OK(p.Conn.CloseWrite())
	if _, err := io.Copy(io.Discard, p.Conn); err != nil {
		t.Fatalf("the server's end: %v", err)
	}
	p.Conn.Close()
	if b, err := read(); err != nil || !bytes.Equal(b, data) {
		t.Fatalf("%d bytes arrived of %d: %v", len(b), len(data), err)
	}
}

// What is complete and not delivered ends with the tunnel all the same when that is
// closed and not only left.
func TestCompleteStreamIsCutByClose(t *testing.T) {
	tn, read := slowTunnel(t)
	p := tn.dialPeer(t)
	p.Accepted(1, "app:1")
	upload(p, make([]byte, 1<<20))
	sc := <-tn.conns
	p.Conn.Close()
	sc.Close("revoked")
	if b, err := read(); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the application got %d bytes and %v, want a reset", len(b), err)
	}
}

// The last stream of a drained connection has ended, and the peer, which is slow, still
// sends what a peer sends that has not read the end of it yet. Nobody resets it.
func TestDrainedConnectionWaitsForASlowPeer(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, byAuthority)
	const size = 60_000
	app := listen(t, func(_ context.Context, c net.Conn) {
		_, _ = c.Write(make([]byte, size))
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
	p := tn.dialPeer(t)
	p.Accepted(1, app)
	(<-tn.conns).Drain()
	n := 0
	count := func(f http2.Frame) {
		if d, ok := f.(*http2.DataFrame); ok {
			n += len(d.Data())
		}
	}
	p.Until("GOAWAY", func(f http2.Frame) bool {
		count(f)
		_, ok := f.(*http2.GoAwayFrame)
		return ok
	})
	p.OK(p.Framer.WritePing(true, [8]byte{'l', 'e', 'a', 'v', 'e'}))
	p.OK(p.Framer.WriteData(1, true, nil))
	// Longer than anybody waits who only says goodbye.
	<-time.After(1200 * time.Millisecond)
	for range 3 {
		p.OK(p.Framer.WriteWindowUpdate(0, size))
		<-time.After(50 * time.Millisecond)
	}
	for {
		f, err := p.Framer.ReadFrame()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v", n, err)
		}
		count(f)
	}
	if n != size {
		t.Fatalf("%d bytes came, of %d", n, size)
	}
}
