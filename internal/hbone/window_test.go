package hbone_test

import (
	"context"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/hbonetest"
)

func TestZeroWindowsHoldUpNobodyElse(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, byAuthority)
	app := listen(t, func(_ context.Context, c net.Conn) {
		for {
			if _, err := c.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	tn.unharmed(t, func() {
		p := tn.dialPeer(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		for id := uint32(1); id < 60; id += 2 {
			p.Accepted(id, app)
		}
		data := 0
		p.OK(p.Framer.WritePing(false, [8]byte{1}))
		p.Until("an answer to PING", func(f http2.Frame) bool {
			d, ok := f.(*http2.DataFrame)
			if ok {
				data += len(d.Data())
			}
			_, ping := f.(*http2.PingFrame)
			return ping
		})
		if data > 0 {
			t.Errorf("%d bytes came without a window", data)
		}
		p.Conn.Close()
	})
}

func TestWindowsThatTurnNegativeAreWaitedOut(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, byAuthority)
	app := listen(t, func(_ context.Context, c net.Conn) { _, _ = c.Write(make([]byte, 300_000)) })
	p := tn.dialPeer(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100_000})
	p.OK(p.Framer.WriteWindowUpdate(0, 1<<20))
	p.Accepted(1, app)
	got := 0
	p.Seen = func(f http2.Frame) {
		if d, ok := f.(*http2.DataFrame); ok {
			got += len(d.Data())
		}
	}
	read := func(upTo int) {
		t.Helper()
		for got < upTo {
			p.Until("DATA", func(http2.Frame) bool { return got >= upTo })
		}
		p.Alive()
		if got != upTo {
			t.Fatalf("%d bytes came, want %d", got, upTo)
		}
	}
	read(100_000)
	p.OK(p.Framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10_000})) // now at -90,000
	p.OK(p.Framer.WriteWindowUpdate(1, 80_000))
	p.Alive()
	read(100_000)
	p.OK(p.Framer.WriteWindowUpdate(1, 30_000))
	read(120_000)
	p.OK(p.Framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 300_000}))
	read(300_000)
}

func TestDataBeyondTheConnectionWindow(t *testing.T) {
	tn := newTunnel(t, hbone.Config{ConnWindow: 64 << 10, StreamWindow: 64 << 10, MaxStreamWindow: 64 << 10}, byAuthority)
	p := tn.dialPeer(t)
	p.Accepted(1, "parked:1")
	p.Accepted(3, "parked:1")
	p.OK(p.Framer.WriteData(1, false, make([]byte, 40<<10)))
	p.OK(p.Framer.WriteData(3, false, make([]byte, 40<<10)))
	p.WantGoAway(http2.ErrCodeFlowControl)
}

// Whatever becomes of a stream, its bytes come back to the connection's window.
func TestConnectionWindowIsNeverLost(t *testing.T) {
	const window = 64 << 10
	sink := listen(t, func(_ context.Context, c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	resets := listen(t, func(_ context.Context, c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		_ = c.(*net.TCPConn).SetLinger(0)
	})
	deaf := listen(t, func(ctx context.Context, _ net.Conn) { <-ctx.Done() })
	for _, tc := range []struct {
		name string
		use  func(p *hbonetest.Peer, id uint32)
	}{
		{"taken", func(p *hbonetest.Peer, id uint32) {
			p.Accepted(id, sink)
			p.OK(p.Framer.WriteData(id, true, make([]byte, window/2)))
		}},
		{"padding", func(p *hbonetest.Peer, id uint32) {
			p.Accepted(id, sink)
			for range window / 2 / 256 {
				p.OK(p.Framer.WriteDataPadded(id, false, []byte{1}, make([]byte, 254)))
			}
			p.OK(p.Framer.WriteData(id, true, nil))
		}},
		{"before the answer", func(p *hbonetest.Peer, id uint32) {
			p.Connect(id, "undecided:1")
			p.OK(p.Framer.WriteData(id, false, make([]byte, window/2)))
			p.OK(p.Framer.WriteRSTStream(id, http2.ErrCodeCancel))
		}},
		{"refused", func(p *hbonetest.Peer, id uint32) {
			p.Connect(id, "refused:1")
			p.OK(p.Framer.WriteData(id, false, make([]byte, window/2)))
			p.WantReset(id, http2.ErrCodeNo)
		}},
		{"after the end", func(p *hbonetest.Peer, id uint32) {
			p.Accepted(id, "parked:1")
			p.OK(p.Framer.WriteRSTStream(id, http2.ErrCodeCancel))
			p.OK(p.Framer.WriteData(id, false, make([]byte, window/2)))
		}},
		{"application resets", func(p *hbonetest.Peer, id uint32) {
			p.Accepted(id, resets)
			p.OK(p.Framer.WriteData(id, false, make([]byte, window/2)))
		}},
		{"application does not read, peer resets", func(p *hbonetest.Peer, id uint32) {
			p.Accepted(id, deaf)
			p.OK(p.Framer.WriteData(id, false, make([]byte, window/2)))
			p.OK(p.Framer.WriteRSTStream(id, http2.ErrCodeCancel))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tn := newTunnel(t, hbone.Config{ConnWindow: window, StreamWindow: window, MaxStreamWindow: window}, byAuthority)
			p := tn.dialPeer(t)
			back, spent := 0, 0
			p.Seen = func(f http2.Frame) {
				if w, ok := f.(*http2.WindowUpdateFrame); ok && w.StreamID == 0 {
					back += int(w.Increment)
				}
			}
			for id := uint32(1); id < 20; id += 2 {
				tc.use(p, id)
				// The window is given back in quarters.
				if spent += window / 2; spent-back > window/2 {
					p.Until("the window to come back", func(http2.Frame) bool { return spent-back <= window/2 })
				}
			}
		})
	}
}
