package http2_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-mesh/ambit/internal/http2"
	"github.com/ambit-mesh/ambit/internal/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tcpPair gives both ends of a connection.
func tcpPair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// runner runs connections until the test ends.
type runner struct {
	t      testing.TB
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func newRunner(t testing.TB) *runner {
	r := &runner{t: t}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	t.Cleanup(func() { r.cancel(); r.wg.Wait() })
	return r
}

// run gives what Run returns.
func (r *runner) run(f func(context.Context) error) <-chan error {
	ended := make(chan error, 1)
	r.wg.Go(func() { ended <- f(r.ctx) })
	return ended
}

// pair is both of our ends connected.
type pair struct {
	*runner
	cc           *http2.ClientConn
	sc           *http2.ServerConn
	ccEnd, scEnd <-chan error
}

func newPair(t testing.TB, cfg http2.Config, h message.HandlerFunc) *pair {
	t.Helper()
	c, s := tcpPair(t)
	return pairOver(t, c, s, cfg, h)
}

func pairOver(t testing.TB, c, s net.Conn, cfg http2.Config, h message.HandlerFunc) *pair {
	p := &pair{runner: newRunner(t), cc: http2.NewClientConn(c, cfg), sc: http2.NewServerConn(s, cfg, h)}
	p.ccEnd, p.scEnd = p.run(p.cc.Run), p.run(p.sc.Run)
	return p
}

// bytesBody is a body that is there from the beginning.
type bytesBody struct {
	r        *bytes.Reader
	trailers message.Fields
}

func newBody(s string) *bytesBody { return &bytesBody{r: bytes.NewReader([]byte(s))} }

func (b *bytesBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err == nil && b.r.Len() == 0 {
		err = io.EOF
	}
	return n, err
}
func (b *bytesBody) Buffered() int            { return b.r.Len() }
func (b *bytesBody) Trailers() message.Fields { return b.trailers }
func (b *bytesBody) Close() error             { return nil }

// pipeBody is a body that comes as the test writes it.
type pipeBody struct {
	*io.PipeReader
	trailers message.Fields
}

func newPipeBody() (*pipeBody, *io.PipeWriter) {
	r, w := io.Pipe()
	return &pipeBody{PipeReader: r}, w
}
func (b *pipeBody) Buffered() int            { return 0 }
func (b *pipeBody) Trailers() message.Fields { return b.trailers }

func get(path string) *message.Request {
	return &message.Request{Method: "GET", Scheme: "http", Authority: "shop:80", Path: path, Version: message.HTTP2}
}

func post(path string, body message.Body, length int64) *message.Request {
	req := get(path)
	req.Method, req.Body, req.ContentLength = "POST", body, length
	return req
}

// answer answers with a body at once.
func answer(w message.Responder, status int, body string, fields ...message.Field) {
	_ = w.Respond(&message.Response{Status: status, Fields: fields, ContentLength: int64(len(body))})
	if body != "" {
		_, _ = w.Write([]byte(body))
	}
	_ = w.End(nil)
}

// echo gives back what comes, trailers too.
func echo(_ context.Context, req *message.Request, w message.Responder) {
	_ = w.Respond(&message.Response{Status: 200, Fields: req.Fields, ContentLength: req.ContentLength})
	var trailers message.Fields
	if req.Body != nil {
		_ = w.Flush()
		if err := copyBody(w, req.Body); err != nil {
			w.Break(err)
			return
		}
		trailers = req.Body.Trailers()
	}
	_ = w.End(trailers)
}

func copyBody(w message.Responder, body message.Body) error {
	b := make([]byte, 32<<10)
	for {
		n, err := body.Read(b)
		if n > 0 {
			if _, werr := w.Write(b[:n]); werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readAll reads and closes the body of a response.
func readAll(t testing.TB, resp *message.Response) string {
	t.Helper()
	if resp.Body == nil {
		return ""
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("reading the body: %v", err)
	}
	resp.Body.Close()
	return string(b)
}

func (p *pair) roundTrip(t testing.TB, req *message.Request) (*message.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 20*time.Second)
	defer cancel()
	resp, err := p.cc.RoundTrip(ctx, req, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp, readAll(t, resp)
}
