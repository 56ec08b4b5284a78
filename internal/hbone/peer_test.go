package hbone_test

import (
	"context"
	"crypto/tls"
	"io"
	"runtime"
	"testing"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/hbonetest"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

// dialRaw does the TLS handshake with the server of tn and nothing else.
func (tn *tunnel) dialRaw(t testing.TB) *hbonetest.Peer {
	t.Helper()
	c := tls.Client(dial(t, tn.addr), tn.client)
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return hbonetest.NewPeer(t, c)
}

// dialPeer also says hello.
func (tn *tunnel) dialPeer(t testing.TB, settings ...http2.Setting) *hbonetest.Peer {
	t.Helper()
	p := tn.dialRaw(t)
	p.Hello(settings...)
	return p
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
