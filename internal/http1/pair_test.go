package http1

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/message"
)

// serve runs a server connection with h on the far end of a pipe.
func serve(t *testing.T, cfg Config, h message.HandlerFunc) (near *pipeConn, sc *ServerConn) {
	t.Helper()
	near, far := newPipe()
	sc = NewServerConn(far, cfg, h)
	done := make(chan struct{})
	go func() { defer close(done); _ = sc.Run(context.Background()) }()
	t.Cleanup(func() { _ = near.Close(); <-done })
	return near, sc
}

// proxy forwards to up as a waypoint does, without a waypoint's opinions.
func proxy(up *ClientConn) message.HandlerFunc {
	p := make([]byte, 32<<10) // one connection, one exchange at a time
	return func(ctx context.Context, req *message.Request, w message.Responder) {
		resp, err := up.RoundTrip(ctx, req, func(status int, f message.Fields) { _ = w.Inform(status, f) })
		if err != nil {
			_ = w.Respond(&message.Response{Status: 502})
			_ = w.End(nil)
			return
		}
		if w.Respond(resp) != nil {
			return
		}
		if resp.Body == nil {
			_ = w.End(nil)
			return
		}
		defer func() { _ = resp.Body.Close() }()
		for {
			if resp.Body.Buffered() == 0 {
				_ = w.Flush()
			}
			n, err := resp.Body.Read(p)
			if n > 0 {
				if _, err := w.Write(p[:n]); err != nil {
					return
				}
			}
			if err == io.EOF {
				_ = w.End(resp.Body.Trailers())
				return
			}
			if err != nil {
				w.Break(err)
				return
			}
		}
	}
}

// throughProxy gives a client whose requests go through a proxy to h.
func throughProxy(t *testing.T, cfg Config, h message.HandlerFunc) *ClientConn {
	t.Helper()
	behind, _ := serve(t, cfg, h)
	up := NewClientConn(behind, cfg)
	front, _ := serve(t, cfg, proxy(up))
	c := NewClientConn(front, cfg)
	t.Cleanup(func() { _ = c.Close(); _ = up.Close() })
	return c
}

func get(path string) *message.Request {
	return &message.Request{Method: "GET", Authority: "h", Path: path}
}

func roundTrip(t *testing.T, c *ClientConn, req *message.Request) (*message.Response, string) {
	t.Helper()
	resp, err := c.RoundTrip(context.Background(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body == nil {
		return resp, ""
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// echo answers with what it was sent, as it comes.
func echo(_ context.Context, req *message.Request, w message.Responder) {
	length := int64(-1)
	if req.Body == nil {
		length = 0
	} else if req.ContentLength > 0 {
		length = req.ContentLength
	}
	_ = w.Respond(&message.Response{Status: 200, ContentLength: length, Fields: req.Fields})
	if req.Body == nil {
		_ = w.End(nil)
		return
	}
	p := make([]byte, 8<<10)
	for {
		n, err := req.Body.Read(p)
		if n > 0 {
			if _, err := w.Write(p[:n]); err != nil {
				return
			}
		}
		if err == io.EOF {
			_ = w.End(req.Body.Trailers())
			return
		}
		if err != nil {
			return
		}
	}
}

// TestBodiesThroughBothSides sends bodies of all kinds through a proxy and has
// them come back.
func TestBodiesThroughBothSides(t *testing.T) {
	c := throughProxy(t, Config{}, echo)
	random := make([]byte, 5<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random)
	for _, size := range []int{1, 100, 1023, 1024, 4 << 10, 60 << 10, 64 << 10, 70 << 10, 5 << 20} {
		for _, chunked := range []bool{false, true} {
			for _, trickle := range []bool{false, true} {
				if trickle && size > 4<<10 {
					continue
				}
				req := get("/")
				req.Method, req.ContentLength = "POST", int64(size)
				b := &whole{b: random[:size], once: trickle}
				if chunked {
					req.ContentLength = -1
					b.trailers = message.Fields{{Name: "x-sum", Value: "1"}, {Name: "content-length", Value: "9"}}
				}
				req.Body = b
				resp, got := roundTrip(t, c, req)
				if sha256.Sum256([]byte(got)) != sha256.Sum256(random[:size]) {
					t.Fatalf("size %d chunked %v trickle %v: got %d bytes", size, chunked, trickle, len(got))
				}
				if chunked && (len(resp.Body.Trailers()) != 1 || resp.Body.Trailers().Get("x-sum") != "1") {
					t.Fatalf("trailers %v", resp.Body.Trailers())
				}
				if !c.Idle() {
					t.Fatalf("size %d chunked %v trickle %v: connection is not kept", size, chunked, trickle)
				}
			}
		}
	}
}

// TestSmallAnswerIsOneWrite has head and body leave together, on both sides.
func TestSmallAnswerIsOneWrite(t *testing.T) {
	near, far := newPipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = NewServerConn(far, Config{}, message.HandlerFunc(echo)).Run(context.Background())
	}()
	c := NewClientConn(near, Config{})
	req := get("/")
	req.Method, req.ContentLength, req.Body = "POST", 5, &whole{b: []byte("hello")}
	if _, got := roundTrip(t, c, req); got != "hello" {
		t.Fatal(got)
	}
	if n, _ := near.wrote(); n != 1 {
		t.Errorf("request took %d writes", n)
	}
	if n, _ := far.wrote(); n != 1 {
		t.Errorf("answer took %d writes", n)
	}
	_ = c.Close()
	<-done
}

// TestInterim passes interim responses through, but 100 not.
func TestInterim(t *testing.T) {
	c := throughProxy(t, Config{}, func(_ context.Context, _ *message.Request, w message.Responder) {
		_ = w.Inform(103, message.Fields{{Name: "link", Value: "</a>"}})
		_ = w.Respond(&message.Response{Status: 204})
		_ = w.End(nil)
	})
	var told []int
	if _, err := c.RoundTrip(context.Background(), get("/"), func(s int, _ message.Fields) { told = append(told, s) }); err != nil {
		t.Fatal(err)
	}
	if len(told) != 1 || told[0] != 103 {
		t.Fatalf("told of %v", told)
	}
}

// TestContinue has the body wait for the server behind the proxy.
func TestContinue(t *testing.T) {
	refuse := true
	c := throughProxy(t, Config{}, func(_ context.Context, req *message.Request, w message.Responder) {
		if refuse {
			_ = w.Respond(&message.Response{Status: 417})
			_ = w.End(nil)
			return
		}
		b, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		_ = w.Respond(&message.Response{Status: 200, ContentLength: int64(len(b))})
		_, _ = w.Write(b)
		_ = w.End(nil)
	})
	send := func() (int, string, int) {
		b := &whole{b: []byte("hello")}
		req := get("/")
		req.Method, req.ContentLength, req.Body, req.Continue = "POST", 5, b, true
		resp, got := roundTrip(t, c, req)
		return resp.Status, got, len(b.b)
	}
	refuse = false
	if status, got, _ := send(); status != 200 || got != "hello" {
		t.Fatalf("accepted: %d %q", status, got)
	}
	refuse = true
	if status, _, left := send(); status != 417 || left != 5 {
		t.Fatalf("refused: %d, %d bytes left", status, left)
	}
	if c.Idle() {
		t.Fatal("a body was announced and not sent: the connection cannot be kept")
	}
}

// TestTunnels goes both ways through a proxy, with early bytes and half-closes.
func TestTunnels(t *testing.T) {
	for _, kind := range []string{"websocket", "CONNECT"} {
		t.Run(kind, func(t *testing.T) {
			c := throughProxy(t, Config{}, func(_ context.Context, req *message.Request, w message.Responder) {
				status := 101
				if req.Protocol == "" {
					status = 200
				}
				_ = w.Respond(&message.Response{Status: status, Protocol: req.Protocol})
				_, _ = w.Write([]byte("early "))
				b, err := io.ReadAll(req.Body)
				if err != nil {
					w.Break(err)
					return
				}
				_, _ = w.Write(b)
				_ = w.End(nil)
			})
			req := &message.Request{Method: "GET", Authority: "h:1", Path: "/", Protocol: "websocket"}
			if kind == "CONNECT" {
				req = &message.Request{Method: "CONNECT", Authority: "h:1"}
			}
			req.Body = &whole{b: bytes.Repeat([]byte("x"), 200<<10)}
			_, got := roundTrip(t, c, req)
			if got != "early "+strings.Repeat("x", 200<<10) {
				t.Fatalf("got %d bytes", len(got))
			}
			<-c.Done()
		})
	}
}

// TestOutputCannotBeInjected gives fields and heads that must never be written.
func TestOutputCannotBeInjected(t *testing.T) {
	bad := []message.Field{
		{Name: "x", Value: "a\r\nb: c"},
		{Name: "x", Value: "a\nb"},
		{Name: "x", Value: "a\x00"},
		{Name: "x\r\ny", Value: "a"},
		{Name: "x: y", Value: ""},
		{Name: "", Value: "a"},
		{Name: "x ", Value: "a"},
		{Name: "\xe9", Value: "a"},
	}
	near, far := newPipe()
	defer func() { _ = far.Close() }()
	c := NewClientConn(near, Config{})
	defer func() { _ = c.Close() }()
	try := func(what string, req *message.Request) {
		t.Helper()
		_, err := c.RoundTrip(context.Background(), req, nil)
		var fe *FieldError
		if !errors.As(err, &fe) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, f := range bad {
		req := get("/")
		req.Fields = message.Fields{f}
		try(f.Name, req)
		if _, err := appendFields(nil, message.Fields{f}, oneHop); err == nil {
			t.Errorf("response field %q: %q", f.Name, f.Value)
		}
	}
	for _, path := range []string{"", "x", "/ HTTP/1.1\r\n", "/a b", "/\x7f", "*", "/#"} {
		try(path, get(path))
	}
	for _, m := range []string{"", "G T", "GET\r\n"} {
		req := get("/")
		req.Method = m
		try(m, req)
	}
	for _, a := range []string{"h\r\nx: y", "a b", "u@h", "h/x"} {
		req := get("/")
		req.Authority = a
		try(a, req)
	}
	if n, _ := near.wrote(); n != 0 || !c.Idle() {
		t.Errorf("%d writes, idle %v", n, c.Idle())
	}
}

// TestFramingIsOurs leaves out what a handler says about framing.
func TestFramingIsOurs(t *testing.T) {
	b, _, err := appendRequest(nil, &message.Request{Method: "POST", Authority: "h", Path: "/", Fields: message.Fields{
		{Name: "Content-Length", Value: "5"}, {Name: "transfer-encoding", Value: "chunked"}, {Name: "HOST", Value: "evil"}, {Name: "connection", Value: "x"}, {Name: "x", Value: "y"},
	}}, "")
	if want := "POST / HTTP/1.1\r\nhost: h\r\nx: y\r\ncontent-length: 0\r\n\r\n"; err != nil || string(b) != want {
		t.Fatalf("%q %v", b, err)
	}
}

// TestWebSocketOfHTTP2 opens one as HTTP/2 does, without a key, through a proxy to
// a server that answers as HTTP/2 does, without an accept.
func TestWebSocketOfHTTP2(t *testing.T) {
	c := throughProxy(t, Config{}, func(_ context.Context, req *message.Request, w message.Responder) {
		if req.Method != "GET" || len(req.Fields.Get("sec-websocket-key")) != 24 {
			t.Errorf("%s %v", req.Method, req.Fields)
		}
		_ = w.Respond(&message.Response{Status: 200, Protocol: "websocket"})
		b, _ := io.ReadAll(req.Body)
		_, _ = w.Write(b)
		_ = w.End(nil)
	})
	req := &message.Request{Method: "CONNECT", Protocol: "websocket", Authority: "h", Path: "/chat", Body: &whole{b: []byte("hello")}}
	resp, got := roundTrip(t, c, req)
	if resp.Status != 101 || got != "hello" || resp.Fields.Has("sec-websocket-accept") {
		t.Errorf("%d %v %q", resp.Status, resp.Fields, got)
	}
	// RFC 6455 section 1.3 has this example.
	if got := acceptKey("dGhlIHNhbXBsZSBub25jZQ=="); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Error(got)
	}
}
