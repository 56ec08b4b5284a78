package hbone3_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/masque"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

// A server that leaves refuses who comes at once, so that it goes on elsewhere or over
// TCP, and lets the stream that is there go on.
func TestLeave(t *testing.T) {
	tn := newTunnel(t, hbone3.Config{}, func(_ context.Context, in *hbone3.Incoming) {
		s, err := in.Accept()
		if err != nil {
			return
		}
		_ = s.ReceivePayloads(func(b []byte, _ bool) error { return s.SendPayload(b) })
		s.End()
	})
	ask := hbone.Request{Authority: "x:1", Protocol: masque.Protocol, Path: "/"}
	s, _, _, err := tn.pool.Open(t.Context(), "k", ask)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	ended := make(chan error, 1)
	go func() { ended <- s.ReceivePayloads(func(b []byte, _ bool) error { got <- string(b); return nil }) }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	left := make(chan struct{})
	go func() {
		defer close(left)
		tn.server.Leave(ctx)
	}()
	testkit.Until(t, "who comes is refused", func() bool {
		s, _, _, err := tn.pool.Open(t.Context(), "k", ask)
		if err == nil { // it had not begun to leave
			s.Reset(hbone.CodeCancel)
			return false
		}
		return hbone3.Unavailable(err) && !hbone3.Unreachable(err)
	})
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
	<-left
	if ctx.Err() != nil {
		t.Error("the server waited for a connection without streams")
	}
}

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
		s, resp, _, err := tn.pool.Open(t.Context(), "k", hbone.Request{Authority: "x:1", Protocol: masque.Protocol, Path: "/"})
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
