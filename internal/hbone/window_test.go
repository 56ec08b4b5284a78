package hbone_test

import (
	"context"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
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
			p.accepted(id, app)
		}
		data := 0
		p.ok(p.fr.WritePing(false, [8]byte{1}))
		p.until("an answer to PING", func(f http2.Frame) bool {
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
		p.conn.Close()
	})
}

func TestWindowsThatTurnNegativeAreWaitedOut(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, byAuthority)
	app := listen(t, func(_ context.Context, c net.Conn) { _, _ = c.Write(make([]byte, 300_000)) })
	p := tn.dialPeer(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100_000})
	p.ok(p.fr.WriteWindowUpdate(0, 1<<20))
	p.accepted(1, app)
	got := 0
	p.seen = func(f http2.Frame) {
		if d, ok := f.(*http2.DataFrame); ok {
			got += len(d.Data())
		}
	}
	read := func(upTo int) {
		t.Helper()
		for got < upTo {
			p.until("DATA", func(http2.Frame) bool { return got >= upTo })
		}
		p.alive()
		if got != upTo {
			t.Fatalf("%d bytes came, want %d", got, upTo)
		}
	}
	read(100_000)
	p.ok(p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10_000})) // now at -90,000
	p.ok(p.fr.WriteWindowUpdate(1, 80_000))
	p.alive()
	read(100_000)
	p.ok(p.fr.WriteWindowUpdate(1, 30_000))
	read(120_000)
	p.ok(p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 300_000}))
	read(300_000)
}

func TestDataBeyondTheConnectionWindow(t *testing.T) {
	tn := newTunnel(t, hbone.Config{ConnWindow: 64 << 10, StreamWindow: 64 << 10, MaxStreamWindow: 64 << 10}, byAuthority)
	p := tn.dialPeer(t)
	p.accepted(1, "parked:1")
	p.accepted(3, "parked:1")
	p.ok(p.fr.WriteData(1, false, make([]byte, 40<<10)))
	p.ok(p.fr.WriteData(3, false, make([]byte, 40<<10)))
	p.wantGoAway(http2.ErrCodeFlowControl)
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
		use  func(p *peer, id uint32)
	}{
		{"taken", func(p *peer, id uint32) {
			p.accepted(id, sink)
			p.ok(p.fr.WriteData(id, true, make([]byte, window/2)))
		}},
		{"padding", func(p *peer, id uint32) {
			p.accepted(id, sink)
			for range window / 2 / 256 {
				p.ok(p.fr.WriteDataPadded(id, false, []byte{1}, make([]byte, 254)))
			}
			p.ok(p.fr.WriteData(id, true, nil))
		}},
		{"before the answer", func(p *peer, id uint32) {
			p.connect(id, "undecided:1")
			p.ok(p.fr.WriteData(id, false, make([]byte, window/2)))
			p.ok(p.fr.WriteRSTStream(id, http2.ErrCodeCancel))
		}},
		{"refused", func(p *peer, id uint32) {
			p.connect(id, "refused:1")
			p.ok(p.fr.WriteData(id, false, make([]byte, window/2)))
			p.wantReset(id, http2.ErrCodeNo)
		}},
		{"after the end", func(p *peer, id uint32) {
			p.accepted(id, "parked:1")
			p.ok(p.fr.WriteRSTStream(id, http2.ErrCodeCancel))
			p.ok(p.fr.WriteData(id, false, make([]byte, window/2)))
		}},
		{"application resets", func(p *peer, id uint32) {
			p.accepted(id, resets)
			p.ok(p.fr.WriteData(id, false, make([]byte, window/2)))
		}},
		{"application does not read, peer resets", func(p *peer, id uint32) {
			p.accepted(id, deaf)
			p.ok(p.fr.WriteData(id, false, make([]byte, window/2)))
			p.ok(p.fr.WriteRSTStream(id, http2.ErrCodeCancel))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tn := newTunnel(t, hbone.Config{ConnWindow: window, StreamWindow: window, MaxStreamWindow: window}, byAuthority)
			p := tn.dialPeer(t)
			back, spent := 0, 0
			p.seen = func(f http2.Frame) {
				if w, ok := f.(*http2.WindowUpdateFrame); ok && w.StreamID == 0 {
					back += int(w.Increment)
				}
			}
			for id := uint32(1); id < 20; id += 2 {
				tc.use(p, id)
				// The window is given back in quarters.
				if spent += window / 2; spent-back > window/2 {
					p.until("the window to come back", func(http2.Frame) bool { return spent-back <= window/2 })
				}
			}
		})
	}
}
