package hbone_test

import (
	"context"
	"testing"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// drainReads reads what the server says while a flood is under way, so that the
// flood is not throttled by its answers, and gives the last GOAWAY's code.
func (p *peer) drainReads() (code func() http2.ErrCode) {
	got := make(chan http2.ErrCode, 1)
	go func() {
		last := http2.ErrCode(0xffff)
		for {
			f, err := p.fr.ReadFrame()
			if err != nil {
				got <- last
				return
			}
			if g, ok := f.(*http2.GoAwayFrame); ok {
				last = g.ErrCode
			}
		}
	}()
	return func() http2.ErrCode { return <-got }
}

func TestFloodsEndInEnhanceYourCalm(t *testing.T) {
	id := func(i int) uint32 { return uint32(2*i + 3) }
	for _, tc := range []struct {
		name  string
		write func(p *peer, i int) error
	}{
		{"PING", func(p *peer, _ int) error { return p.fr.WritePing(false, [8]byte{}) }},
		{"acknowledged PING", func(p *peer, _ int) error { return p.fr.WritePing(true, [8]byte{}) }},
		{"SETTINGS", func(p *peer, _ int) error { return p.fr.WriteSettings() }},
		{"SETTINGS that move every window", func(p *peer, i int) error {
			s := make([]http2.Setting, 160)
			for j := range s {
				s[j] = http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(1000 + (i+j)%2)}
			}
			return p.fr.WriteSettings(s...)
		}},
		{"acknowledged SETTINGS", func(p *peer, _ int) error { return p.fr.WriteSettingsAck() }},
		{"empty DATA", func(p *peer, _ int) error { return p.fr.WriteData(1, false, nil) }},
		{"DATA of padding alone", func(p *peer, _ int) error { return p.fr.WriteDataPadded(1, false, nil, make([]byte, 8)) }},
		{"PRIORITY", func(p *peer, i int) error { return p.fr.WritePriority(id(i), http2.PriorityParam{Weight: 1}) }},
		{"unknown frames", func(p *peer, _ int) error { return p.fr.WriteRawFrame(0xbe, 0, 0, nil) }},
		{"tiny WINDOW_UPDATE", func(p *peer, _ int) error { return p.fr.WriteWindowUpdate(0, 1) }},
		{"GOAWAY", func(p *peer, _ int) error { return p.fr.WriteGoAway(0, http2.ErrCodeNo, nil) }},
		{"rapid reset", func(p *peer, i int) error {
			if err := p.headers(id(i), false, ":method", "CONNECT", ":authority", "undecided:1"); err != nil {
				return err
			}
			return p.fr.WriteRSTStream(id(i), http2.ErrCodeCancel)
		}},
		{"streams beyond the limit", func(p *peer, i int) error {
			return p.headers(id(i), false, ":method", "CONNECT", ":authority", "undecided:1")
		}},
		{"requests that are none", func(p *peer, i int) error {
			return p.headers(id(i), true, ":method", "GET", ":scheme", "https", ":path", "/", ":authority", "x")
		}},
		{"CONTINUATION", func(p *peer, i int) error {
			if i == 0 {
				return p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: p.block(":method", "CONNECT")})
			}
			return p.fr.WriteContinuation(3, false, nil)
		}},
		{"a header block without end", func(p *peer, i int) error {
			if i == 0 {
				return p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: p.block(":method", "CONNECT")})
			}
			return p.fr.WriteContinuation(3, false, make([]byte, 4000))
		}},
		{"HPACK references that expand", func(p *peer, i int) error {
			block := p.block(":method", "CONNECT", ":authority", "undecided:1")
			if i == 0 {
				block = append(block, p.block("a", string(make([]byte, 3500)))...)
			}
			for range 15000 {
				block = append(block, 0x80|62) // the newest entry of the table
			}
			return p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id(i), BlockFragment: block, EndHeaders: true})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tn := newTunnel(t, hbone.Config{}, byAuthority)
			tn.unharmed(t, func() {
				p := tn.dialPeer(t)
				p.accepted(1, "parked:1")
				code := p.drainReads()
				p.flood(50000, func(i int) error { return tc.write(p, i) })
				if got := code(); got != http2.ErrCodeEnhanceYourCalm {
					t.Errorf("GOAWAY %s, want ENHANCE_YOUR_CALM", got)
				}
			})
		})
	}
}

func TestStreamsBeyondTheLimitAreRefusedFirst(t *testing.T) {
	tn := newTunnel(t, hbone.Config{MaxStreams: 3}, byAuthority)
	p := tn.dialPeer(t)
	for id := uint32(1); id < 7; id += 2 {
		p.accepted(id, "parked:1")
	}
	p.connect(7, "parked:1")
	p.wantReset(7, http2.ErrCodeRefusedStream)
	// Room made is room.
	p.ok(p.fr.WriteRSTStream(3, http2.ErrCodeCancel))
	p.accepted(9, "parked:1")
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
		p.connect(id, "x:1")
		p.ok(p.fr.WriteRSTStream(id, http2.ErrCodeCancel))
		id += 2
		<-started
	}
	p.connect(id, "x:1")
	p.wantReset(id, http2.ErrCodeRefusedStream)
	if len(started) > 0 {
		t.Fatal("a ninth handler was started")
	}
}
