package http2_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/http2"
	"github.com/ambit-mesh/ambit/internal/message"
)

// serve gives the address at which h is served by us.
func serve(t testing.TB, cfg http2.Config, h message.Handler) string {
	t.Helper()
	return listen(t, func(ctx context.Context, nc net.Conn) { _ = http2.NewServerConn(nc, cfg, h).Run(ctx) })
}

// listen serves each connection in a goroutine and ends them with the test.
func listen(t testing.TB, serve func(context.Context, net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := newRunner(t)
	r.wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { serve(r.ctx, nc) })
		}
	})
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// dialOurs gives a running client connection of ours.
func dialOurs(t testing.TB, addr string, cfg http2.Config) *http2.ClientConn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	cc := http2.NewClientConn(nc, cfg)
	newRunner(t).run(cc.Run)
	return cc
}

// theirClient is the general stack's client with prior knowledge.
func theirClient(t testing.TB) *http.Client {
	tr := &xhttp2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// theirServer is the general stack's server with prior knowledge.
func theirServer(t testing.TB, h http.HandlerFunc) string {
	return listen(t, func(ctx context.Context, nc net.Conn) {
		stop := context.AfterFunc(ctx, func() { nc.Close() })
		defer stop()
		(&xhttp2.Server{}).ServeConn(nc, &xhttp2.ServeConnOpts{Handler: h})
	})
}

func TestTheirClientToOurServer(t *testing.T) {
	addr := serve(t, http2.Config{}, message.HandlerFunc(echo))
	client := theirClient(t)
	big := strings.Repeat("0123456789abcdef", 1<<17)
	for _, body := range []string{"", "x", big} {
		req, _ := http.NewRequest("POST", "http://"+addr+"/p?q", struct{ io.Reader }{strings.NewReader(body)})
		req.Trailer = http.Header{"X-Sum": {fmt.Sprint(len(body))}}
		req.Header.Set("X-Thing", "v")
		req.AddCookie(&http.Cookie{Name: "a", Value: "1"})
		req.AddCookie(&http.Cookie{Name: "b", Value: "2"})
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(got) != body || resp.Header.Get("X-Thing") != "v" || resp.Header.Get("Cookie") != "a=1; b=2" {
			t.Fatalf("%d bytes, %v, %v", len(got), err, resp.Header)
		}
		if resp.Trailer.Get("X-Sum") != fmt.Sprint(len(body)) {
			t.Errorf("trailers %v", resp.Trailer)
		}
	}
	resp, err := client.Head("http://" + addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

func TestTheirClientWaitsForContinue(t *testing.T) {
	addr := serve(t, http2.Config{}, message.HandlerFunc(func(ctx context.Context, req *message.Request, w message.Responder) {
		if !req.Continue {
			t.Error("Continue is not set")
		}
		_ = w.Inform(103, message.Fields{{Name: "link", Value: "</a>"}})
		echo(ctx, req, w)
	}))
	client := theirClient(t)
	client.Transport.(*xhttp2.Transport).DisableCompression = true
	req, _ := http.NewRequest("POST", "http://"+addr+"/", strings.NewReader("body"))
	req.Header.Set("Expect", "100-continue")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "body" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestOurClientToTheirServer(t *testing.T) {
	addr := theirServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			w.Header().Set("Trailer", "X-Sum")
			n, _ := io.Copy(w, r.Body)
			w.Header().Set("X-Sum", fmt.Sprint(n, " ", r.Trailer.Get("X-In")))
		case "/hints":
			w.Header().Set("Link", "</a>")
			w.WriteHeader(103)
			w.WriteHeader(204)
		case "/abort":
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "/continue":
			b, _ := io.ReadAll(r.Body)
			_, _ = w.Write(b)
		case "/refuse":
			w.WriteHeader(403)
		default:
			fmt.Fprintf(w, "%s %s %s %q", r.Method, r.Host, r.RequestURI, r.Header.Values("X"))
		}
	})
	cc := dialOurs(t, addr, http2.Config{})
	p := &pair{runner: newRunner(t), cc: cc}

	req := get("/a?b=c")
	req.Fields = message.Fields{{Name: "x", Value: "1"}, {Name: "x", Value: "2"}, {Name: "connection", Value: "x"}, {Name: "te", Value: "gzip"}}
	if _, got := p.roundTrip(t, req); got != `GET shop:80 /a?b=c ["1" "2"]` {
		t.Errorf("got %s", got)
	}
	for _, size := range []int{0, 10, 3 << 20} {
		body := newBody(strings.Repeat("y", size))
		body.trailers = message.Fields{{Name: "x-in", Value: "in"}}
		req := post("/echo", body, -1)
		req.Fields = message.Fields{{Name: "trailer", Value: "x-in"}}
		resp, got := p.roundTrip(t, req)
		if len(got) != size || resp.Body.Trailers().Get("x-sum") != fmt.Sprint(size, " in") {
			t.Errorf("%d bytes: %d back, %v", size, len(got), resp.Body.Trailers())
		}
	}
	resp, _ := p.roundTrip(t, &message.Request{Method: "HEAD", Scheme: "http", Authority: "a", Path: "/a"})
	if resp.Status != 200 || resp.Body != nil {
		t.Errorf("HEAD: %+v", resp)
	}
	var hints []int
	resp, err := cc.RoundTrip(p.ctx, get("/hints"), func(status int, f message.Fields) { hints = append(hints, status) })
	if err != nil || resp.Status != 204 || len(hints) != 1 || hints[0] != 103 {
		t.Errorf("hints: %+v, %v, %v", resp, err, hints)
	}
	req = post("/continue", newBody("late"), 4)
	req.Continue = true
	if _, got := p.roundTrip(t, req); got != "late" {
		t.Errorf("continue: %s", got)
	}
	req = post("/refuse", newBody("never"), 5)
	req.Continue = true
	if resp, _ := p.roundTrip(t, req); resp.Status != 403 {
		t.Errorf("refuse: %+v", resp)
	}
	resp, err = cc.RoundTrip(p.ctx, get("/abort"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var xerr *message.ExchangeError
	if _, err := io.ReadAll(resp.Body); !errors.As(err, &xerr) || xerr.Stage != message.Answered {
		t.Errorf("abort: %v", err)
	}
	if n := cc.Streams(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
}

func TestLargeHeadsBothWays(t *testing.T) {
	value := strings.Repeat("v", 40000) // more than one frame
	addr := theirServer(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Back", r.Header.Get("There")) })
	cc := dialOurs(t, addr, http2.Config{})
	req := get("/")
	req.Fields = message.Fields{{Name: "there", Value: value}}
	resp, err := cc.RoundTrip(t.Context(), req, nil)
	if err != nil || resp.Fields.Get("back") != value {
		t.Errorf("to their server: %v", err)
	}
	ours := serve(t, http2.Config{}, message.HandlerFunc(echo))
	hreq, _ := http.NewRequest("GET", "http://"+ours+"/", http.NoBody)
	hreq.Header.Set("There", value)
	hresp, err := theirClient(t).Do(hreq)
	if err != nil {
		t.Fatal(err)
	}
	hresp.Body.Close()
	if hresp.Header.Get("There") != value {
		t.Error("to our server: the field did not come back")
	}
}

func TestTheirClientGivesUp(t *testing.T) {
	ended := make(chan struct{})
	addr := serve(t, http2.Config{}, message.HandlerFunc(func(ctx context.Context, _ *message.Request, w message.Responder) {
		_ = w.Respond(&message.Response{Status: 200, ContentLength: -1})
		_ = w.Flush()
		<-ctx.Done()
		close(ended)
	}))
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/", http.NoBody)
	resp, err := theirClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	resp.Body.Close()
	<-ended
}

// forward is what a proxy does with a request.
func forward(cc *http2.ClientConn) message.HandlerFunc {
	return func(ctx context.Context, req *message.Request, w message.Responder) {
		resp, err := cc.RoundTrip(ctx, req, func(status int, f message.Fields) { _ = w.Inform(status, f) })
		if reset := (*http2.ResetError)(nil); errors.As(err, &reset) {
			w.Break(err)
			return
		}
		if err != nil {
			answer(w, 503, err.Error())
			return
		}
		if err := w.Respond(resp); err != nil {
			w.Break(err)
			return
		}
		if resp.Body == nil {
			_ = w.End(nil)
			return
		}
		defer resp.Body.Close()
		if err := pass(w, resp.Body); err != nil {
			w.Break(err)
			return
		}
		_ = w.End(resp.Body.Trailers())
	}
}

func pass(w message.Responder, body message.Body) error {
	var small [1024]byte
	b := small[:]
	if n := body.Buffered(); n > len(b) {
		b = make([]byte, 32<<10)
	} else if n == 0 {
		_ = w.Flush()
	}
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
		if body.Buffered() == 0 {
			_ = w.Flush()
		} else if len(b) == len(small) {
			b = make([]byte, 32<<10)
		}
	}
}

func TestThroughAProxy(t *testing.T) {
	up := theirServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		_, _ = io.Copy(w, r.Body)
	})
	addr := serve(t, http2.Config{}, forward(dialOurs(t, up, http2.Config{})))
	want := bytes.Repeat([]byte("proxy"), 1<<18)
	resp, err := theirClient(t).Post("http://"+addr+"/", "text/plain", bytes.NewReader(want))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func theirsToServer(b *testing.B, nc net.Conn) trip {
	cc, err := (&xhttp2.Transport{AllowHTTP: true, DisableCompression: true}).NewClientConn(nc)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cc.Close() })
	return func() error {
		req, _ := http.NewRequest("GET", "http://shop:80/cart/items", http.NoBody)
		req.Header["User-Agent"] = []string{"bench/1.0"}
		req.Header["Accept"] = []string{"application/json"}
		req.Header["X-Request-Id"] = []string{"af3ce6b0-1c35-44a7-9df5-3e2d5d6bb1a3"}
		resp, err := cc.RoundTrip(req)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return err
	}
}

func theirsServes(b *testing.B, nc net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		(&xhttp2.Server{}).ServeConn(nc, &xhttp2.ServeConnOpts{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			for _, f := range benchFields {
				h[f.Name] = []string{f.Value}
			}
			h["Date"] = nil
			_, _ = w.Write([]byte(small))
		})})
	}()
	b.Cleanup(func() { nc.Close(); <-done })
}
