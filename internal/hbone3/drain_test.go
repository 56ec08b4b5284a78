package hbone3_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/masque"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

// ask is for a flow of datagrams that echoing has come back.
var ask = hbone.Request{Authority: "x:1", Protocol: masque.Protocol, Path: "/"}

func echoing(_ context.Context, in *hbone3.Incoming) {
	s, err := in.Accept()
	if err != nil {
		return
	}
	_ = s.ReceivePayloads(func(b []byte, _ bool) error { return s.SendPayload(b) })
	s.End()
}

// outlives has a flow go on while the server ends by end, until it ends itself, and the
// server with it. Meanwhile is called in between.
func outlives(t *testing.T, end func(*hbone3.Server, context.Context), meanwhile func(*tunnel)) {
	t.Helper()
	tn := newTunnel(t, hbone3.Config{}, echoing)
	s, _, _, err := tn.pool.Open(t.Context(), "k", ask)
	if err != nil {
		t.Fatal(err)
	}
	got, ended := make(chan string, 1), make(chan error, 1)
	go func() { ended <- s.ReceivePayloads(func(b []byte, _ bool) error { got <- string(b); return nil }) }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	over := make(chan struct{})
	go func() {
		defer close(over)
		end(tn.server, ctx)
	}()
	meanwhile(tn)
	if err := s.SendPayload([]byte("still there")); err != nil {
		t.Fatal(err)
	}
	if g := <-got; g != "still there" {
		t.Errorf("got %q", g)
	}
	s.End()
	if err := <-ended; err != nil {
		t.Errorf("stream: %v", err)
	}
	<-over
	if ctx.Err() != nil {
		t.Error("the server waited for a connection without streams")
	}
}

// A server that drains lets the stream that is there end, takes no other, and is
// done as soon as nothing is left.
func TestDrain(t *testing.T) { outlives(t, (*hbone3.Server).Drain, func(*tunnel) {}) }

// One that leaves also refuses who comes at once, so that it goes on elsewhere or over TCP.
func TestLeave(t *testing.T) {
	outlives(t, (*hbone3.Server).Leave, func(tn *tunnel) {
		testkit.Until(t, "who comes is refused", func() bool {
			s, _, _, err := tn.pool.Open(t.Context(), "k", ask)
			if err == nil { // it had not begun to leave
				s.Reset(hbone.CodeCancel)
				return false
			}
			return hbone3.Unavailable(err) && !hbone3.Unreachable(err)
		})
	})
}

// A client that is left by its last stream gives the server time for what that sent:
// the connection would take it along.
func TestDrainedClientDoesNotCutItsLastStream(t *testing.T) {
	read, all := make(chan struct{}), make(chan error, 1)
	const size = 300_000
	tn := newTunnel(t, hbone3.Config{}, func(_ context.Context, in *hbone3.Incoming) {
		s, err := in.Accept()
		if err != nil {
			return
		}
		ours, app := net.Pipe()
		go func() {
			defer app.Close()
			<-read
			n, err := io.Copy(io.Discard, app)
			if err == nil && n != size {
				err = fmt.Errorf("%d bytes came of %d", n, size)
			}
			all <- err
		}()
		s.End() // the client has all that it gets
		_ = s.Splice(noRead{ours})
	})
	s, _, _, err := tn.pool.Open(t.Context(), "k", hbone.Request{Authority: "x:1"})
	if err != nil {
		t.Fatal(err)
	}
	local, app := net.Pipe()
	go func() {
		_, _ = app.Write(make([]byte, size))
		_ = app.Close()
	}()
	tn.pool.Retire(func(string) bool { return true })
	if err := s.Splice(noWrite{local}); err != nil {
		t.Fatal(err)
	}
	close(read)
	if err := <-all; err != nil {
		t.Error(err)
	}
}

// A connection that carried datagrams alone does not stay as long as one whose bytes may
// still be on their way.
func TestDatagramsDoNotHoldUpALeave(t *testing.T) {
	tn := newTunnel(t, hbone3.Config{}, echoing)
	carried := func(key string, req hbone.Request) *hbone3.ClientConn {
		s, _, cc, err := tn.pool.Open(t.Context(), key, req)
		if err != nil {
			t.Fatal(err)
		}
		s.Reset(hbone.CodeCancel)
		return cc
	}
	bytes, datagrams := carried("bytes", hbone.Request{Authority: "x:1"}), carried("datagrams", ask)
	tn.pool.Retire(func(string) bool { return true })
	select {
	case <-datagrams.Done():
	case <-bytes.Done():
		t.Error("the connection that carried bytes was closed first")
	}
}

// noRead is a connection whose peer has ended its direction, noWrite one that nothing is
// written to.
type (
	noRead  struct{ net.Conn }
	noWrite struct{ net.Conn }
)

func (noRead) Read([]byte) (int, error) { return 0, io.EOF }
func (noWrite) CloseWrite() error       { return nil }

// What a server closes ends in order at the client, and its answer is not lost.
func TestClose(t *testing.T) {
	ended := make(chan error, 1)
	tn := newTunnel(t, hbone3.Config{}, func(_ context.Context, in *hbone3.Incoming) {
		s, err := in.Accept(hbone.Field{Name: "baggage", Value: "a=b"})
		if err != nil {
			ended <- err
			return
		}
		s.Close()
		ended <- s.ReceivePayloads(func([]byte, bool) error { return nil })
	})
	for range 100 {
		s, resp, _, err := tn.pool.Open(t.Context(), "k", ask)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Get("baggage") != "a=b" {
			t.Errorf("the answer has %v", resp.Fields)
		}
		if err := s.ReceivePayloads(func([]byte, bool) error { return nil }); err != nil {
			t.Fatalf("at the client: %v", err)
		}
		if err := <-ended; !errors.Is(err, hbone.ErrClosed) {
			t.Fatalf("at the server: %v", err)
		}
	}
}
