package http2_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	xhttp2 "golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/http2"
	"github.com/ambit-mesh/ambit/internal/message"
)

// fill sends on a stream what its window takes, counting the updates that come.
func (p *peer) fill(id uint32, n int) {
	p.t.Helper()
	for n > 0 {
		m := min(n, 16<<10)
		p.data(id, false, strings.Repeat("x", m))
		n -= m
	}
}

// What nobody reads is bounded by its stream's window, and holds up nobody else.
func TestSlowReadersHoldTheirWindowOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := http2.Config{MaxStreams: 4, StreamWindow: 64 << 10, ConnWindow: 256 << 10}
		p := clientOf(t, cfg, byPath).hello()
		for id := uint32(1); id < 7; id += 2 {
			p.get(id, false, "/slow")
			p.fill(id, 64<<10) // all that it may
		}
		p.get(7, false, "/")
		for range 20 { // more than the connection's window, again and again
			p.fill(7, 32<<10)
			p.until("window", func(f xhttp2.Frame) bool {
				w, ok := f.(*xhttp2.WindowUpdateFrame)
				return ok && w.StreamID == 7
			})
		}
		p.data(7, true, "")
		p.wantStatus(7, "200")
		p.data(1, false, "x")
		p.wantReset(1, xhttp2.ErrCodeFlowControl)
	})
}

// Data that is dropped does not use up the connection's window.
func TestDroppedDataGivesWindowBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := http2.Config{MaxStreams: 4, StreamWindow: 64 << 10, MaxStreamWindow: 64 << 10, ConnWindow: 256 << 10}
		p := clientOf(t, cfg, byPath).hello()
		id := uint32(1)
		for range 30 {
			p.get(id, false, "/ended") // answered without reading, then reset
			p.fill(id, 64<<10)
			p.wantReset(id, xhttp2.ErrCodeNo)
			p.get(id+2, false, "/slow") // given up by the client with data unread
			p.fill(id+2, 64<<10)
			p.ok(p.fr.WriteRSTStream(id+2, xhttp2.ErrCodeCancel))
			p.alive()
			id += 4
		}
		p.get(id, false, "/")
		p.fill(id, 20<<10)
		p.data(id, true, "")
		p.wantStatus(id, "200")
	})
}

// A reader that keeps up gets a window as large as is allowed, one that does not
// keeps what it had.
func TestWindowsGrowForReadersThatKeepUp(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  http2.Config
		want int
	}{
		{"up to the maximum", http2.Config{}, 1 << 20},
		{"up to the connection's", http2.Config{MaxStreams: 2, StreamWindow: 64 << 10, ConnWindow: 300 << 10}, 300<<10 - 64<<10},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := clientOf(t, tc.cfg, byPath).hello()
				p.get(1, false, "/")
				window := 64 << 10
				for sent := 0; sent < 8<<20; {
					p.fill(1, 16<<10)
					sent += 16 << 10
					window -= 16 << 10
					synctest.Wait()
					p.ok(p.fr.WritePing(false, [8]byte{}))
					p.until("PING", func(f xhttp2.Frame) bool {
						if w, ok := f.(*xhttp2.WindowUpdateFrame); ok && w.StreamID == 1 {
							window += int(w.Increment)
						}
						_, ok := f.(*xhttp2.PingFrame)
						return ok
					})
				}
				if window > tc.want || window < tc.want-tc.want/2-16<<10 {
					t.Errorf("window %d, want up to %d", window, tc.want)
				}
			})
		})
	}
}

// Everything at once through windows that never grow.
func TestSendingThroughSmallWindows(t *testing.T) {
	c, s := bufferedPipe(t)
	p := pairOver(t, c, s, http2.Config{MaxStreams: 4, MaxStreamWindow: 64 << 10, ConnWindow: 256 << 10}, echo)
	want := strings.Repeat("0123456789", 200000)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			resp, err := p.cc.RoundTrip(t.Context(), post("/", newBody(want), -1), nil)
			if err != nil {
				t.Error(err)
				return
			}
			if got := readAll(t, resp); got != want {
				t.Errorf("%d bytes came back", len(got))
			}
		})
	}
	wg.Wait()
	p.cc.Close()
}

func TestResponderSaysWhatIsWrong(t *testing.T) {
	head := func(n int64) *message.Response { return &message.Response{Status: 200, ContentLength: n} }
	for _, tc := range []struct {
		name string
		do   func(w message.Responder) error
		code xhttp2.ErrCode // of the reset; 0 when the answer is whole all the same
	}{
		{"nothing at all", func(message.Responder) error { return errors.New("none") }, xhttp2.ErrCodeInternal},
		{"Write before Respond", func(w message.Responder) error { _, err := w.Write([]byte("x")); return err }, xhttp2.ErrCodeInternal},
		{"End before Respond", func(w message.Responder) error { return w.End(nil) }, xhttp2.ErrCodeInternal},
		{"not ended", func(w message.Responder) error { _ = w.Respond(head(-1)); _ = w.Flush(); return errors.New("none") }, xhttp2.ErrCodeInternal},
		{"more than announced", func(w message.Responder) error { _ = w.Respond(head(3)); _, err := w.Write([]byte("four")); return err }, xhttp2.ErrCodeInternal},
		{"less than announced", func(w message.Responder) error {
			_ = w.Respond(head(5))
			_, _ = w.Write([]byte("four"))
			return w.End(nil)
		}, xhttp2.ErrCodeInternal},
		{"twice", func(w message.Responder) error {
			_ = w.Respond(head(0))
			err := w.Respond(head(0))
			_ = w.End(nil)
			return err
		}, 0},
		{"End twice", func(w message.Responder) error { _ = w.Respond(head(0)); _ = w.End(nil); return w.End(nil) }, 0},
		{"an interim status that is none", func(w message.Responder) error { err := w.Inform(101, nil); answer(w, 200, ""); return err }, 0},
		{"an interim response behind the head", func(w message.Responder) error { answer(w, 200, ""); return w.Inform(103, nil) }, 0},
		{"a field that begins another", func(w message.Responder) error {
			err := w.Respond(&message.Response{Status: 200, Fields: fields("x", "a\r\nset-cookie: b")})
			answer(w, 200, "")
			return err
		}, 0},
		{"a name that is none", func(w message.Responder) error {
			err := w.Respond(&message.Response{Status: 200, Fields: fields("X: y", "z")})
			answer(w, 200, "")
			return err
		}, 0},
		{"trailers that begin another field", func(w message.Responder) error {
			_ = w.Respond(head(-1))
			return w.End(fields("x", "a\nb"))
		}, xhttp2.ErrCodeInternal},
		{"status 99", func(w message.Responder) error {
			err := w.Respond(&message.Response{Status: 99})
			answer(w, 200, "")
			return err
		}, 0},
		{"broken off", func(w message.Responder) error { w.Break(errors.New("why")); return w.Respond(head(0)) }, xhttp2.ErrCodeInternal},
		{"broken off as the server was", func(w message.Responder) error {
			w.Break(&http2.ResetError{Code: 0xb})
			return errors.New("none")
		}, xhttp2.ErrCodeEnhanceYourCalm},
	} {
		t.Run(tc.name, func(t *testing.T) {
			said := make(chan error, 1)
			p := clientOf(t, http2.Config{}, func(_ context.Context, _ *message.Request, w message.Responder) { said <- tc.do(w) }).hello()
			p.get(1, true, "/")
			if tc.code != 0 {
				p.wantReset(1, tc.code)
			} else {
				p.wantStatus(1, "200")
			}
			if <-said == nil {
				t.Error("no error")
			}
		})
	}
}

func TestAnswersWithoutContent(t *testing.T) {
	for _, tc := range []struct {
		method string
		resp   message.Response
		length string // "" for none
	}{
		{"HEAD", message.Response{Status: 200, ContentLength: 11}, "11"},
		{"HEAD", message.Response{Status: 200, ContentLength: -1}, ""},
		{"GET", message.Response{Status: 304, ContentLength: 11}, "11"},
		{"GET", message.Response{Status: 204, ContentLength: 0}, ""},
		{"GET", message.Response{Status: 200, ContentLength: 0}, "0"},
		{"POST", message.Response{Status: 200, ContentLength: 0, Fields: fields("content-type", "application/grpc", "grpc-status", "5")}, ""},
	} {
		p := clientOf(t, http2.Config{}, func(_ context.Context, _ *message.Request, w message.Responder) {
			_ = w.Respond(&tc.resp)
			if tc.resp.ContentLength != 0 {
				_, _ = w.Write([]byte("hello world"))
			}
			_ = w.End(nil)
		}).hello()
		p.headers(1, true, ":method", tc.method, ":scheme", "http", ":path", "/", ":authority", "a")
		h := p.answer(1)
		got := ""
		for _, f := range h.Fields {
			if f.Name == "content-length" {
				got = f.Value
			}
		}
		if !h.StreamEnded() || got != tc.length {
			t.Errorf("%s %+v: end %t, content-length %q", tc.method, tc.resp, h.StreamEnded(), got)
		}
	}
}

// What concerns one connection does not leave it.
func TestFieldsThatStay(t *testing.T) {
	p := clientOf(t, http2.Config{}, func(_ context.Context, _ *message.Request, w message.Responder) {
		answer(w, 200, "", fields("connection", "x", "transfer-encoding", "chunked", "keep-alive", "1", "upgrade", "h2c", "host", "a", "te", "gzip", "kept", "y")...)
	}).hello()
	p.get(1, true, "/")
	if got := p.answer(1).RegularFields(); len(got) != 2 || got[0].Name != "content-length" || got[1].Name != "kept" {
		t.Errorf("%v", got)
	}
}

func TestTunnels(t *testing.T) {
	tunnel := func(_ context.Context, req *message.Request, w message.Responder) {
		switch {
		case req.Authority == "refused:1":
			answer(w, 403, "no")
			return
		case req.Protocol == "websocket":
			_ = w.Respond(&message.Response{Status: 101})
		default:
			_ = w.Respond(&message.Response{Status: 200})
		}
		_ = w.Flush()
		if err := copyBody(w, req.Body); err == nil {
			_ = w.End(nil)
		}
	}
	p := newPair(t, http2.Config{}, tunnel)
	for _, req := range []*message.Request{
		{Method: "CONNECT", Authority: "db:5432"},
		{Method: "CONNECT", Protocol: "websocket", Scheme: "http", Authority: "chat", Path: "/room"},
	} {
		body, w := newPipeBody()
		req.Body, req.ContentLength = body, -1
		resp, err := p.cc.RoundTrip(t.Context(), req, nil)
		if err != nil || resp.Status != 200 || resp.Protocol != req.Protocol {
			t.Fatalf("%+v, %v", resp, err)
		}
		b := make([]byte, 5)
		for range 3 {
			_, _ = w.Write([]byte("hello"))
			if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "hello" {
				t.Fatalf("%q, %v", b, err)
			}
		}
		w.Close() // half-close
		if n, err := resp.Body.Read(b); n != 0 || err != io.EOF {
			t.Errorf("%d, %v", n, err)
		}
	}
	body, _ := newPipeBody()
	resp, got := p.roundTrip(t, &message.Request{Method: "CONNECT", Authority: "refused:1", Body: body, ContentLength: -1})
	if resp.Status != 403 || got != "no" {
		t.Errorf("%d %q", resp.Status, got)
	}
	if n := p.cc.Streams(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
}

func TestExtendedConnectHasToBeAnnounced(t *testing.T) {
	req := &message.Request{Method: "CONNECT", Protocol: "websocket", Scheme: "http", Authority: "chat", Path: "/room", ContentLength: -1}
	_, cc := serverOf(t, http2.Config{})
	_, err := cc.RoundTrip(t.Context(), req, nil)
	if wantStage(t, err, message.Unprocessed); !strings.Contains(err.Error(), "RFC 8441") {
		t.Errorf("%v", err)
	}
	req.Method = "GET" // as an upgrade in HTTP/1.1 comes
	p, cc := serverOf(t, http2.Config{}, xhttp2.Setting{ID: xhttp2.SettingEnableConnectProtocol, Val: 1})
	got := p.ask(t.Context(), cc, req)
	p.until("a request", func(f xhttp2.Frame) bool {
		h, ok := f.(*xhttp2.MetaHeadersFrame)
		if ok && (h.PseudoValue("method") != "CONNECT" || h.PseudoValue("protocol") != "websocket" || h.PseudoValue("path") != "/room") {
			t.Errorf("%v", h.Fields)
		}
		return ok
	})
	p.headers(1, true, ":status", "200")
	if o := <-got; o.err != nil || o.resp.Protocol != "websocket" {
		t.Errorf("%+v", o)
	}
}

// Where answers are larger than the window that a stream begins with, the next one
// need not wait for more; where a reader lags, it must.
func TestAnswersBeginWithTheWindowOfThoseBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, cc := serverOf(t, http2.Config{MaxStreams: 4, StreamWindow: 64 << 10, ConnWindow: 1 << 20})
		// next begins an exchange whose answer is taken as it comes, or only a part of it
		// when all is there, and says with how much window it began.
		next := func(size, late int) (began int) {
			t.Helper()
			sent := make(chan struct{})
			done := make(chan error, 1)
			go func() {
				resp, err := cc.RoundTrip(t.Context(), get("/"), nil)
				if err != nil {
					done <- err
					return
				}
				defer resp.Body.Close()
				if late > 0 {
					<-sent
					_, err = io.CopyN(io.Discard, resp.Body, int64(late))
				} else {
					_, err = io.Copy(io.Discard, resp.Body)
				}
				done <- err
			}()
			id := p.request()
			began = 64 << 10
			p.ok(p.fr.WritePing(false, [8]byte{}))
			p.until("PING", func(f xhttp2.Frame) bool {
				if w, ok := f.(*xhttp2.WindowUpdateFrame); ok && w.StreamID == id {
					began += int(w.Increment)
				}
				_, ok := f.(*xhttp2.PingFrame)
				return ok
			})
			p.headers(id, false, ":status", "200")
			for range size / (16 << 10) {
				p.fill(id, 16<<10)
				synctest.Wait() // and taken
			}
			close(sent)
			synctest.Wait()
			p.data(id, true, "")
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			p.alive()
			return began
		}
		for i, tc := range []struct{ size, late, want int }{
			{32 << 10, 0, 64 << 10},           // nothing is known yet
			{512 << 10, 0, 128 << 10},         // 32 KiB were taken at once
			{32 << 10, 0, 256 << 10},          // no more than that, whatever the one before grew to
			{256 << 10, 160 << 10, 256 << 10}, // its reader does not keep up
			{32 << 10, 0, 128 << 10},
		} {
			if got := next(tc.size, tc.late); got != tc.want {
				t.Errorf("exchange %d began with a window of %d, want %d", i, got, tc.want)
			}
		}
	})
}
