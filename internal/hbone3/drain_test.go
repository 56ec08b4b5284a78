package hbone3_test

import (
	"context"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/masque"
)

// A server that drains lets the stream that is there end, takes no other, and is
// done as soon as nothing is left.
func TestDrain(t *testing.T) {
	tn := newTunnel(t, hbone3.Config{}, func(_ context.Context, in *hbone3.Incoming) {
		s, err := in.Accept()
		if err != nil {
			return
		}
		_ = s.ReceivePayloads(func(b []byte, _ bool) error { return s.SendPayload(b) })
		s.End()
	})
	s, _, _, err := tn.pool.Open(t.Context(), "k", hbone.Request{Authority: "x:1", Protocol: masque.Protocol, Path: "/"})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	ended := make(chan error, 1)
	go func() { ended <- s.ReceivePayloads(func(b []byte, _ bool) error { got <- string(b); return nil }) }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		tn.server.Drain(ctx)
	}()
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
	<-drained
	if ctx.Err() != nil {
		t.Error("the server waited for a connection without streams")
	}
}
