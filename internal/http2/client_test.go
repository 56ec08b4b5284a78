package http2_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/http2"
	"github.com/ambit-mesh/ambit/internal/message"
)

// outcome is what RoundTrip and the body after it gave.
type outcome struct {
	resp *message.Response
	body string
	err  error
}

func (p *peer) ask(ctx context.Context, cc *http2.ClientConn, req *message.Request) <-chan outcome {
	got := make(chan outcome, 1)
	go func() {
		var o outcome
		if o.resp, o.err = cc.RoundTrip(ctx, req, nil); o.err == nil && o.resp.Body != nil {
			var b []byte
			b, o.err = io.ReadAll(o.resp.Body)
			o.body = string(b)
			o.resp.Body.Close()
		}
		got <- o
	}()
	return got
}

// request reads up to the next request and gives its stream.
func (p *peer) request() (id uint32) {
	p.t.Helper()
	p.until("a request", func(f xhttp2.Frame) bool {
		h, ok := f.(*xhttp2.MetaHeadersFrame)
		if ok {
			id = h.StreamID
		}
		return ok
	})
	return id
}

func wantStage(t *testing.T, err error, want message.Stage) {
	t.Helper()
	var e *message.ExchangeError
	if !errors.As(err, &e) || e.Stage != want {
		t.Errorf("%v: want an ExchangeError of stage %d", err, want)
	}
}

func TestStagesOfFailure(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(p *peer, id uint32)
		want message.Stage
	}{
		{"refused", func(p *peer, id uint32) { p.ok(p.fr.WriteRSTStream(id, xhttp2.ErrCodeRefusedStream)) }, message.Unprocessed},
		{"GOAWAY below it", func(p *peer, id uint32) { p.ok(p.fr.WriteGoAway(0, xhttp2.ErrCodeNo, nil)) }, message.Unprocessed},
		{"GOAWAY below it with an error", func(p *peer, id uint32) { p.ok(p.fr.WriteGoAway(0, xhttp2.ErrCodeInternal, []byte("oh"))) }, message.Unprocessed},
		{"GOAWAY, and the end", func(p *peer, id uint32) {
			p.ok(p.fr.WriteGoAway(id, xhttp2.ErrCodeInternal, []byte("oh")))
			p.conn.Close()
		}, message.Sent},
		{"reset", func(p *peer, id uint32) { p.ok(p.fr.WriteRSTStream(id, xhttp2.ErrCodeInternal)) }, message.Sent},
		{"the connection ends", func(p *peer, _ uint32) { p.conn.Close() }, message.Sent},
		{"reset behind an interim response", func(p *peer, id uint32) {
			p.headers(id, false, ":status", "103")
			p.ok(p.fr.WriteRSTStream(id, xhttp2.ErrCodeInternal))
		}, message.Sent},
		{"reset behind the head", func(p *peer, id uint32) {
			p.headers(id, false, ":status", "200")
			p.data(id, false, "a")
			p.ok(p.fr.WriteRSTStream(id, xhttp2.ErrCodeInternal))
		}, message.Answered},
		{"refused behind the head", func(p *peer, id uint32) {
			p.headers(id, false, ":status", "200")
			p.ok(p.fr.WriteRSTStream(id, xhttp2.ErrCodeRefusedStream))
		}, message.Answered},
		{"the connection ends behind the head", func(p *peer, id uint32) { p.headers(id, false, ":status", "200"); p.conn.Close() }, message.Answered},
		{"less than content-length", func(p *peer, id uint32) {
			p.headers(id, false, ":status", "200", "content-length", "5")
			p.data(id, true, "four")
		}, message.Answered},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, cc := serverOf(t, http2.Config{})
			got := p.ask(t.Context(), cc, get("/"))
			tc.do(p, p.request())
			wantStage(t, (<-got).err, tc.want)
			if n := cc.Streams(); n != 0 {
				t.Errorf("%d streams are left", n)
			}
		})
	}
}

func TestMalformedResponses(t *testing.T) {
	for _, tc := range []struct {
		name string
		say  func(p *peer, id uint32)
	}{
		{"no status", func(p *peer, id uint32) { p.headers(id, true, "x", "y") }},
		{"status of two digits", func(p *peer, id uint32) { p.headers(id, true, ":status", "20") }},
		{"status 101", func(p *peer, id uint32) { p.headers(id, false, ":status", "101") }},
		{"status twice", func(p *peer, id uint32) { p.headers(id, true, ":status", "200", ":status", "200") }},
		{"pseudo-header field of a request", func(p *peer, id uint32) { p.headers(id, true, ":status", "200", ":path", "/") }},
		{"interim response that ends", func(p *peer, id uint32) { p.headers(id, true, ":status", "103") }},
		{"value with LF", func(p *peer, id uint32) { p.headers(id, true, ":status", "200", "x", "a\nb: c") }},
		{"connection field", func(p *peer, id uint32) { p.headers(id, true, ":status", "200", "connection", "close") }},
		{"content-length without content", func(p *peer, id uint32) { p.headers(id, true, ":status", "200", "content-length", "4") }},
		{"DATA before HEADERS", func(p *peer, id uint32) { p.data(id, true, "x") }},
		{"head too large", func(p *peer, id uint32) { p.headers(id, true, ":status", "200", "x", strings.Repeat("y", 1500)) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, cc := serverOf(t, http2.Config{MaxHeaderBytes: 1024})
			got := p.ask(t.Context(), cc, get("/"))
			id := p.request()
			tc.say(p, id)
			p.wantReset(id, xhttp2.ErrCodeProtocol)
			err := (<-got).err
			if wantStage(t, err, message.Sent); !errors.Is(err, message.ErrProtocol) {
				t.Errorf("%v is no ErrProtocol", err)
			}
			p.alive()
		})
	}
}

func TestContentWhereThereIsNone(t *testing.T) {
	for _, tc := range []struct {
		method, status string
		req            *message.Request
	}{{"HEAD", "200", nil}, {"GET", "304", nil}, {"GET", "204", nil}} {
		p, cc := serverOf(t, http2.Config{})
		req := get("/")
		req.Method = tc.method
		got := p.ask(t.Context(), cc, req)
		id := p.request()
		p.headers(id, false, ":status", tc.status)
		p.data(id, true, "x")
		if o := <-got; !errors.Is(o.err, message.ErrProtocol) {
			t.Errorf("%s %s: %v", tc.method, tc.status, o.err)
		}
	}
}

func TestLengthWithoutContent(t *testing.T) {
	p, cc := serverOf(t, http2.Config{})
	req := get("/")
	req.Method = "HEAD"
	got := p.ask(t.Context(), cc, req)
	p.headers(p.request(), true, ":status", "200", "content-length", "42")
	if o := <-got; o.err != nil || o.resp.ContentLength != 42 || o.resp.Body != nil {
		t.Errorf("%+v, %v", o.resp, o.err)
	}
}

func TestRequestsThatCannotBeSent(t *testing.T) {
	_, cc := serverOf(t, http2.Config{})
	for name, change := range map[string]func(*message.Request){
		"method":     func(r *message.Request) { r.Method = "GET /" },
		"path":       func(r *message.Request) { r.Path = "/\r\nx: y" },
		"no path":    func(r *message.Request) { r.Path = "" },
		"authority":  func(r *message.Request) { r.Authority = "a\nb" },
		"userinfo":   func(r *message.Request) { r.Authority = "me@a" },
		"scheme":     func(r *message.Request) { r.Scheme = "" },
		"name":       func(r *message.Request) { r.Fields = fields("X-Upper", "y") },
		"pseudo":     func(r *message.Request) { r.Fields = fields(":path", "/admin") },
		"value":      func(r *message.Request) { r.Fields = fields("x", "a\r\nb: c") },
		"connection": func(r *message.Request) { r.Protocol = "web socket"; r.Method = "CONNECT" },
	} {
		req := get("/")
		change(req)
		_, err := cc.RoundTrip(t.Context(), req, nil)
		if e := (*message.ExchangeError)(nil); !errors.As(err, &e) || e.Stage != message.Unprocessed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRoom(t *testing.T) {
	p, cc := serverOf(t, http2.Config{MaxStreams: 50}, xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 2})
	p.alive() // the settings have been seen
	if cc.Room() != 2 {
		t.Fatalf("room %d, want 2", cc.Room())
	}
	first := p.ask(t.Context(), cc, get("/"))
	id := p.request()
	second := p.ask(t.Context(), cc, get("/"))
	p.request()
	if cc.Room() != 0 || cc.Streams() != 2 {
		t.Errorf("room %d, streams %d", cc.Room(), cc.Streams())
	}
	_, err := cc.RoundTrip(t.Context(), get("/"), nil)
	wantStage(t, err, message.Unprocessed)
	p.headers(id, true, ":status", "200")
	<-first
	if cc.Room() != 1 {
		t.Errorf("room %d, want 1", cc.Room())
	}
	p.ok(p.fr.WriteGoAway(id+2, xhttp2.ErrCodeNo, nil))
	p.alive()
	if cc.Room() != 0 {
		t.Errorf("room %d after GOAWAY", cc.Room())
	}
	p.headers(id+2, true, ":status", "200")
	if o := <-second; o.err != nil {
		t.Error(o.err)
	}
	// The last one has ended, so that the client leaves.
	<-cc.Done()
	if err := <-p.ended; err != http2.ErrClosed {
		t.Errorf("Run: %v", err)
	}
}

func TestCancel(t *testing.T) {
	for _, when := range []string{"before the head", "behind the head"} {
		t.Run(when, func(t *testing.T) {
			p, cc := serverOf(t, http2.Config{})
			ctx, cancel := context.WithCancel(t.Context())
			got := p.ask(ctx, cc, get("/"))
			id := p.request()
			if when == "behind the head" {
				p.headers(id, false, ":status", "200")
				p.alive()
			}
			cancel()
			p.wantReset(id, xhttp2.ErrCodeCancel)
			o := <-got
			if wantStage(t, o.err, message.Aborted); !errors.Is(o.err, context.Canceled) {
				t.Errorf("%v", o.err)
			}
		})
	}
}

// The end of the context ends an exchange in which nobody reads.
func TestCancelWhileNobodyReads(t *testing.T) {
	p, cc := serverOf(t, http2.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	head := make(chan *message.Response)
	go func() {
		resp, _ := cc.RoundTrip(ctx, get("/"), nil)
		head <- resp
	}()
	id := p.request()
	p.headers(id, false, ":status", "200")
	resp := <-head
	cancel()
	p.wantReset(id, xhttp2.ErrCodeCancel)
	resp.Body.Close()
}

func TestBodyOfARequestFails(t *testing.T) {
	p, cc := serverOf(t, http2.Config{})
	body, w := newPipeBody()
	got := p.ask(t.Context(), cc, post("/", body, -1))
	id := p.request()
	_, _ = w.Write([]byte("some"))
	_ = w.CloseWithError(errors.New("broken"))
	p.wantReset(id, xhttp2.ErrCodeCancel)
	o := <-got
	if wantStage(t, o.err, message.Aborted); !strings.Contains(o.err.Error(), "broken") {
		t.Errorf("%v", o.err)
	}
	// Another length than announced is one too.
	for _, length := range []int64{3, 5} {
		body, w := newPipeBody()
		got := p.ask(t.Context(), cc, post("/", body, length))
		id := p.request()
		_, _ = w.Write([]byte("four"))
		w.Close()
		p.wantReset(id, xhttp2.ErrCodeCancel)
		wantStage(t, (<-got).err, message.Aborted)
	}
}

func TestClosingABodyResets(t *testing.T) {
	p, cc := serverOf(t, http2.Config{})
	head := make(chan *message.Response)
	go func() {
		resp, _ := cc.RoundTrip(context.Background(), get("/"), nil)
		head <- resp
	}()
	id := p.request()
	p.headers(id, false, ":status", "200")
	p.data(id, false, "something")
	resp := <-head
	resp.Body.Close()
	p.wantReset(id, xhttp2.ErrCodeCancel)
	if _, err := resp.Body.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("Read after Close: %v", err)
	}
	p.data(id, true, "late") // is not a violation
	p.alive()
}

// The server has answered and does not want the rest of the request: the answer is
// whole all the same, RFC 9113 section 8.1.
func TestEarlyAnswer(t *testing.T) {
	p, cc := serverOf(t, http2.Config{})
	body, _ := newPipeBody()
	got := p.ask(t.Context(), cc, post("/", body, -1))
	id := p.request()
	p.headers(id, false, ":status", "413")
	p.data(id, true, "too large")
	p.ok(p.fr.WriteRSTStream(id, xhttp2.ErrCodeNo))
	if o := <-got; o.err != nil || o.resp.Status != 413 || o.body != "too large" {
		t.Errorf("%+v", o)
	}
	if _, err := body.Read(make([]byte, 1)); err != io.ErrClosedPipe {
		t.Errorf("the body was not closed: %v", err)
	}
}

func TestFloodsOfAServer(t *testing.T) {
	for name, write := range map[string]func(p *peer, id uint32) error{
		"interim responses": func(p *peer, id uint32) error {
			return p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: p.block(":status", "103"), EndHeaders: true})
		},
		"PING":       func(p *peer, _ uint32) error { return p.fr.WritePing(false, [8]byte{}) },
		"empty DATA": func(p *peer, _ uint32) error { return p.fr.WriteData(1, false, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			p, cc := serverOf(t, http2.Config{})
			got := p.ask(t.Context(), cc, get("/"))
			p.headers(p.request(), false, ":status", "200")
			other := p.ask(t.Context(), cc, get("/"))
			id := p.request()
			if code := p.flood(20000, func(int) error { return write(p, id) }); code != xhttp2.ErrCodeEnhanceYourCalm {
				t.Errorf("GOAWAY %s", code)
			}
			wantStage(t, (<-got).err, message.Answered)
			wantStage(t, (<-other).err, message.Sent)
		})
	}
}
