package http2_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	xhttp2 "golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/http2"
	"github.com/ambit-mesh/ambit/internal/message"
)

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
			s := make([]xhttp2.Setting, 160)
			for j := range s {
				s[j] = xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: uint32(1000 + (i+j)%2)}
			}
			return p.fr.WriteSettings(s...)
		}},
		{"acknowledged SETTINGS", func(p *peer, _ int) error { return p.fr.WriteSettingsAck() }},
		{"empty DATA", func(p *peer, _ int) error { return p.fr.WriteData(1, false, nil) }},
		{"DATA of padding alone", func(p *peer, _ int) error { return p.fr.WriteDataPadded(1, false, nil, make([]byte, 8)) }},
		{"PRIORITY", func(p *peer, i int) error { return p.fr.WritePriority(id(i), xhttp2.PriorityParam{Weight: 1}) }},
		{"unknown frames", func(p *peer, _ int) error { return p.fr.WriteRawFrame(0xbe, 0, 0, nil) }},
		{"tiny WINDOW_UPDATE", func(p *peer, _ int) error { return p.fr.WriteWindowUpdate(0, 1) }},
		{"GOAWAY", func(p *peer, _ int) error { return p.fr.WriteGoAway(0, xhttp2.ErrCodeNo, nil) }},
		{"rapid reset", func(p *peer, i int) error {
			if err := p.begin(id(i), false, "/undecided"); err != nil {
				return err
			}
			return p.fr.WriteRSTStream(id(i), xhttp2.ErrCodeCancel)
		}},
		{"resets that we are made to send", func(p *peer, i int) error {
			if err := p.begin(id(i), false, "/undecided"); err != nil {
				return err
			}
			return p.fr.WriteWindowUpdate(id(i), 0)
		}},
		{"streams beyond the limit", func(p *peer, i int) error { return p.begin(id(i), true, "/undecided") }},
		{"malformed requests", func(p *peer, i int) error { return p.begin(id(i), true, "nowhere") }},
		{"heads that are too large", func(p *peer, i int) error { return p.begin(id(i), true, "/"+strings.Repeat("x", 70000)) }},
		{"CONTINUATION", func(p *peer, i int) error {
			if i == 0 {
				return p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: p.block(":method", "GET")})
			}
			return p.fr.WriteContinuation(3, false, nil)
		}},
		{"a header block without end", func(p *peer, i int) error {
			if i == 0 {
				return p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: p.block(":method", "GET")})
			}
			return p.fr.WriteContinuation(3, false, make([]byte, 16000))
		}},
		{"HPACK references that expand", func(p *peer, i int) error {
			block := p.block(":method", "GET")
			if i == 0 {
				block = append(block, p.block("a", strings.Repeat("x", 3500))...)
			}
			for range 15000 {
				block = append(block, 0x80|62) // the newest entry of the table
			}
			return p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id(i), BlockFragment: block, EndHeaders: true})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := clientOf(t, http2.Config{}, byPath).hello()
			p.get(1, false, "/parked")
			p.wantStatus(1, "200")
			if got := p.flood(20000, func(i int) error { return tc.write(p, i) }); got != xhttp2.ErrCodeEnhanceYourCalm {
				t.Errorf("GOAWAY %s, want ENHANCE_YOUR_CALM", got)
			}
		})
	}
}

// begin is get for a flood.
func (p *peer) begin(id uint32, end bool, path string) error {
	b := p.block(":method", "GET", ":scheme", "http", ":path", path, ":authority", "shop")
	n := min(len(b), 1<<14)
	if err := p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: b[:n], EndHeaders: n == len(b), EndStream: end}); err != nil {
		return err
	}
	for b = b[n:]; len(b) > 0; b = b[n:] {
		n = min(len(b), 1<<14)
		if err := p.fr.WriteContinuation(id, n == len(b), b[:n]); err != nil {
			return err
		}
	}
	return nil
}

// A peer that has reason for its frames is no flood.
func TestHonestWorkIsNoFlood(t *testing.T) {
	p := clientOf(t, http2.Config{}, byPath).hello()
	id := uint32(1)
	for range 3000 {
		p.get(id, true, "/ended")
		p.wantStatus(id, "200")
		// As chatty as clients get: two updates and a PING for each answer.
		p.ok(p.fr.WriteWindowUpdate(0, 5))
		p.ok(p.fr.WriteWindowUpdate(id, 5))
		p.alive()
		id += 2
	}
}

func TestStreamsBeyondTheLimitAreRefusedFirst(t *testing.T) {
	told := make(chan message.Rejection, 2)
	p := clientOf(t, http2.Config{MaxStreams: 3, Rejected: func(r message.Rejection) { told <- r }}, byPath).hello()
	for id := uint32(1); id < 7; id += 2 {
		p.get(id, false, "/parked")
		p.wantStatus(id, "200")
	}
	p.get(7, true, "/parked")
	p.wantReset(7, xhttp2.ErrCodeRefusedStream)
	if r := <-told; r.Limit != "max_streams" || r.Status != 0 {
		t.Errorf("told of %+v", r)
	}
	// Room made is room.
	p.ok(p.fr.WriteRSTStream(3, xhttp2.ErrCodeCancel))
	p.get(9, true, "/parked")
	p.wantStatus(9, "200")
}

// A stream that was reset does not count for its peer, but its handler may take a
// while to return.
func TestHandlersOfResetStreamsAreBounded(t *testing.T) {
	release, started := make(chan struct{}), make(chan struct{}, 100)
	p := clientOf(t, http2.Config{MaxStreams: 4}, func(context.Context, *message.Request, message.Responder) {
		started <- struct{}{}
		<-release
	}).hello()
	defer close(release)
	id := uint32(1)
	for range 8 {
		p.get(id, true, "/")
		p.ok(p.fr.WriteRSTStream(id, xhttp2.ErrCodeCancel))
		id += 2
		<-started
	}
	p.get(id, true, "/")
	p.wantReset(id, xhttp2.ErrCodeRefusedStream)
	if len(started) > 0 {
		t.Fatal("a ninth handler was started")
	}
}

// A client that asks and reads nothing does not fill our memory with answers.
func TestAnswersThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		large := strings.Repeat("x", 10000)
		var ended atomic.Int64
		p := clientOf(t, http2.Config{}, func(_ context.Context, _ *message.Request, w message.Responder) {
			answer(w, 200, "", message.Field{Name: "large", Value: large})
			ended.Add(1)
		}).hello()
		for i := range 400 {
			p.ok(p.begin(uint32(2*i+1), true, "/"))
			synctest.Wait()
		}
		// The pipe and what is pending take 256 KiB each.
		if n := ended.Load(); n > 60 {
			t.Errorf("%d answers of 10 KB were taken, and nobody reads", n)
		}
		if err := <-p.ended; !strings.Contains(err.Error(), "took no byte for 30s") {
			t.Errorf("Run: %v", err)
		}
	})
}
