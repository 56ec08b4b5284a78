package hbone_test

import (
	"context"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/hbonetest"
)

func TestRequestsThatAreNoConnect(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, byAuthority)
	const prefix = "ambit; error=http_request_error; details="
	for _, tc := range []struct {
		name   string
		fields []string
		status string
		reason string
	}{
		{"GET", []string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "x:1"}, "400", `"method must be CONNECT"`},
		{"no method", []string{":authority", "x:1"}, "400", `"method must be CONNECT"`},
		{"no authority", []string{":method", "CONNECT"}, "400", `"no authority"`},
		{"empty authority", []string{":method", "CONNECT", ":authority", ""}, "400", `"no authority"`},
		{"CONNECT with a path", []string{":method", "CONNECT", ":authority", "x:1", ":path", "/"}, "400", `"malformed: pseudo-header field \":path\""`},
		{"extended CONNECT", []string{":method", "CONNECT", ":protocol", "websocket", ":authority", "x:1"}, "400", `"malformed: an extended CONNECT needs :scheme and :path"`},
		{"extended CONNECT of a protocol that is not served", []string{":method", "CONNECT", ":protocol", "websocket", ":authority", "x:1", ":scheme", "https", ":path", "/"}, "501", `"no such protocol here"`},
		{"two authorities", []string{":method", "CONNECT", ":authority", "x:1", ":authority", "y:1"}, "400", `"malformed: pseudo-header field :authority twice"`},
		{"a status", []string{":method", "CONNECT", ":authority", "x:1", ":status", "200"}, "400", `"malformed: pseudo-header field :status"`},
		{"pseudo-header field after a regular one", []string{":method", "CONNECT", "a", "b", ":authority", "x:1"}, "400", `"malformed: pseudo-header field after a regular one"`},
		{"upper case", []string{":method", "CONNECT", ":authority", "x:1", "Forwarded", "for=x"}, "400", `"malformed: field \"Forwarded\""`},
		{"connection header", []string{":method", "CONNECT", ":authority", "x:1", "connection", "close"}, "400", `"malformed: field \"connection\""`},
		{"line feed in a value", []string{":method", "CONNECT", ":authority", "x:1", "baggage", "a\nb"}, "400", `"malformed: field \"baggage\""`},
		{"unprintable name", []string{":method", "CONNECT", ":authority", "x:1", "a\x00\"b", "c"}, "400", `"malformed: field \"a\\x00\\\"b\""`},
		{"header too large", []string{":method", "CONNECT", ":authority", "x:1", "baggage", strings.Repeat("a", 17<<10)}, "431", `"header fields too large"`},
		{"many small fields", many(600), "431", `"header fields too large"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := tn.dialPeer(t)
			p.OK(p.Headers(1, false, tc.fields...))
			got := p.Answer(1)
			if !got.StreamEnded() || got.PseudoValue("status") != tc.status {
				t.Fatalf("answer %v, want %s and the end of the stream", got, tc.status)
			}
			if f := got.RegularFields(); len(f) != 1 || f[0].Name != "proxy-status" || f[0].Value != prefix+tc.reason {
				t.Fatalf("fields %v, want proxy-status with %s", f, tc.reason)
			}
			p.WantReset(1, http2.ErrCodeNo)
			p.Accepted(3, "parked:1") // others go on
		})
	}
}

func many(n int) []string {
	f := []string{":method", "CONNECT", ":authority", "x:1"}
	for range n {
		f = append(f, "a", "b")
	}
	return f
}

func TestHeaderBlocksTooLargeToDecode(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, byAuthority)
	for name, write := range map[string]func(p *hbonetest.Peer) error{
		"one frame": func(p *hbonetest.Peer) error {
			return p.Headers(1, false, ":method", "CONNECT", ":authority", "x:1", "a", strings.Repeat("\xff", 17<<10))
		},
		"several frames": func(p *hbonetest.Peer) error {
			if err := p.Framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: make([]byte, 10<<10)}); err != nil {
				return err
			}
			return p.Framer.WriteContinuation(1, true, make([]byte, 10<<10))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := tn.dialPeer(t)
			p.OK(write(p))
			p.WantGoAway(http2.ErrCodeEnhanceYourCalm)
		})
	}
}

func TestHandlersThatAnswerOddly(t *testing.T) {
	outcome := make(chan error, 1)
	answeredTwice := make(chan struct{})
	tn := newTunnel(t, hbone.Config{}, func(ctx context.Context, in *hbone.Incoming) {
		var failed error
		defer func() { outcome <- failed }()
		switch in.Authority {
		case "neither:1":
		case "twice:1":
			_, _ = in.Accept()
			_, failed = in.Accept()
			close(answeredTwice)
			parked(ctx, in)
		case "refused-after:1":
			_, _ = in.Accept()
			in.Refuse(503, "")
		case "accepted-after:1":
			in.Refuse(503, "")
			_, failed = in.Accept()
		case "refused-twice:1":
			in.Refuse(503, "")
			in.Refuse(404, "")
		case "fields-too-large:1":
			_, failed = in.Accept(hbone.Field{Name: "baggage", Value: strings.Repeat("\xff", 17<<10)})
			in.Refuse(500, "")
		case "reason-too-large:1":
			in.Refuse(503, strings.Repeat("\xff", 17<<10))
		case "reset:1":
			in.Stream().Reset(hbone.CodeConnect)
			_, failed = in.Accept()
		case "reset-after:1":
			s, _ := in.Accept()
			s.Reset(hbone.CodeConnect)
			in.Refuse(503, "")
		}
	})
	for _, tc := range []struct {
		authority string
		status    string // "" for none
		code      http2.ErrCode
		failed    string
	}{
		{"neither:1", "", http2.ErrCodeCancel, ""},
		{"twice:1", "200", http2.ErrCodeCancel, "stream was answered before"},
		{"refused-after:1", "200", http2.ErrCodeCancel, ""},
		{"accepted-after:1", "503", http2.ErrCodeNo, "tunnel refused: status 503"},
		{"refused-twice:1", "503", http2.ErrCodeNo, ""},
		{"fields-too-large:1", "500", http2.ErrCodeNo, "header block of"},
		{"reason-too-large:1", "", http2.ErrCodeInternal, ""},
		{"reset:1", "", http2.ErrCodeConnect, "stream reset: CONNECT_ERROR"},
		{"reset-after:1", "200", http2.ErrCodeConnect, ""},
	} {
		t.Run(tc.authority, func(t *testing.T) {
			p := tn.dialPeer(t)
			var statuses []string
			p.Seen = func(f http2.Frame) {
				if h, ok := f.(*http2.MetaHeadersFrame); ok {
					statuses = append(statuses, h.PseudoValue("status"))
				}
			}
			p.Connect(1, tc.authority)
			if tc.authority == "twice:1" {
				p.Answer(1)
				<-answeredTwice
				p.OK(p.Framer.WriteData(1, true, nil))
				p.OK(p.Framer.WriteRSTStream(1, http2.ErrCodeCancel))
			} else {
				p.WantReset(1, tc.code)
			}
			p.Alive()
			if got := strings.Join(statuses, " "); got != tc.status {
				t.Errorf("answered %q, want %q", got, tc.status)
			}
			if failed := <-outcome; tc.failed != "" && (failed == nil || !strings.Contains(failed.Error(), tc.failed)) {
				t.Errorf("the handler saw %v, want %q", failed, tc.failed)
			}
		})
	}
}
