package hbone_test

import (
	"context"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/hbonetest"
)

// byAuthority lets the peer choose what becomes of its stream.
func byAuthority(ctx context.Context, in *hbone.Incoming) {
	switch in.Authority {
	case "parked:1":
		parked(ctx, in)
	case "undecided:1":
		<-in.Stream().Done()
	case "refused:1":
		in.Refuse(503, hbone.ProxyStatus("connection_refused", "as asked"))
	case "silent:1":
	default:
		connectHandler(ctx, in)
	}
}

func TestViolationsEndTheConnectionWithTheirCode(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, byAuthority)
	for _, tc := range []struct {
		name string
		say  func(p *hbonetest.Peer)
		want http2.ErrCode
	}{
		{"DATA on stream 0", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(0, 0, 0, 'x')) }, http2.ErrCodeProtocol},
		{"DATA on an idle stream", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(0, 0, 7, 'x')) }, http2.ErrCodeProtocol},
		{"DATA on an even stream", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(0, 0, 2, 'x')) }, http2.ErrCodeProtocol},
		{"DATA frame beyond the announced size", func(p *hbonetest.Peer) { p.Write([]byte{0x10, 0, 1, 0, 0, 0, 0, 0, 1}) }, http2.ErrCodeFrameSize},
		{"padded DATA without pad length", func(p *hbonetest.Peer) { p.Accepted(1, "parked:1"); p.Write(hbonetest.Raw(0, 8, 1)) }, http2.ErrCodeProtocol},
		{"padding longer than DATA", func(p *hbonetest.Peer) { p.Accepted(1, "parked:1"); p.Write(hbonetest.Raw(0, 8, 1, 5, 'x')) }, http2.ErrCodeProtocol},
		{"HEADERS on stream 0", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(1, 4, 0, 0x82)) }, http2.ErrCodeProtocol},
		{"HEADERS on an even stream", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(1, 4, 2, 0x82)) }, http2.ErrCodeProtocol},
		{"padding longer than HEADERS", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(1, 4|8, 1, 200, 0x82)) }, http2.ErrCodeProtocol},
		{"HEADERS too short for a priority", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(1, 4|0x20, 1, 0, 0)) }, http2.ErrCodeFrameSize},
		{"HEADERS on a lower stream", func(p *hbonetest.Peer) { p.Accepted(5, "parked:1"); p.Connect(3, "parked:1") }, http2.ErrCodeStreamClosed},
		{"broken HPACK", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(1, 4, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)) }, http2.ErrCodeCompression},
		{"truncated HPACK", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(1, 4, 1, 0x40, 0x0a, 'x')) }, http2.ErrCodeCompression},
		{"HPACK table above the limit", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(1, 4, 1, 0x3f, 0xe1, 0xff, 0x03)) }, http2.ErrCodeCompression},
		{"CONTINUATION without HEADERS", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(9, 4, 1, 0x82)) }, http2.ErrCodeProtocol},
		{"CONTINUATION of another stream", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(1, 0, 1, 0x82)); p.Write(hbonetest.Raw(9, 4, 3, 0x82)) }, http2.ErrCodeProtocol},
		{"another frame inside a header block", func(p *hbonetest.Peer) {
			p.Write(hbonetest.Raw(1, 0, 1, 0x82))
			p.Write(hbonetest.Raw(6, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8))
		}, http2.ErrCodeProtocol},
		{"PRIORITY on stream 0", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(2, 0, 0, 0, 0, 0, 0, 1)) }, http2.ErrCodeProtocol},
		{"PRIORITY of 4 bytes", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(2, 0, 1, 0, 0, 0, 0)) }, http2.ErrCodeFrameSize},
		{"RST_STREAM on stream 0", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(3, 0, 0, 0, 0, 0, 8)) }, http2.ErrCodeProtocol},
		{"RST_STREAM on an idle stream", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(3, 0, 9, 0, 0, 0, 8)) }, http2.ErrCodeProtocol},
		{"RST_STREAM of 3 bytes", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(3, 0, 1, 0, 0, 8)) }, http2.ErrCodeFrameSize},
		{"SETTINGS on a stream", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(4, 0, 1)) }, http2.ErrCodeProtocol},
		{"SETTINGS of 5 bytes", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(4, 0, 0, 0, 1, 0, 0, 0)) }, http2.ErrCodeFrameSize},
		{"acknowledged SETTINGS with a payload", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(4, 1, 0, 0, 3, 0, 0, 0, 1)) }, http2.ErrCodeFrameSize},
		{"SETTINGS with a window above the maximum", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(4, 0, 0, 0, 4, 0x80, 0, 0, 0)) }, http2.ErrCodeFlowControl},
		{"SETTINGS with a frame size below the minimum", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(4, 0, 0, 0, 5, 0, 0, 0x3f, 0xff)) }, http2.ErrCodeProtocol},
		{"SETTINGS with push 2", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(4, 0, 0, 0, 2, 0, 0, 0, 2)) }, http2.ErrCodeProtocol},
		{"SETTINGS larger than any use", func(p *hbonetest.Peer) { p.Write([]byte{0, 0x08, 0, 4, 0, 0, 0, 0, 0}) }, http2.ErrCodeFrameSize},
		{"PUSH_PROMISE", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(5, 4, 1, 0, 0, 0, 2)) }, http2.ErrCodeProtocol},
		{"PING on a stream", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(6, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8)) }, http2.ErrCodeProtocol},
		{"PING of 7 bytes", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(6, 0, 0, 1, 2, 3, 4, 5, 6, 7)) }, http2.ErrCodeFrameSize},
		{"GOAWAY on a stream", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(7, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0)) }, http2.ErrCodeProtocol},
		{"GOAWAY of 7 bytes", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(7, 0, 0, 0, 0, 0, 0, 0, 0, 0)) }, http2.ErrCodeFrameSize},
		{"WINDOW_UPDATE of 0 on the connection", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(8, 0, 0, 0, 0, 0, 0)) }, http2.ErrCodeProtocol},
		{"WINDOW_UPDATE of 5 bytes", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(8, 0, 0, 0, 0, 0, 0, 1)) }, http2.ErrCodeFrameSize},
		{"WINDOW_UPDATE on an idle stream", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(8, 0, 5, 0, 0, 4, 0)) }, http2.ErrCodeProtocol},
		{"connection window above the maximum", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(8, 0, 0, 0x7f, 0xff, 0xff, 0xff)) }, http2.ErrCodeFlowControl},
		{"unknown frame beyond the announced size", func(p *hbonetest.Peer) { p.Write([]byte{0x10, 0, 1, 0xbe, 0, 0, 0, 0, 0}) }, http2.ErrCodeFrameSize},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := tn.dialPeer(t)
			p.Alive()
			tc.say(p)
			p.WantGoAway(tc.want)
		})
	}
}

func TestViolationsEndTheStreamWithTheirCode(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, byAuthority)
	for _, tc := range []struct {
		name string
		say  func(p *hbonetest.Peer)
		want http2.ErrCode
	}{
		{"WINDOW_UPDATE of 0", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(8, 0, 1, 0, 0, 0, 0)) }, http2.ErrCodeProtocol},
		{"window above the maximum", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(8, 0, 1, 0x7f, 0xff, 0xff, 0xff)) }, http2.ErrCodeFlowControl},
		{"DATA after its end", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(0, 1, 1)); p.Write(hbonetest.Raw(0, 0, 1, 'x')) }, http2.ErrCodeStreamClosed},
		{"a second end", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(0, 1, 1)); p.OK(p.Headers(1, true, "x", "y")) }, http2.ErrCodeStreamClosed},
		{"a second request", func(p *hbonetest.Peer) { p.Connect(1, "parked:1") }, http2.ErrCodeProtocol},
		{"DATA beyond the window", func(p *hbonetest.Peer) {
			for range 17 {
				p.OK(p.Framer.WriteData(1, false, make([]byte, 16<<10)))
			}
		}, http2.ErrCodeFlowControl},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := tn.dialPeer(t)
			p.Accepted(1, "parked:1")
			tc.say(p)
			p.WantReset(1, tc.want)
			p.Accepted(3, "parked:1") // others go on
		})
	}
}

func TestWhatMustBeTolerated(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, byAuthority)
	app := echo(t)
	for _, tc := range []struct {
		name string
		say  func(p *hbonetest.Peer)
	}{
		{"unknown frame types", func(p *hbonetest.Peer) {
			p.Write(hbonetest.Raw(0xbe, 0xff, 0, make([]byte, 30000)...))
			p.Write(hbonetest.Raw(0xbe, 0, 9))
		}},
		{"unknown settings", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(4, 0, 0, 0x7a, 0x7a, 1, 2, 3, 4)) }},
		{"PRIORITY of a stream that is not open", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(2, 0, 99, 0, 0, 0, 3, 1)) }},
		{"padded and prioritised HEADERS", func(p *hbonetest.Peer) {
			block := p.Block(":method", "CONNECT", ":authority", app)
			p.OK(p.Framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block, EndHeaders: true, PadLength: 9, Priority: http2.PriorityParam{Weight: 7}}))
			p.Answer(3)
		}},
		{"a header block in pieces", func(p *hbonetest.Peer) {
			block := p.Block(":method", "CONNECT", ":authority", app, "x-long", "aaaaaaaaaaaaaaa")
			p.OK(p.Framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block[:1]}))
			p.OK(p.Framer.WriteContinuation(3, false, block[1:4]))
			p.OK(p.Framer.WriteContinuation(3, true, block[4:]))
			p.Answer(3)
		}},
		{"padded DATA", func(p *hbonetest.Peer) { p.OK(p.Framer.WriteDataPadded(1, false, nil, make([]byte, 255))) }},
		{"late frames of a stream that has ended", func(p *hbonetest.Peer) {
			p.Accepted(3, "parked:1")
			p.OK(p.Framer.WriteRSTStream(3, http2.ErrCodeCancel))
			p.OK(p.Framer.WriteData(3, false, make([]byte, 1000)))
			p.OK(p.Framer.WriteWindowUpdate(3, 5000))
			p.OK(p.Framer.WriteRSTStream(3, http2.ErrCodeCancel))
			p.OK(p.Headers(3, true, "grpc-status", "0"))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := tn.dialPeer(t)
			p.Accepted(1, app)
			tc.say(p)
			p.OK(p.Framer.WriteDataPadded(1, true, []byte("still here"), make([]byte, 3)))
			got := ""
			p.Until("the echo", func(f http2.Frame) bool {
				d, ok := f.(*http2.DataFrame)
				if ok && d.StreamID == 1 {
					got += string(d.Data())
				}
				return ok && d.StreamEnded()
			})
			if got != "still here" {
				t.Fatalf("echo gave %q", got)
			}
		})
	}
}

func TestServerWantsPrefaceAndSettingsFirst(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, byAuthority)
	for name, first := range map[string][]byte{
		"HTTP/1.1":            []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"preface without end": []byte("PRI * HTTP/2.0\r\n\r\nXX"),
		"preface, then HEADERS": append([]byte(http2.ClientPreface),
			hbonetest.Raw(1, 4, 1, 0x82)...),
		"preface, then acknowledged SETTINGS": append([]byte(http2.ClientPreface), hbonetest.Raw(4, 1, 0)...),
	} {
		t.Run(name, func(t *testing.T) {
			p := tn.dialRaw(t)
			p.Write(first)
			p.WantGoAway(http2.ErrCodeProtocol)
		})
	}
}

func TestServerDoesNotWaitForSettingsForEver(t *testing.T) {
	tn := newTunnel(t, hbone.Config{HandshakeTimeout: 200 * time.Millisecond}, byAuthority)
	p := tn.dialRaw(t)
	p.Write([]byte(http2.ClientPreface))
	p.WantGoAway(http2.ErrCodeSettingsTimeout)
}
