package hbone3_test

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/masque"
)

// connectUDP asks for a stream of datagrams.
func connectUDP(authority string) hbone.Request {
	return hbone.Request{Authority: authority, Protocol: masque.Protocol, Path: "/.well-known/masque/udp/192.0.2.1/1/"}
}

// A reader that is away for a while finds all of a burst that is many times what the
// library keeps for a stream, in order; what is beyond the bound is dropped and
// counted, and other streams have their room meanwhile.
func TestDatagramsWaitForTheirReader(t *testing.T) {
	const payload, burst = 1100, 600 // 660 kB of the 1 MB that a stream has
	var dropped atomic.Int64
	go1, go2 := make(chan struct{}), make(chan struct{})
	release1, release2 := sync.OnceFunc(func() { close(go1) }), sync.OnceFunc(func() { close(go2) })
	got := make(chan int, 4096)
	other := make(chan int, 64)
	tn := newTunnel(t, hbone3.Config{OnDropped: func() { dropped.Add(1) }}, func(_ context.Context, in *hbone3.Incoming) {
		s, err := in.Accept()
		if err != nil {
			return
		}
		to := got
		if in.Authority == "other:1" {
			to = other
		} else {
			<-go1
		}
		_ = s.ReceivePayloads(func(b []byte, _ bool) error {
			if n := int(binary.BigEndian.Uint32(b)); len(b) == payload {
				to <- n
				if to == got && n == burst-1 {
					<-go2
				}
			}
			return nil
		})
	})
	cc, err := hbone3.Dial(t.Context(), tn.tr, tn.addr, tn.client, hbone3.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Drain()
	open := func(authority string) *hbone3.Stream {
		s, _, err := cc.Open(t.Context(), connectUDP(authority))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	send := func(s *hbone3.Stream, from, to int) {
		b := make([]byte, payload)
		for i := from; i < to; i++ {
			binary.BigEndian.PutUint32(b, uint32(i))
			if err := s.SendPayload(b); err != nil {
				t.Fatal(err)
			}
		}
	}
	s, second := open("slow:1"), open("other:1")
	defer s.Reset(hbone.CodeCancel)
	defer second.Reset(hbone.CodeCancel)
	defer release1()
	defer release2()
	for i := 0; i < burst; i += 50 {
		send(s, i, i+50)
		// What comes behind them on the same connection is there when they are: on a
		// machine that is busy the library, too, has no room for more than 128.
		arrived(t, second, other)
	}
	release1()
	want(t, got, 0, burst)
	if n := dropped.Load(); n != 0 {
		t.Errorf("%d dropped of what there is room for", n)
	}
	// The reader stands still again, with the rest of 1 MB and more to come.
	for i := burst; dropped.Load() == 0; i += 100 {
		send(s, i, i+100)
	}
	arrived(t, second, other)
	release2()
}

// arrived sends on a stream until something has come.
func arrived(t *testing.T, s *hbone3.Stream, got chan int) {
	t.Helper()
	b := make([]byte, 1100)
	deadline := time.Now().Add(30 * time.Second)
	for {
		if err := s.SendPayload(b); err != nil {
			t.Fatal(err)
		}
		select {
		case <-got:
			return
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing arrives on another stream")
		}
	}
}

// want takes numbers in order.
func want(t *testing.T, got chan int, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		select {
		case n := <-got:
			if n != i {
				t.Fatalf("got %d, want %d", n, i)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%d did not arrive", i)
		}
	}
}

// Who speaks plain h3 is served as RFC 9298 has it.
func TestDatagramsOfPlainHTTP3(t *testing.T) {
	tn := newTunnel(t, hbone3.Config{}, func(_ context.Context, in *hbone3.Incoming) {
		if s, err := in.Accept(); err == nil {
			_ = s.ReceivePayloads(func(b []byte, _ bool) error { return s.SendPayload(b) })
		}
	})
	tn.client.NextProtos = []string{"h3"}
	cc, err := hbone3.Dial(t.Context(), tn.tr, tn.addr, tn.client, hbone3.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if p := cc.PeerState().NegotiatedProtocol; p != "h3" {
		t.Fatalf("negotiated %q", p)
	}
	s, _, err := cc.Open(t.Context(), connectUDP("echo:1"))
	if err != nil {
		t.Fatal(err)
	}
	back, done := make(chan string, 64), make(chan error, 1)
	go func() { done <- s.ReceivePayloads(func(b []byte, _ bool) error { back <- string(b); return nil }) }()
	if err := s.SendPayload([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	select {
	case b := <-back:
		if b != "hello" {
			t.Errorf("came back as %q", b)
		}
	case <-time.After(30 * time.Second):
		t.Error("nothing came back")
	}
	s.Reset(hbone.CodeCancel)
	<-done
	cc.Drain()
}
