package http2_test

import (
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/http2"
	"github.com/ambit-mesh/ambit/internal/message"
)

// What RFC 9113 says a server MUST do about a client that breaks it, sections 3.4
// to 8.

func TestNoPreface(t *testing.T) {
	for _, hello := range []string{"GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r" + strings.Repeat("x", 20)} {
		p := clientOf(t, http2.Config{}, byPath)
		p.write([]byte(hello))
		p.wantGoAway(xhttp2.ErrCodeProtocol)
	}
	// Section 3.4: SETTINGS comes first.
	p := clientOf(t, http2.Config{}, byPath)
	p.write([]byte(xhttp2.ClientPreface))
	p.ok(p.fr.WritePing(false, [8]byte{}))
	p.wantGoAway(xhttp2.ErrCodeProtocol)
}

func TestViolationsEndTheConnectionWithTheirCode(t *testing.T) {
	ended := func(p *peer, id uint32) { p.get(id, true, "/"); p.wantStatus(id, "200"); p.alive() }
	for _, tc := range []struct {
		name string
		say  func(p *peer)
		want xhttp2.ErrCode
	}{
		{"4.2: frame beyond the announced size", func(p *peer) { p.write([]byte{1, 0, 1, 0, 0, 0, 0, 0, 1}) }, xhttp2.ErrCodeFrameSize},
		{"4.2: unknown frame beyond the announced size", func(p *peer) { p.write([]byte{1, 0, 1, 0xbe, 0, 0, 0, 0, 0}) }, xhttp2.ErrCodeFrameSize},
		{"4.3: broken HPACK", func(p *peer) { p.write(raw(1, 4, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)) }, xhttp2.ErrCodeCompression},
		{"4.3: truncated HPACK", func(p *peer) { p.write(raw(1, 4, 1, 0x40, 0x0a, 'x')) }, xhttp2.ErrCodeCompression},
		{"4.3: HPACK table above the limit", func(p *peer) { p.write(raw(1, 4, 1, 0x3f, 0xe2, 0x1f)) }, xhttp2.ErrCodeCompression},
		{"4.3: broken HPACK in trailers", func(p *peer) { p.get(1, false, "/slow"); p.write(raw(1, 5, 1, 0x80)) }, xhttp2.ErrCodeCompression},
		{"5.1: DATA on an idle stream", func(p *peer) { p.write(raw(0, 0, 7, 'x')) }, xhttp2.ErrCodeProtocol},
		{"5.1: RST_STREAM on an idle stream", func(p *peer) { p.write(raw(3, 0, 9, 0, 0, 0, 8)) }, xhttp2.ErrCodeProtocol},
		{"5.1: WINDOW_UPDATE on an idle stream", func(p *peer) { p.write(raw(8, 0, 5, 0, 0, 4, 0)) }, xhttp2.ErrCodeProtocol},
		{"5.1: CONTINUATION on an idle stream", func(p *peer) { p.write(raw(9, 4, 1, 0x82)) }, xhttp2.ErrCodeProtocol},
		{"5.1: DATA on a stream closed by END_STREAM", func(p *peer) { ended(p, 1); p.data(1, false, "x") }, xhttp2.ErrCodeStreamClosed},
		{"5.1: HEADERS on a stream closed by END_STREAM", func(p *peer) { ended(p, 1); p.get(1, true, "/") }, xhttp2.ErrCodeStreamClosed},
		{"5.1: DATA on a stream that the client has reset", func(p *peer) { p.get(1, false, "/slow"); p.write(raw(3, 0, 1, 0, 0, 0, 8)); p.data(1, false, "x") }, xhttp2.ErrCodeStreamClosed},
		{"5.1: HEADERS on a stream that the client has reset", func(p *peer) { p.get(1, false, "/slow"); p.write(raw(3, 0, 1, 0, 0, 0, 8)); p.get(1, true, "/") }, xhttp2.ErrCodeStreamClosed},
		{"5.1.1: HEADERS on an even stream", func(p *peer) { p.write(raw(1, 4, 2, 0x82)) }, xhttp2.ErrCodeProtocol},
		{"5.1.1: HEADERS on a lower stream", func(p *peer) { p.get(5, true, "/"); p.get(3, true, "/") }, xhttp2.ErrCodeProtocol},
		{"5.1.1: DATA on a skipped stream", func(p *peer) { p.get(5, true, "/"); p.data(3, true, "x") }, xhttp2.ErrCodeStreamClosed},
		{"5.1.1: DATA on an even stream", func(p *peer) { p.write(raw(0, 0, 2, 'x')) }, xhttp2.ErrCodeProtocol},
		{"6.1: DATA on stream 0", func(p *peer) { p.write(raw(0, 0, 0, 'x')) }, xhttp2.ErrCodeProtocol},
		{"6.1: padded DATA without pad length", func(p *peer) { p.get(1, false, "/slow"); p.write(raw(0, 8, 1)) }, xhttp2.ErrCodeFrameSize},
		{"6.1: padding longer than DATA", func(p *peer) { p.get(1, false, "/slow"); p.write(raw(0, 8, 1, 5, 'x')) }, xhttp2.ErrCodeProtocol},
		{"6.2: HEADERS on stream 0", func(p *peer) { p.write(raw(1, 4, 0, 0x82)) }, xhttp2.ErrCodeProtocol},
		{"6.2: padding longer than HEADERS", func(p *peer) { p.write(raw(1, 4|8, 1, 200, 0x82)) }, xhttp2.ErrCodeProtocol},
		{"6.2: padded HEADERS without pad length", func(p *peer) { p.write(raw(1, 4|8, 1)) }, xhttp2.ErrCodeProtocol},
		{"6.2: HEADERS too short for a priority", func(p *peer) { p.write(raw(1, 4|0x20, 1, 0, 0)) }, xhttp2.ErrCodeFrameSize},
		{"6.2: HEADERS inside a header block", func(p *peer) { p.write(raw(1, 0, 1, 0x82)); p.write(raw(1, 4, 3, 0x82)) }, xhttp2.ErrCodeProtocol},
		{"6.2: unknown frame inside a header block", func(p *peer) { p.write(raw(1, 0, 1, 0x82)); p.write(raw(0xbe, 0, 1)) }, xhttp2.ErrCodeProtocol},
		{"6.3: PRIORITY on stream 0", func(p *peer) { p.write(raw(2, 0, 0, 0, 0, 0, 0, 1)) }, xhttp2.ErrCodeProtocol},
		{"6.3: PRIORITY of 4 bytes", func(p *peer) { p.write(raw(2, 0, 1, 0, 0, 0, 0)) }, xhttp2.ErrCodeFrameSize},
		{"6.4: RST_STREAM on stream 0", func(p *peer) { p.write(raw(3, 0, 0, 0, 0, 0, 8)) }, xhttp2.ErrCodeProtocol},
		{"6.4: RST_STREAM of 3 bytes", func(p *peer) { p.write(raw(3, 0, 1, 0, 0, 8)) }, xhttp2.ErrCodeFrameSize},
		{"6.5: SETTINGS on a stream", func(p *peer) { p.write(raw(4, 0, 1)) }, xhttp2.ErrCodeProtocol},
		{"6.5: SETTINGS of 5 bytes", func(p *peer) { p.write(raw(4, 0, 0, 0, 1, 0, 0, 0)) }, xhttp2.ErrCodeFrameSize},
		{"6.5: acknowledged SETTINGS with a payload", func(p *peer) { p.write(raw(4, 1, 0, 0, 3, 0, 0, 0, 1)) }, xhttp2.ErrCodeFrameSize},
		{"6.5.2: window above the maximum", func(p *peer) { p.write(raw(4, 0, 0, 0, 4, 0x80, 0, 0, 0)) }, xhttp2.ErrCodeFlowControl},
		{"6.5.2: frame size below the minimum", func(p *peer) { p.write(raw(4, 0, 0, 0, 5, 0, 0, 0x3f, 0xff)) }, xhttp2.ErrCodeProtocol},
		{"6.5.2: frame size above the maximum", func(p *peer) { p.write(raw(4, 0, 0, 0, 5, 1, 0, 0, 0)) }, xhttp2.ErrCodeProtocol},
		{"6.5.2: push 2", func(p *peer) { p.write(raw(4, 0, 0, 0, 2, 0, 0, 0, 2)) }, xhttp2.ErrCodeProtocol},
		{"RFC 8441 3: connect protocol 2", func(p *peer) { p.write(raw(4, 0, 0, 0, 8, 0, 0, 0, 2)) }, xhttp2.ErrCodeProtocol},
		{"6.5.2: window that overflows a stream's", func(p *peer) {
			p.get(1, false, "/slow")
			p.write(raw(8, 0, 1, 0x7f, 0xff, 0, 0))
			p.write(raw(4, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff))
		}, xhttp2.ErrCodeFlowControl},
		{"6.6: PUSH_PROMISE", func(p *peer) { p.write(raw(5, 4, 1, 0, 0, 0, 2)) }, xhttp2.ErrCodeProtocol},
		{"6.7: PING on a stream", func(p *peer) { p.write(raw(6, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8)) }, xhttp2.ErrCodeProtocol},
		{"6.7: PING of 7 bytes", func(p *peer) { p.write(raw(6, 0, 0, 1, 2, 3, 4, 5, 6, 7)) }, xhttp2.ErrCodeFrameSize},
		{"6.8: GOAWAY on a stream", func(p *peer) { p.write(raw(7, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0)) }, xhttp2.ErrCodeProtocol},
		{"6.8: GOAWAY of 7 bytes", func(p *peer) { p.write(raw(7, 0, 0, 0, 0, 0, 0, 0, 0, 0)) }, xhttp2.ErrCodeFrameSize},
		{"6.9: WINDOW_UPDATE of 0 on the connection", func(p *peer) { p.write(raw(8, 0, 0, 0, 0, 0, 0)) }, xhttp2.ErrCodeProtocol},
		{"6.9: WINDOW_UPDATE of 5 bytes", func(p *peer) { p.write(raw(8, 0, 0, 0, 0, 0, 0, 1)) }, xhttp2.ErrCodeFrameSize},
		{"6.9.1: connection window above the maximum", func(p *peer) { p.write(raw(8, 0, 0, 0x7f, 0xff, 0xff, 0xff)) }, xhttp2.ErrCodeFlowControl},
		{"6.10: CONTINUATION without HEADERS", func(p *peer) { ended(p, 1); p.write(raw(9, 4, 1, 0x82)) }, xhttp2.ErrCodeProtocol},
		{"6.10: CONTINUATION of another stream", func(p *peer) { p.write(raw(1, 0, 1, 0x82)); p.write(raw(9, 4, 3, 0x82)) }, xhttp2.ErrCodeProtocol},
		{"6.10: CONTINUATION on stream 0", func(p *peer) { p.write(raw(1, 0, 1, 0x82)); p.write(raw(9, 4, 0, 0x82)) }, xhttp2.ErrCodeProtocol},
		{"6.10: DATA inside a header block", func(p *peer) { p.write(raw(1, 0, 1, 0x82)); p.write(raw(0, 0, 1, 'x')) }, xhttp2.ErrCodeProtocol},
		{"10.5: SETTINGS larger than any use", func(p *peer) { p.write([]byte{0, 0x08, 0, 4, 0, 0, 0, 0, 0}) }, xhttp2.ErrCodeFrameSize},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := clientOf(t, http2.Config{}, byPath).hello()
			p.alive()
			tc.say(p)
			p.wantGoAway(tc.want)
			if err := <-p.ended; !strings.Contains(err.Error(), tc.want.String()) {
				t.Errorf("Run says %v", err)
			}
		})
	}
}

func TestViolationsEndTheStreamWithTheirCode(t *testing.T) {
	begin := []string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "shop"}
	head := func(f ...string) func(*peer) { return func(p *peer) { p.headers(1, true, f...) } }
	with := func(f ...string) func(*peer) { return head(append(begin[:8:8], f...)...) }
	open := func(say func(*peer)) func(*peer) { return func(p *peer) { p.get(1, false, "/slow"); say(p) } }
	for _, tc := range []struct {
		name string
		say  func(p *peer)
		want xhttp2.ErrCode
	}{
		{"5.1: DATA behind END_STREAM", func(p *peer) { p.get(1, true, "/slow"); p.data(1, false, "x") }, xhttp2.ErrCodeStreamClosed},
		{"5.1: HEADERS behind END_STREAM", func(p *peer) { p.get(1, true, "/slow"); p.headers(1, true, "x", "y") }, xhttp2.ErrCodeStreamClosed},
		{"6.3: PRIORITY of 4 bytes", open(func(p *peer) { p.write(raw(2, 0, 1, 0, 0, 0, 0)) }), xhttp2.ErrCodeFrameSize},
		{"6.9: WINDOW_UPDATE of 0", open(func(p *peer) { p.write(raw(8, 0, 1, 0, 0, 0, 0)) }), xhttp2.ErrCodeProtocol},
		{"6.9.1: window above the maximum", open(func(p *peer) { p.write(raw(8, 0, 1, 0x7f, 0xff, 0xff, 0xff)) }), xhttp2.ErrCodeFlowControl},
		{"6.9.1: DATA beyond the window", open(func(p *peer) { p.data(1, false, strings.Repeat("x", 1<<16)); p.data(1, false, "x") }), xhttp2.ErrCodeFlowControl},
		{"8.1: HEADERS in the middle", open(func(p *peer) { p.headers(1, false, "x", "y") }), xhttp2.ErrCodeProtocol},
		{"8.1: pseudo-header field in trailers", open(func(p *peer) { p.headers(1, true, ":path", "/") }), xhttp2.ErrCodeProtocol},
		{"8.1: upper-case name in trailers", open(func(p *peer) { p.headers(1, true, "X", "y") }), xhttp2.ErrCodeProtocol},
		{"8.1.1: content-length larger than DATA", func(p *peer) { p.get(1, false, "/slow", "content-length", "5"); p.data(1, true, "four") }, xhttp2.ErrCodeProtocol},
		{"8.1.1: content-length smaller than DATA", func(p *peer) { p.get(1, false, "/slow", "content-length", "3"); p.data(1, true, "four") }, xhttp2.ErrCodeProtocol},
		{"8.1.1: content-length larger than DATA, with trailers", func(p *peer) {
			p.get(1, false, "/slow", "content-length", "5")
			p.data(1, false, "four")
			p.headers(1, true, "x", "y")
		}, xhttp2.ErrCodeProtocol},
		{"8.1.1: content-length without DATA", with("content-length", "5"), xhttp2.ErrCodeProtocol},
		{"8.1.1: content-length that is no number", with("content-length", "+0"), xhttp2.ErrCodeProtocol},
		{"8.1.1: content-length twice", with("content-length", "0", "content-length", "1"), xhttp2.ErrCodeProtocol},
		{"8.2.1: upper-case name", with("X-Thing", "y"), xhttp2.ErrCodeProtocol},
		{"8.2.1: name with a space", with("x thing", "y"), xhttp2.ErrCodeProtocol},
		{"8.2.1: name with a colon", with("x:thing", "y"), xhttp2.ErrCodeProtocol},
		{"8.2.1: empty name", with("", "y"), xhttp2.ErrCodeProtocol},
		{"8.2.1: non-ASCII name", with("\xc3\xa4", "y"), xhttp2.ErrCodeProtocol},
		{"8.2.1: value with CR", with("x", "a\rb"), xhttp2.ErrCodeProtocol},
		{"8.2.1: value with LF", with("x", "a\nb"), xhttp2.ErrCodeProtocol},
		{"8.2.1: value with NUL", with("x", "a\x00b"), xhttp2.ErrCodeProtocol},
		{"8.2.1: value with a leading space", with("x", " a"), xhttp2.ErrCodeProtocol},
		{"8.2.1: value with a trailing tab", with("x", "a\t"), xhttp2.ErrCodeProtocol},
		{"8.2.2: connection", with("connection", "close"), xhttp2.ErrCodeProtocol},
		{"8.2.2: transfer-encoding", with("transfer-encoding", "chunked"), xhttp2.ErrCodeProtocol},
		{"8.2.2: upgrade", with("upgrade", "h2c"), xhttp2.ErrCodeProtocol},
		{"8.2.2: keep-alive", with("keep-alive", "1"), xhttp2.ErrCodeProtocol},
		{"8.2.2: proxy-connection", with("proxy-connection", "close"), xhttp2.ErrCodeProtocol},
		{"8.2.2: te", with("te", "trailers, gzip"), xhttp2.ErrCodeProtocol},
		{"8.3: unknown pseudo-header field", head(append(begin[:8:8], ":thing", "x")...), xhttp2.ErrCodeProtocol},
		{"8.3: pseudo-header field of a response", head(append(begin[:8:8], ":status", "200")...), xhttp2.ErrCodeProtocol},
		{"8.3: pseudo-header field behind another", head(":method", "GET", ":scheme", "http", "x", "y", ":path", "/", ":authority", "a"), xhttp2.ErrCodeProtocol},
		{"8.3: pseudo-header field twice", head(":method", "GET", ":scheme", "http", ":path", "/", ":path", "/", ":authority", "a"), xhttp2.ErrCodeProtocol},
		{"8.3.1: no method", head(":scheme", "http", ":path", "/", ":authority", "a"), xhttp2.ErrCodeProtocol},
		{"8.3.1: no scheme", head(":method", "GET", ":path", "/", ":authority", "a"), xhttp2.ErrCodeProtocol},
		{"8.3.1: no path", head(":method", "GET", ":scheme", "http", ":authority", "a"), xhttp2.ErrCodeProtocol},
		{"8.3.1: empty path", head(":method", "GET", ":scheme", "http", ":path", "", ":authority", "a"), xhttp2.ErrCodeProtocol},
		{"8.3.1: path without slash", head(":method", "GET", ":scheme", "http", ":path", "x", ":authority", "a"), xhttp2.ErrCodeProtocol},
		{"8.3.1: path with a space", head(":method", "GET", ":scheme", "http", ":path", "/ HTTP/1.1", ":authority", "a"), xhttp2.ErrCodeProtocol},
		{"8.3.1: path with a fragment", head(":method", "GET", ":scheme", "http", ":path", "/#a", ":authority", "a"), xhttp2.ErrCodeProtocol},
		{"8.3.1: * without OPTIONS", head(":method", "GET", ":scheme", "http", ":path", "*", ":authority", "a"), xhttp2.ErrCodeProtocol},
		{"8.3.1: no authority", head(":method", "GET", ":scheme", "http", ":path", "/"), xhttp2.ErrCodeProtocol},
		{"8.3.1: userinfo", head(":method", "GET", ":scheme", "http", ":path", "/", ":authority", "me@a"), xhttp2.ErrCodeProtocol},
		{"8.3.1: authority with a path", head(":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a/b"), xhttp2.ErrCodeProtocol},
		{"8.3.1: authority with a port that is none", head(":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a:80x"), xhttp2.ErrCodeProtocol},
		{"8.3.1: host differs from authority", with("host", "bank"), xhttp2.ErrCodeProtocol},
		{"8.3.1: hosts differ", head(":method", "GET", ":scheme", "http", ":path", "/", "host", "a", "host", "b"), xhttp2.ErrCodeProtocol},
		{"8.3.1: method that is no token", head(":method", "GET /", ":scheme", "http", ":path", "/", ":authority", "a"), xhttp2.ErrCodeProtocol},
		{"8.3.1: scheme of no use here", head(":method", "GET", ":scheme", "ftp", ":path", "/", ":authority", "a"), xhttp2.ErrCodeProtocol},
		{"8.5: CONNECT with a path", head(":method", "CONNECT", ":path", "/", ":authority", "a:1"), xhttp2.ErrCodeProtocol},
		{"8.5: CONNECT without a port", head(":method", "CONNECT", ":authority", "a"), xhttp2.ErrCodeProtocol},
		{"8.5: HEADERS in a tunnel", func(p *peer) {
			p.headers(1, false, ":method", "CONNECT", ":authority", "a:1")
			p.headers(1, true, "x", "y")
		}, xhttp2.ErrCodeProtocol},
		{"RFC 8441 4: :protocol without CONNECT", with2(begin, ":protocol", "websocket"), xhttp2.ErrCodeProtocol},
		{"RFC 8441 4: extended CONNECT without path", head(":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a"), xhttp2.ErrCodeProtocol},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := clientOf(t, http2.Config{}, holdConnect).hello()
			tc.say(p)
			p.wantReset(1, tc.want)
			p.alive()
			p.get(9, true, "/")
			p.wantStatus(9, "200")
		})
	}
}

func with2(begin []string, more ...string) func(*peer) {
	return func(p *peer) { p.headers(1, true, append(begin[:8:8], more...)...) }
}

func TestWhatIsAllowed(t *testing.T) {
	for _, tc := range []struct {
		name string
		say  func(p *peer)
	}{
		{"5.3: PRIORITY of an idle stream", func(p *peer) { p.write(raw(2, 0, 99, 0, 0, 0, 0, 1)) }},
		{"5.3: a stream that depends on itself", func(p *peer) { p.write(raw(2, 0, 1, 0, 0, 0, 1, 1)) }},
		{"5.1: PRIORITY, RST_STREAM and WINDOW_UPDATE on a closed stream", func(p *peer) {
			p.get(7, true, "/")
			p.wantStatus(7, "200")
			p.write(raw(2, 0, 7, 0, 0, 0, 0, 1))
			p.write(raw(8, 0, 7, 0, 0, 4, 0))
			p.write(raw(3, 0, 7, 0, 0, 0, 8))
		}},
		{"5.1: late frames of a stream that we reset", func(p *peer) {
			p.get(7, false, "/ended")
			p.wantReset(7, xhttp2.ErrCodeNo)
			p.data(7, false, "late")
			p.headers(7, true, "x", "y")
		}},
		{"5.5: unknown frames", func(p *peer) { p.write(raw(0xbe, 0xff, 3, 1, 2, 3)) }},
		{"6.5.2: unknown settings", func(p *peer) { p.write(raw(4, 0, 0, 0x99, 0x99, 1, 2, 3, 4)) }},
		{"6.1: padding", func(p *peer) {
			p.get(7, false, "/")
			p.ok(p.fr.WriteDataPadded(7, true, []byte("abc"), make([]byte, 200)))
			if h := p.answer(7); !hasField(h, "n", "3") {
				p.t.Errorf("%v", h.Fields)
			}
		}},
		{"6.10: a header block in pieces", func(p *peer) {
			b := p.block(":method", "GET", ":scheme", "http", ":path", "/", ":authority", "shop")
			p.ok(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 7, BlockFragment: b[:1], EndStream: true}))
			p.ok(p.fr.WriteContinuation(7, false, nil))
			p.ok(p.fr.WriteContinuation(7, true, b[1:]))
			p.wantStatus(7, "200")
		}},
		{"6.9.2: windows below zero", func(p *peer) {
			p.ok(p.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 3}))
			p.get(7, true, "/ended")
			p.wantStatus(7, "200")
			p.ok(p.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0}))
			p.ok(p.fr.WriteWindowUpdate(7, 5))
			rest := 5
			p.until("the body", func(f xhttp2.Frame) bool {
				if d, ok := f.(*xhttp2.DataFrame); ok {
					rest -= len(d.Data())
				}
				return rest == 0
			})
		}},
		{"8.2.3: cookie crumbs, and the host twice alike", func(p *peer) {
			p.get(7, true, "/", "cookie", "a=1", "host", "SHOP", "cookie", "b=2", "host", "shop")
			p.wantStatus(7, "200")
		}},
		{"8.3.1: OPTIONS *", func(p *peer) {
			p.headers(7, true, ":method", "OPTIONS", ":scheme", "http", ":path", "*", ":authority", "[::1]:80")
			p.wantStatus(7, "200")
		}},
		{"8.1: trailers without content", func(p *peer) { p.get(7, false, "/"); p.headers(7, true, "x", "y"); p.wantStatus(7, "200") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := clientOf(t, http2.Config{}, byPath).hello()
			tc.say(p)
			p.alive()
			p.get(101, true, "/")
			p.wantStatus(101, "200")
		})
	}
}

func hasField(h *xhttp2.MetaHeadersFrame, name, value string) bool {
	for _, f := range h.Fields {
		if f.Name == name && f.Value == value {
			return true
		}
	}
	return false
}

func TestHeadsThatAreTooLarge(t *testing.T) {
	var got []message.Rejection
	p := clientOf(t, http2.Config{MaxHeaderBytes: 2000, MaxFields: 10, Rejected: func(r message.Rejection) { got = append(got, r) }}, byPath).hello()
	p.get(1, true, "/", "x", strings.Repeat("x", 3000))
	p.wantStatus(1, "431")
	many := []string{"first", "field"}
	for range 20 {
		many = append(many, "a", "b")
	}
	p.get(3, false, "/", many...)
	p.wantStatus(3, "431")
	p.wantReset(3, xhttp2.ErrCodeNo)
	// The table is what it would be if nothing had been dropped.
	p.get(5, true, "/", "first", "field")
	p.wantStatus(5, "200")
	p.headers(7, true, ":method", "GET")
	p.wantReset(7, xhttp2.ErrCodeProtocol)
	p.alive()
	if len(got) != 3 || got[0].Status != 431 || got[0].Limit != "header_bytes" || got[1].Limit != "header_fields" || got[2].Status != 0 || got[2].Reason != "no :scheme" {
		t.Errorf("%+v", got)
	}
}
