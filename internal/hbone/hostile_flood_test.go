package hbone_test

import (
	"context"
	"testing"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/hbonetest"
)

func TestFloodsEndInEnhanceYourCalm(t *testing.T) {
	for _, f := range hbonetest.Floods("undecided:1") {
		t.Run(f.Name, func(t *testing.T) {
			tn := newTunnel(t, hbone.Config{}, byAuthority)
			tn.unharmed(t, func() {
				p := tn.dialPeer(t)
				p.Accepted(1, "parked:1")
				f.Exhausts(p)
			})
		})
	}
}

func TestStreamsBeyondTheLimitAreRefusedFirst(t *testing.T) {
	tn := newTunnel(t, hbone.Config{MaxStreams: 3}, byAuthority)
	p := tn.dialPeer(t)
	for id := uint32(1); id < 7; id += 2 {
		p.Accepted(id, "parked:1")
	}
	p.Connect(7, "parked:1")
	p.WantReset(7, http2.ErrCodeRefusedStream)
	// Room made is room.
	p.OK(p.Framer.WriteRSTStream(3, http2.ErrCodeCancel))
	p.Accepted(9, "parked:1")
}

// A stream that was reset does not count for its peer, but its handler may take a
// while to return.
func TestHandlersOfResetStreamsAreBounded(t *testing.T) {
	release := make(chan struct{})
	started := make(chan struct{}, 100)
	tn := newTunnel(t, hbone.Config{MaxStreams: 4}, func(_ context.Context, in *hbone.Incoming) {
		started <- struct{}{}
		<-release
		in.Refuse(503, "")
	})
	defer close(release)
	p := tn.dialPeer(t)
	id := uint32(1)
	for range 8 {
		p.Connect(id, "x:1")
		p.OK(p.Framer.WriteRSTStream(id, http2.ErrCodeCancel))
		id += 2
		<-started
	}
	p.Connect(id, "x:1")
	p.WantReset(id, http2.ErrCodeRefusedStream)
	if len(started) > 0 {
		t.Fatal("a ninth handler was started")
	}
}
