package http1

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/message"
)

// What one exchange of these benchmarks is: a request as a browser's fetch or a
// service's client sends it, and an answer with one KiB of JSON.
const benchRequest = "GET /api/v1/items/4711?expand=price HTTP/1.1\r\n" +
	"Host: shop.default.svc.cluster.local\r\n" +
	"User-Agent: bench/1.0\r\n" +
	"Accept: application/json\r\n" +
	"Accept-Encoding: gzip, deflate\r\n" +
	"Authorization: Bearer 0123456789012345678901234567890123456789\r\n" +
	"X-Request-Id: 7a1f4a9e-5b5c-4e4a-9d52-0f3cf1d2a111\r\n" +
	"Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n"

var benchBody = bytes.Repeat([]byte("x"), 1<<10)

var benchFields = message.Fields{
	{Name: "content-type", Value: "application/json"},
	{Name: "date", Value: "Mon, 02 Jan 2006 15:04:05 GMT"},
	{Name: "cache-control", Value: "no-store"},
	{Name: "x-served-by", Value: "shop-7d9c"},
}

// driveServer sends the request and reads the answer, of which it only counts the
// bytes, so that the server's work is what is measured.
func driveServer(b *testing.B, c net.Conn) {
	b.ReportAllocs()
	req, buf := []byte(benchRequest), make([]byte, 16<<10)
	size := 0
	for i := 0; b.Loop(); i++ {
		if _, err := c.Write(req); err != nil {
			b.Fatal(err)
		}
		got := 0
		for got < size || size == 0 {
			n, err := c.Read(buf[got:])
			if err != nil {
				b.Fatal(err)
			}
			got += n
			if size == 0 && got > len(benchBody) {
				at := bytes.Index(buf[:got], []byte("\r\n\r\n"))
				if at >= 0 && got == at+4+len(benchBody) {
					size = got
				}
			}
		}
	}
}

func BenchmarkServer(b *testing.B) {
	near, far := newPipe()
	h := message.HandlerFunc(func(_ context.Context, _ *message.Request, w message.Responder) {
		_ = w.Respond(&message.Response{Status: 200, Fields: benchFields, ContentLength: int64(len(benchBody))})
		_, _ = w.Write(benchBody)
		_ = w.End(nil)
	})
	done := make(chan error, 1)
	go func() { done <- NewServerConn(far, Config{}, h).Run(context.Background()) }()
	driveServer(b, near)
	_ = near.Close()
	<-done
}

// oneListener gives one connection.
type oneListener struct {
	c    chan net.Conn
	done chan struct{}
	once sync.Once
}

func (l *oneListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.c:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *oneListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *oneListener) Addr() net.Addr { return &net.TCPAddr{} }

func BenchmarkServerNetHTTP(b *testing.B) {
	near, far := newPipe()
	l := &oneListener{c: make(chan net.Conn, 1), done: make(chan struct{})}
	l.c <- far
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for _, f := range benchFields {
			w.Header().Set(f.Name, f.Value)
		}
		w.Header().Set("Content-Length", "1024")
		_, _ = w.Write(benchBody)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	driveServer(b, near)
	_ = near.Close()
	_ = srv.Close()
	<-done
}

// answerAll answers every request on c, counting bytes only.
func answerAll(c net.Conn, requestSize int, answer []byte) {
	buf := make([]byte, 16<<10)
	for got := 0; ; {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if got += n; got < requestSize {
			continue
		}
		got -= requestSize
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

func benchAnswer() []byte {
	a := appendStatus(nil, 200)
	a, _ = appendFields(a, benchFields, oneHop)
	a = appendLength(a, int64(len(benchBody)))
	return append(append(a, "\r\n"...), benchBody...)
}

func parsedBenchRequest(tb testing.TB) *message.Request {
	var req message.Request
	var spans []span
	var sp special
	cfg := Config{}.withDefaults()
	if _, f := parseRequest([]byte(benchRequest), &cfg, &spans, &req, &sp); f != nil {
		tb.Fatal(f)
	}
	return &req
}

func BenchmarkClient(b *testing.B) {
	near, far := newPipe()
	req := parsedBenchRequest(b)
	wire, _, err := appendRequest(nil, req, "")
	if err != nil {
		b.Fatal(err)
	}
	go answerAll(far, len(wire), benchAnswer())
	c := NewClientConn(near, Config{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.ReportAllocs()
	buf := make([]byte, 4<<10)
	for b.Loop() {
		resp, err := c.RoundTrip(ctx, req, nil)
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = resp.Body.Read(buf)
		}
		if err != io.EOF {
			b.Fatal(err)
		}
	}
	_ = c.Close()
}

func BenchmarkClientNetHTTP(b *testing.B) {
	near, far := newPipe()
	tr := &http.Transport{DisableCompression: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return near, nil }}
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader([]byte(benchRequest))))
	if err != nil {
		b.Fatal(err)
	}
	req.URL.Scheme, req.URL.Host = "http", req.Host
	var wire bytes.Buffer
	if err := req.Write(&wire); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	req = req.WithContext(ctx)
	go answerAll(far, wire.Len(), benchAnswer())
	b.ReportAllocs()
	buf := make([]byte, 4<<10)
	for b.Loop() {
		resp, err := tr.RoundTrip(req)
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = resp.Body.Read(buf)
		}
		_ = resp.Body.Close()
	}
	tr.CloseIdleConnections()
	_ = near.Close()
}

// BenchmarkProxy has the exchange go through a proxy: both sides of this package
// beside net/http's ReverseProxy.
func BenchmarkProxy(b *testing.B) {
	front, frontFar := newPipe()
	back, backFar := newPipe()
	wire, _, err := appendRequest(nil, parsedBenchRequest(b), "")
	if err != nil {
		b.Fatal(err)
	}
	go answerAll(backFar, len(wire), benchAnswer())
	up := NewClientConn(back, Config{})
	done := make(chan error, 1)
	go func() { done <- NewServerConn(frontFar, Config{}, proxy(up)).Run(context.Background()) }()
	driveServer(b, front)
	_ = front.Close()
	_ = up.Close()
	<-done
}

func BenchmarkProxyNetHTTP(b *testing.B) {
	front, frontFar := newPipe()
	back, backFar := newPipe()
	// ReverseProxy adds X-Forwarded-For and keeps names in another case.
	go answerRequests(backFar, benchAnswer())
	l := &oneListener{c: make(chan net.Conn, 1), done: make(chan struct{})}
	l.c <- frontFar
	tr := &http.Transport{DisableCompression: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return back, nil }}
	srv := &http.Server{Handler: &httputil.ReverseProxy{Transport: tr, BufferPool: onePool{make([]byte, 32<<10)}, Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "h" }}}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	driveServer(b, front)
	_ = front.Close()
	tr.CloseIdleConnections()
	_ = srv.Close()
	_ = back.Close()
	<-done
}

// onePool is a BufferPool for one request at a time.
type onePool struct{ b []byte }

func (p onePool) Get() []byte { return p.b }
func (p onePool) Put([]byte)  {}

// answerRequests answers whatever ends with an empty line.
func answerRequests(c net.Conn, answer []byte) {
	buf := make([]byte, 16<<10)
	for got := 0; ; {
		n, err := c.Read(buf[got:])
		if err != nil {
			return
		}
		if got += n; !bytes.HasSuffix(buf[:got], []byte("\r\n\r\n")) {
			continue
		}
		got = 0
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// BenchmarkIdle tells what an idle server connection holds, its goroutine's stack
// included, the connection below it not.
func BenchmarkIdle(b *testing.B) {
	const conns = 10000
	for b.Loop() {
		var before, after runtime.MemStats
		fars := make([]*idleConn, conns)
		for i := range fars {
			fars[i] = &idleConn{closed: make(chan struct{})}
		}
		runtime.GC()
		runtime.ReadMemStats(&before)
		done := make(chan error, conns)
		for _, c := range fars {
			go func() { done <- NewServerConn(c, Config{}, message.HandlerFunc(echo)).Run(context.Background()) }()
		}
		for _, c := range fars {
			for c.waits.Load() < 2 {
				runtime.Gosched()
			}
		}
		runtime.GC()
		runtime.GC() // the second empties the pools
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse)/conns, "B/conn")
		for _, c := range fars {
			_ = c.Close()
		}
		for range fars {
			<-done
		}
	}
}

// idleConn never has a byte. Its first read times out at once, as that of a
// connection does which has been idle for a while.
type idleConn struct {
	net.Conn
	waits  atomic.Int32
	once   sync.Once
	closed chan struct{}
}

func (c *idleConn) Read([]byte) (int, error) {
	if c.waits.Add(1) == 1 {
		return 0, os.ErrDeadlineExceeded
	}
	<-c.closed
	return 0, net.ErrClosed
}
func (c *idleConn) SetReadDeadline(time.Time) error { return nil }
func (c *idleConn) Close() error                    { c.once.Do(func() { close(c.closed) }); return nil }
