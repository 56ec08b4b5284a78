package hbone_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/hbonetest"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/testkit"
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

// piped is a server in a bubble, and a peer that has said hello over a pipe; what it does
// not read itself is for rest.
func piped(t *testing.T, h hbone.Handler) (p *hbonetest.Peer, sc *hbone.ServerConn, ended <-chan error, rest func()) {
	ca := testkit.NewCA(t)
	server := ca.Workload("shop", "server")
	client, err := ca.Workload("shop", "client").ClientConfig(server.ID)
	if err != nil {
		t.Fatal(err)
	}
	theirs, ours := net.Pipe()
	c, shaken := tls.Client(theirs, client), make(chan error, 1)
	go func() { shaken <- c.HandshakeContext(t.Context()) }()
	sc, err = hbone.NewServerConn(t.Context(), ours, identity.ServerConfig(func() (*identity.Certificate, error) { return server, nil }), hbone.Config{}, h)
	if err := errors.Join(err, <-shaken); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- sc.Run(t.Context()) }()
	p = hbonetest.NewPeer(t, c)
	p.Hello()
	return p, sc, done, func() {
		for {
			if _, err := p.Framer.ReadFrame(); err != nil {
				return
			}
		}
	}
}

// The last stream of a drained connection has ended, and the peer, which is slow, still
// sends what a peer sends that has not read the end of it yet. It finds an open connection
// until it closes it.
func TestDrainedConnectionWaitsForASlowPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, sc, ended, rest := piped(t, func(_ context.Context, in *hbone.Incoming) {
			if s, err := in.Accept(); err == nil {
				c := s.Conn(in.LocalAddr, in.RemoteAddr)
				_, _ = c.Write([]byte("the last"))
				_ = c.CloseWrite()
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}
		})
		p.Accepted(1, "app:1")
		sc.Drain()
		p.Until("the PING of a drain", func(f http2.Frame) bool {
			g, ok := f.(*http2.PingFrame)
			return ok && !g.IsAck()
		})
		p.OK(p.Framer.WritePing(true, [8]byte{'l', 'e', 'a', 'v', 'e'}))
		read := make(chan struct{})
		go func() {
			defer close(read)
			rest()
		}()
		p.OK(p.Framer.WriteData(1, true, nil))
		<-time.After(10 * time.Second)
		p.OK(p.Framer.WriteWindowUpdate(0, 1000))
		began := time.Now()
		_ = p.Conn.Close()
		if err := <-ended; !errors.Is(err, hbone.ErrClosed) || time.Since(began) > time.Second {
			t.Errorf("it ended with %v after %s", err, time.Since(began))
		}
		<-read
	})
}

// Who is gone, or says nothing, does not hold up a drain.
func TestDrainWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, sc, ended, rest := piped(t, parked)
		read := make(chan struct{})
		go func() {
			defer close(read)
			rest()
		}()
		began := time.Now()
		sc.Drain()
		// Three seconds to hear of it, two to close.
		if err := <-ended; !errors.Is(err, hbone.ErrClosed) || time.Since(began) > 6*time.Second {
			t.Errorf("it ended with %v after %s", err, time.Since(began))
		}
		<-read
		_ = p.Conn.Close()
	})
}
