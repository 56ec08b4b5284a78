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
)

// rawServer lets script serve each connection frame by frame, from after the
// client's preface on.
func (tn *tunnel) rawServer(t testing.TB, script func(p *peer)) string {
	return listen(t, func(_ context.Context, c net.Conn) {
		s := tls.Server(c, tn.server)
		if s.Handshake() != nil {
			return
		}
		if _, err := io.ReadFull(s, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		script(newPeer(t, s))
	})
}

// request reads up to the HEADERS of a request.
func (p *peer) request() (id uint32) {
	p.until("a request", func(f http2.Frame) bool {
		h, ok := f.(*http2.MetaHeadersFrame)
		if ok {
			id = h.StreamID
		}
		return ok
	})
	return id
}

// rest reads until the connection has ended.
func (p *peer) rest() {
	for {
		if _, err := p.fr.ReadFrame(); err != nil {
			return
		}
	}
}

func TestClientEndsABadServersConnection(t *testing.T) {
	for _, tc := range []struct {
		name string
		say  func(p *peer, id uint32)
		want http2.ErrCode
	}{
		{"HEADERS before SETTINGS", nil, http2.ErrCodeProtocol},
		{"push", func(p *peer, id uint32) { p.write(raw(5, 4, id, 0, 0, 0, 2)) }, http2.ErrCodeProtocol},
		{"SETTINGS that allow push", func(p *peer, _ uint32) { p.ok(p.fr.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 1})) }, http2.ErrCodeProtocol},
		{"HEADERS of a stream that we did not open", func(p *peer, id uint32) { p.ok(p.headers(id+2, false, ":status", "200")) }, http2.ErrCodeProtocol},
		{"HEADERS of a stream of its own", func(p *peer, id uint32) { p.ok(p.headers(id+1, false, ":status", "200")) }, http2.ErrCodeProtocol},
		{"DATA of a stream that we did not open", func(p *peer, id uint32) { p.ok(p.fr.WriteData(id+2, false, []byte("x"))) }, http2.ErrCodeProtocol},
		{"answers that are none, for ever", func(p *peer, id uint32) {
			p.flood(50000, func(int) error { return p.headers(id, false, ":status", "103") })
		}, http2.ErrCodeEnhanceYourCalm},
		{"answers to nobody, for ever", func(p *peer, id uint32) {
			p.ok(p.fr.WriteRSTStream(id, http2.ErrCodeCancel))
			p.flood(50000, func(int) error { return p.headers(id, false, ":status", "200") })
		}, http2.ErrCodeEnhanceYourCalm},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tn := newTunnel(t, hbone.Config{}, nil)
			done := make(chan struct{})
			tn.addr = tn.rawServer(t, func(p *peer) {
				defer close(done)
				if tc.say == nil {
					p.ok(p.headers(1, false, ":status", "200"))
				} else {
					p.ok(p.fr.WriteSettings())
					tc.say(p, p.request())
				}
				p.wantGoAway(tc.want)
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
	headers := func(end bool, fields ...string) func(p *peer, id uint32) {
		return func(p *peer, id uint32) { p.ok(p.headers(id, end, fields...)) }
	}
	for _, tc := range []struct {
		name string
		say  func(p *peer, id uint32)
		want string // of the error; "" for an open stream
	}{
		{"200", headers(false, ":status", "200"), ""},
		{"200 and nothing more", headers(true, ":status", "200"), ""},
		{"103, then 200", func(p *peer, id uint32) {
			p.ok(p.headers(id, false, ":status", "103"))
			p.ok(p.headers(id, false, ":status", "200"))
		}, ""},
		{"401", headers(true, ":status", "401", "proxy-status", "x; error=http_request_denied"), "tunnel refused: status 401: x; error=http_request_denied"},
		{"204 is not what was asked for", headers(false, ":status", "204"), "tunnel refused: status 204"},
		{"503 with a body", func(p *peer, id uint32) {
			p.ok(p.headers(id, false, ":status", "503"))
			p.ok(p.fr.WriteData(id, true, []byte("no healthy upstream")))
		}, "tunnel refused: status 503"},
		{"no status", headers(false, "a", "b"), "stream reset: PROTOCOL_ERROR"},
		{"a status that is none", headers(false, ":status", "2xx"), "stream reset: PROTOCOL_ERROR"},
		{"a status of four digits", headers(false, ":status", "2000"), "stream reset: PROTOCOL_ERROR"},
		{"103 and nothing more", headers(true, ":status", "103"), "stream reset: PROTOCOL_ERROR"},
		{"malformed", headers(false, ":status", "200", "A", "b"), "stream reset: PROTOCOL_ERROR"},
		{"a request", headers(false, ":status", "200", ":method", "CONNECT"), "stream reset: PROTOCOL_ERROR"},
		{"larger than we said", headers(false, ":status", "200", "a", strings.Repeat("a", 20<<10)), "stream reset: PROTOCOL_ERROR"},
		{"reset", func(p *peer, id uint32) { p.ok(p.fr.WriteRSTStream(id, http2.ErrCodeConnect)) }, "stream reset by peer: CONNECT_ERROR"},
		{"hangs up", func(p *peer, _ uint32) { p.conn.Close() }, "tunnel connection closed by peer: unexpected EOF"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tn := newTunnel(t, hbone.Config{}, nil)
			tn.addr = tn.rawServer(t, func(p *peer) {
				p.ok(p.fr.WriteSettings())
				tc.say(p, p.request())
				p.rest()
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
	tn.addr = tn.rawServer(t, func(p *peer) {
		defer close(told)
		p.ok(p.fr.WriteSettings())
		id := p.request()
		p.ok(p.headers(id, false, ":status", "200"))
		p.ok(p.headers(id, false, ":status", "200"))
		p.wantReset(id, http2.ErrCodeProtocol)
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
	tn.addr = tn.rawServer(t, func(p *peer) {
		defer close(told)
		p.ok(p.fr.WriteSettings())
		id := p.request()
		close(asked)
		p.wantReset(id, http2.ErrCodeCancel)
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
