package hbone_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

// otherServer serves the tunnel's identity with the HTTP/2 stack of
// golang.org/x/net, and gives its address.
func (tn *tunnel) otherServer(t testing.TB, h http.HandlerFunc, change func(*http2.Server)) string {
	return listen(t, func(_ context.Context, c net.Conn) {
		s := tls.Server(c, tn.server)
		if s.Handshake() != nil {
			return
		}
		srv := &http2.Server{}
		if change != nil {
			change(srv)
		}
		srv.ServeConn(s, &http2.ServeConnOpts{Handler: h, BaseConfig: &http.Server{}})
	})
}

// relayHandler connects to the authority, as HTTP servers do it.
func relayHandler(w http.ResponseWriter, r *http.Request) {
	app, err := net.Dial("tcp", r.Host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer app.Close()
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(app, r.Body)
		_ = app.(*net.TCPConn).CloseWrite()
	})
	_, _ = io.Copy(flusher{w}, app)
	wg.Wait()
}

type flusher struct{ http.ResponseWriter }

func (f flusher) Write(p []byte) (int, error) {
	n, err := f.ResponseWriter.Write(p)
	_ = http.NewResponseController(f.ResponseWriter).Flush()
	return n, err
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

// echoes checks that what is written to c comes back.
func echoes(t *testing.T, c *net.TCPConn, size int) {
	t.Helper()
	want := randomBytes(size)
	go func() {
		_, _ = c.Write(want)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back as %d, equal %v, %v", size, len(got), bytes.Equal(got, want), err)
	}
}

func TestClientWithAnotherServer(t *testing.T) {
	for name, change := range map[string]func(*http2.Server){
		"defaults":      nil,
		"small windows": func(s *http2.Server) { s.MaxUploadBufferPerStream = 1 << 12; s.MaxUploadBufferPerConnection = 1 << 16 },
		"few streams":   func(s *http2.Server) { s.MaxConcurrentStreams = 2 },
		"large frames":  func(s *http2.Server) { s.MaxReadFrameSize = 1 << 20 },
	} {
		t.Run(name, func(t *testing.T) {
			tn := newTunnel(t, hbone.Config{}, nil)
			tn.addr = tn.otherServer(t, relayHandler, change)
			addr := tn.proxy(t, echo(t))
			var wg sync.WaitGroup
			for i := range 6 {
				wg.Go(func() { echoes(t, dial(t, addr), i*300_001) })
			}
			wg.Wait()
		})
	}
}

func TestClientSeesAnotherServersRefusal(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	tn.addr = tn.otherServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("baggage") != "k8s.namespace.name=shop" || r.Method != http.MethodConnect || r.Host != "10.0.0.1:80" {
			t.Errorf("request %s %s %v", r.Method, r.Host, r.Header)
		}
		w.Header().Set("Proxy-Status", "other; error=http_request_denied")
		w.WriteHeader(http.StatusEarlyHints)
		http.Error(w, "no", http.StatusUnauthorized)
	}, nil)
	_, _, _, err := tn.pool.Open(t.Context(), tn.addr, hbone.Request{Authority: "10.0.0.1:80", Fields: []hbone.Field{{Name: "baggage", Value: "k8s.namespace.name=shop"}}})
	var refused *hbone.RefusedError
	if !errors.As(err, &refused) || refused.Status != 401 || refused.ProxyStatus != "other; error=http_request_denied" {
		t.Fatalf("got %v", err)
	}
}

// A server that has said everything and wants nothing more resets the stream with
// NO_ERROR. What it said is delivered, whole and in order, to a slow reader too.
func TestServerThatEndsBeforeTheClient(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	want := randomBytes(200_000)
	tn.addr = tn.otherServer(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(want)
	}, nil)
	ours, theirs := net.Pipe()
	s, _, _, err := tn.pool.Open(t.Context(), tn.addr, hbone.Request{Authority: "10.0.0.1:80"})
	if err != nil {
		t.Fatal(err)
	}
	spliced := make(chan error, 1)
	go func() {
		spliced <- s.Splice(ours)
		ours.Close()
	}()
	got, err := io.ReadAll(theirs)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes of %d, %v", len(got), len(want), err)
	}
	if err := <-spliced; err != nil {
		t.Fatalf("Splice: %v", err)
	}
}

func TestServerWithAnotherClient(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	tr := &http2.Transport{TLSClientConfig: tn.client}
	defer tr.CloseIdleConnections()
	app := echo(t)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			want := randomBytes(i * 300_001)
			body, feed := io.Pipe()
			req := (&http.Request{Method: http.MethodConnect, URL: &url.URL{Scheme: "https", Host: tn.addr}, Host: app, Header: http.Header{"X-Dynamic": {"in the table"}}, Body: body}).WithContext(t.Context())
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			go func() {
				_, _ = feed.Write(want)
				_ = feed.Close()
			}()
			got, err := io.ReadAll(resp.Body)
			if resp.StatusCode != 200 || err != nil || !bytes.Equal(got, want) {
				t.Errorf("status %d, %d bytes of %d, %v", resp.StatusCode, len(got), len(want), err)
			}
		})
	}
	wg.Wait()
}

func TestAnotherClientSeesOurRefusal(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, byAuthority)
	tr := &http2.Transport{TLSClientConfig: tn.client}
	defer tr.CloseIdleConnections()
	for range 20 {
		body, feed := io.Pipe()
		defer feed.Close()
		resp, err := tr.RoundTrip((&http.Request{Method: http.MethodConnect, URL: &url.URL{Scheme: "https", Host: tn.addr}, Host: "refused:1", Header: http.Header{}, Body: body}).WithContext(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got := resp.Header.Get("Proxy-Status"); resp.StatusCode != 503 || got != `ambit; error=connection_refused; details="as asked"` {
			t.Fatalf("status %d, %q", resp.StatusCode, got)
		}
	}
	if len(tn.conns) != 1 {
		t.Fatalf("%d connections were made, want 1", len(tn.conns))
	}
}

// Our server's drain is understood by another client: it goes elsewhere, and its
// open stream goes on.
func TestAnotherClientFollowsOurDrain(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	tr := &http2.Transport{TLSClientConfig: tn.client}
	defer tr.CloseIdleConnections()
	app := echo(t)
	open := func() (io.WriteCloser, io.ReadCloser, error) {
		body, feed := io.Pipe()
		resp, err := tr.RoundTrip((&http.Request{Method: http.MethodConnect, URL: &url.URL{Scheme: "https", Host: tn.addr}, Host: app, Header: http.Header{}, Body: body}).WithContext(t.Context()))
		if err != nil {
			return nil, nil, err
		}
		return feed, resp.Body, nil
	}
	try := func(w io.Writer, r io.Reader) error {
		b := make([]byte, 5)
		if _, err := w.Write([]byte("hello")); err != nil {
			return err
		}
		_, err := io.ReadFull(r, b)
		return err
	}
	say := func(w io.Writer, r io.Reader) {
		t.Helper()
		if err := try(w, r); err != nil {
			t.Fatal(err)
		}
	}
	w1, r1, err := open()
	if err != nil {
		t.Fatal(err)
	}
	say(w1, r1)
	first := <-tn.conns
	first.Drain()
	testkit.Until(t, "the client goes to another connection", func() bool {
		// A stream that crossed our GOAWAY was refused, and that client tries it
		// again with a body that it has closed already.
		w, r, err := open()
		if err != nil {
			return false
		}
		err = try(w, r)
		_ = w.Close()
		_ = r.Close()
		return err == nil && len(tn.conns) == 1
	})
	say(w1, r1)
	_ = w1.Close()
	if rest, err := io.ReadAll(r1); err != nil || len(rest) > 0 {
		t.Fatalf("%q, %v", rest, err)
	}
}
