package hbone_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/hbonetest"
)

// rawServer lets script serve each connection frame by frame, from after the
// client's preface on.
func (tn *tunnel) rawServer(t testing.TB, script func(p *hbonetest.Peer)) string {
	return listen(t, func(_ context.Context, c net.Conn) {
		s := tls.Server(c, tn.server)
		if s.Handshake() != nil {
			return
		}
		if _, err := io.ReadFull(s, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		script(hbonetest.NewPeer(t, s))
	})
}

func TestClientEndsABadServersConnection(t *testing.T) {
	for _, tc := range []struct {
		name string
		say  func(p *hbonetest.Peer, id uint32)
		want http2.ErrCode
	}{
		{"HEADERS before SETTINGS", nil, http2.ErrCodeProtocol},
		{"push", func(p *hbonetest.Peer, id uint32) { p.Write(hbonetest.Raw(5, 4, id, 0, 0, 0, 2)) }, http2.ErrCodeProtocol},
		{"SETTINGS that allow push", func(p *hbonetest.Peer, _ uint32) {
			p.OK(p.Framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 1}))
		}, http2.ErrCodeProtocol},
		{"HEADERS of a stream that we did not open", func(p *hbonetest.Peer, id uint32) { p.OK(p.Headers(id+2, false, ":status", "200")) }, http2.ErrCodeProtocol},
		{"HEADERS of a stream of its own", func(p *hbonetest.Peer, id uint32) { p.OK(p.Headers(id+1, false, ":status", "200")) }, http2.ErrCodeProtocol},
		{"DATA of a stream that we did not open", func(p *hbonetest.Peer, id uint32) { p.OK(p.Framer.WriteData(id+2, false, []byte("x"))) }, http2.ErrCodeProtocol},
		{"answers that are none, for ever", func(p *hbonetest.Peer, id uint32) {
			p.Flood(50000, func(int) error { return p.Headers(id, false, ":status", "103") })
		}, http2.ErrCodeEnhanceYourCalm},
		{"answers to nobody, for ever", func(p *hbonetest.Peer, id uint32) {
			p.OK(p.Framer.WriteRSTStream(id, http2.ErrCodeCancel))
			p.Flood(50000, func(int) error { return p.Headers(id, false, ":status", "200") })
		}, http2.ErrCodeEnhanceYourCalm},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tn := newTunnel(t, hbone.Config{}, nil)
			done := make(chan struct{})
			tn.addr = tn.rawServer(t, func(p *hbonetest.Peer) {
				defer close(done)
				if tc.say == nil {
					p.OK(p.Headers(1, false, ":status", "200"))
				} else {
					p.OK(p.Framer.WriteSettings())
					tc.say(p, p.Request())
				}
				p.WantGoAway(tc.want)
			})
			// One connection, without a pool that would try another.
			cc, err := hbone.NewClientConn(t.Context(), dial(t, tn.addr), tn.client, hbone.Config{})
			if err != nil {
				t.Fatal(err)
			}
			ran := make(chan struct{})
			go func() {
				defer close(ran)
				_ = cc.Run(t.Context())
			}()
			if _, _, err := cc.Open(t.Context(), hbone.Request{Authority: "x:1"}); err == nil {
				t.Error("the stream was opened")
			}
			<-done
			<-ran
		})
	}
}

func TestClientJudgesAnswers(t *testing.T) {
	headers := func(end bool, fields ...string) func(p *hbonetest.Peer, id uint32) {
		return func(p *hbonetest.Peer, id uint32) { p.OK(p.Headers(id, end, fields...)) }
	}
	for _, tc := range []struct {
		name string
		say  func(p *hbonetest.Peer, id uint32)
		want string // of the error; "" for an open stream
	}{
		{"200", headers(false, ":status", "200"), ""},
		{"200 and nothing more", headers(true, ":status", "200"), ""},
		{"103, then 200", func(p *hbonetest.Peer, id uint32) {
			p.OK(p.Headers(id, false, ":status", "103"))
			p.OK(p.Headers(id, false, ":status", "200"))
		}, ""},
		{"401", headers(true, ":status", "401", "proxy-status", "x; error=http_request_denied"), "tunnel refused: status 401: x; error=http_request_denied"},
		{"204 is not what was asked for", headers(false, ":status", "204"), "tunnel refused: status 204"},
		{"503 with a body", func(p *hbonetest.Peer, id uint32) {
			p.OK(p.Headers(id, false, ":status", "503"))
			// The status says enough: the client may be gone already.
			_ = p.Framer.WriteData(id, true, []byte("no healthy upstream"))
		}, "tunnel refused: status 503"},
		{"no status", headers(false, "a", "b"), "stream reset: PROTOCOL_ERROR"},
		{"a status that is none", headers(false, ":status", "2xx"), "stream reset: PROTOCOL_ERROR"},
		{"a status of four digits", headers(false, ":status", "2000"), "stream reset: PROTOCOL_ERROR"},
		{"103 and nothing more", headers(true, ":status", "103"), "stream reset: PROTOCOL_ERROR"},
		{"malformed", headers(false, ":status", "200", "A", "b"), "stream reset: PROTOCOL_ERROR"},
		{"a request", headers(false, ":status", "200", ":method", "CONNECT"), "stream reset: PROTOCOL_ERROR"},
		{"larger than we said", headers(false, ":status", "200", "a", strings.Repeat("a", 20<<10)), "stream reset: PROTOCOL_ERROR"},
		{"reset", func(p *hbonetest.Peer, id uint32) { p.OK(p.Framer.WriteRSTStream(id, http2.ErrCodeConnect)) }, "stream reset by peer: CONNECT_ERROR"},
		{"hangs up", func(p *hbonetest.Peer, _ uint32) { p.Conn.Close() }, "tunnel connection closed by peer: unexpected EOF"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tn := newTunnel(t, hbone.Config{}, nil)
			tn.addr = tn.rawServer(t, func(p *hbonetest.Peer) {
				p.OK(p.Framer.WriteSettings())
				tc.say(p, p.Request())
				p.Rest()
			})
			s, _, _, err := tn.pool.Open(t.Context(), tn.addr, hbone.Request{Authority: "x:1"})
			if tc.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				s.Reset(hbone.CodeCancel)
				return
			}
			if err == nil || err.Error() != tc.want {
				t.Fatalf("got %v, want %s", err, tc.want)
			}
		})
	}
}

func TestSecondAnswerResetsTheStream(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	told := make(chan struct{})
	tn.addr = tn.rawServer(t, func(p *hbonetest.Peer) {
		defer close(told)
		p.OK(p.Framer.WriteSettings())
		id := p.Request()
		p.OK(p.Headers(id, false, ":status", "200"))
		p.OK(p.Headers(id, false, ":status", "200"))
		p.WantReset(id, http2.ErrCodeProtocol)
	})
	s, _, _, err := tn.pool.Open(t.Context(), tn.addr, hbone.Request{Authority: "x:1"})
	if err == nil {
		<-s.Done()
		err = s.Err()
	}
	<-told
	var reset *hbone.ResetError
	if !errors.As(err, &reset) || reset.Code != hbone.CodeProtocol {
		t.Fatalf("got %v", err)
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	asked, told := make(chan struct{}), make(chan struct{})
	tn.addr = tn.rawServer(t, func(p *hbonetest.Peer) {
		defer close(told)
		p.OK(p.Framer.WriteSettings())
		id := p.Request()
		close(asked)
		p.WantReset(id, http2.ErrCodeCancel)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	_, _, _, err := tn.pool.Open(ctx, tn.addr, hbone.Request{Authority: "x:1"})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	<-told
}

func TestRequestTooLargeIsTheCallersError(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, byAuthority)
	_, _, _, err := tn.pool.Open(t.Context(), tn.addr, hbone.Request{Authority: "parked:1", Fields: []hbone.Field{{Name: "baggage", Value: strings.Repeat("\xff", 20<<10)}}})
	if err == nil || hbone.Unprocessed(err) || !strings.Contains(err.Error(), "header block of") {
		t.Fatalf("got %v", err)
	}
	s, _, _, err := tn.pool.Open(t.Context(), tn.addr, hbone.Request{Authority: "parked:1"})
	if err != nil {
		t.Fatalf("and then: %v", err)
	}
	s.Reset(hbone.CodeCancel)
}
