package hbone_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// connPair gives both ends of a tunnelled stream as connections.
func connPair(t testing.TB, cfg hbone.Config) (client, server *hbone.StreamConn) {
	t.Helper()
	got := make(chan *hbone.StreamConn)
	over := make(chan struct{})
	tn := newTunnel(t, cfg, func(_ context.Context, in *hbone.Incoming) {
		s, err := in.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		got <- s.Conn(in.LocalAddr, in.RemoteAddr)
		<-over
	})
	t.Cleanup(func() { close(over) })
	s, _, cc, err := tn.pool.Open(t.Context(), tn.addr, hbone.Request{Authority: "x:1"})
	if err != nil {
		t.Fatal(err)
	}
	addr := cc.LocalAddr()
	return s.Conn(addr, addr), <-got
}

func TestStreamIsANetConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		a, b := connPair(t, hbone.Config{})
		return a, b, func() { a.Close(); b.Close() }, nil
	})
}

func TestStreamConnEnds(t *testing.T) {
	t.Run("half-close, then the rest", func(t *testing.T) {
		a, b := connPair(t, hbone.Config{})
		if _, err := a.Write([]byte("question")); err != nil {
			t.Fatal(err)
		}
		if err := a.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(b); string(got) != "question" || err != nil {
			t.Fatalf("%q %v", got, err)
		}
		if _, err := b.Write([]byte("answer")); err != nil {
			t.Fatal(err)
		}
		if err := b.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(a); string(got) != "answer" || err != nil {
			t.Fatalf("%q %v", got, err)
		}
		for _, c := range []*hbone.StreamConn{a, b} {
			<-c.Done()
			if err := c.Stream().Err(); err != nil {
				t.Errorf("an orderly end gave %v", err)
			}
		}
	})
	t.Run("close is an orderly end for the peer", func(t *testing.T) {
		a, b := connPair(t, hbone.Config{})
		if _, err := a.Write([]byte("all there is")); err != nil {
			t.Fatal(err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(b); string(got) != "all there is" || err != nil {
			t.Fatalf("%q %v", got, err)
		}
	})
	t.Run("close with something unread is a reset", func(t *testing.T) {
		a, b := connPair(t, hbone.Config{})
		if _, err := b.Write(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(a, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		a.Close()
		var reset *hbone.ResetError
		if _, err := b.Read(make([]byte, 1)); !errors.As(err, &reset) {
			t.Fatalf("read gave %v, want a reset", err)
		}
	})
	t.Run("a reset ends reads and writes", func(t *testing.T) {
		a, b := connPair(t, hbone.Config{})
		a.Stream().Reset(hbone.CodeCancel)
		<-b.Done()
		var reset *hbone.ResetError
		if _, err := b.Read(make([]byte, 1)); !errors.As(err, &reset) || !reset.Remote {
			t.Errorf("read gave %v", err)
		}
		if _, err := b.Write([]byte("x")); !errors.As(err, &reset) {
			t.Errorf("write gave %v", err)
		}
	})
}

// What a slow reader does not take is bounded by its window, and a reader that
// keeps up gets all of a large transfer unharmed.
func TestStreamConnCarriesMuch(t *testing.T) {
	a, b := connPair(t, hbone.Config{})
	const window = 64 << 10
	_ = a.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	n, err := a.Write(make([]byte, 4*window))
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() || n != window {
		t.Fatalf("%d bytes went to a reader that takes nothing, %v; want %d", n, err, window)
	}
	_ = a.SetWriteDeadline(time.Time{})
	if _, err := io.ReadFull(b, make([]byte, n)); err != nil {
		t.Fatal(err)
	}

	piece := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
	sent := sha256.New()
	done := make(chan error, 1)
	go func() {
		for range 1 << 10 {
			sent.Write(piece)
			if _, err := a.Write(piece); err != nil {
				done <- err
				return
			}
		}
		done <- a.CloseWrite()
	}()
	received := sha256.New()
	if n, err := io.Copy(received, b); n != int64(len(piece))<<10 || err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if err := <-done; err != nil || !bytes.Equal(sent.Sum(nil), received.Sum(nil)) {
		t.Fatalf("what came is not what was sent, %v", err)
	}
}
