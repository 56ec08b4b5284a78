package extauthz

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	authpb "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/ambit-mesh/ambit/internal/message"
)

// stream is a body that comes in pieces, with trailers.
type stream struct {
	io.Reader
	closed chan struct{}
}

func newStream(r io.Reader) *stream { return &stream{r, make(chan struct{})} }

func (s *stream) Buffered() int            { return 0 }
func (s *stream) Trailers() message.Fields { return message.Fields{{Name: "grpc-status", Value: "0"}} }

func (s *stream) Close() error {
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	return nil
}

func TestBodies(t *testing.T) {
	for _, c := range []struct {
		name   string
		most   int64
		length int64
		body   message.Body
		want   Decision
		sent   string
		read   string
	}{
		{"not asked for", 0, 5, message.BytesBody([]byte("hello")), Allowed, "", "hello"},
		{"none", 5, 0, nil, Allowed, "", ""},
		{"just long enough", 5, 5, message.BytesBody([]byte("hello")), Allowed, "hello", "hello"},
		{"too long", 4, 5, message.BytesBody([]byte("hello")), TooLarge, "", ""},
		{"length not known", 5, -1, newStream(iotest.OneByteReader(strings.NewReader("hello"))), Allowed, "hello", "hello"},
		{"length not known, too long", 4, -1, newStream(iotest.OneByteReader(strings.NewReader("hello"))), TooLarge, "", ""},
		{"end with the last bytes", 10_000, -1, newStream(iotest.DataErrReader(strings.NewReader(strings.Repeat("x", 9999)))), Allowed, strings.Repeat("x", 9999), strings.Repeat("x", 9999)},
		{"breaks off", 100, -1, newStream(io.MultiReader(strings.NewReader("hel"), iotest.ErrReader(errors.New("reset")))), Broken, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &server{answer: &authpb.CheckResponse{Status: &statuspb.Status{}}}
			ck := New(Config{Caller: serve(t, s)})
			svc := grpcService()
			svc.MaxBodyBytes, svc.FailOpen = c.most, true // nothing of this may pass for being open
			req := request("")
			req.Body, req.ContentLength = c.body, c.length
			out := ck.Check(t.Context(), svc, input(req))
			if out.Decision != c.want {
				t.Fatalf("%+v", out)
			}
			switch c.want {
			case TooLarge:
				if out.Allowed || out.Status != 413 || !strings.Contains(out.Reason, "longer than the 4 bytes") {
					t.Errorf("%+v", out)
				}
			case Broken:
				if out.Allowed || out.Status != 400 {
					t.Errorf("%+v", out)
				}
			case Allowed:
				if got := s.asked[0].GetAttributes().GetRequest().GetHttp().GetBody(); got != c.sent {
					t.Errorf("sent %q", got)
				}
				checkReplay(t, req, c.read)
			}
		})
	}
}

func checkReplay(t *testing.T, req *message.Request, want string) {
	t.Helper()
	if req.Body == nil {
		return
	}
	_, streamed := req.Body.(*replay)
	if streamed && req.Body.Buffered() != len(want) {
		t.Errorf("%d bytes buffered", req.Body.Buffered())
	}
	b, err := io.ReadAll(iotest.OneByteReader(req.Body))
	if err != nil || string(b) != want {
		t.Errorf("the request goes on with %q, %v", b, err)
	}
	if r, ok := req.Body.(*replay); ok {
		if _, ok := r.body.(*stream); ok && req.Body.Trailers().Get("grpc-status") != "0" {
			t.Error("trailers are lost")
		}
		req.Body.Close()
	}
}

// A client that does not end its body is waited for until its request ends.
func TestSlowBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r, w := io.Pipe()
		body := newStream(r)
		go func() {
			<-body.closed
			w.CloseWithError(errors.New("closed"))
		}()
		svc := grpcService()
		svc.MaxBodyBytes = 100
		req := request("")
		req.Body, req.ContentLength = body, -1
		done := make(chan Outcome)
		go func() { done <- New(Config{}).Check(ctx, svc, input(req)) }()
		synctest.Wait()
		select {
		case out := <-done:
			t.Fatalf("decided without the body: %+v", out)
		default:
		}
		cancel()
		if out := <-done; out.Allowed || out.Decision != Broken {
			t.Errorf("%+v", out)
		}
	})
}

// Tunnels have no body that ends.
func TestTunnel(t *testing.T) {
	s := &server{answer: &authpb.CheckResponse{Status: &statuspb.Status{}}}
	svc := grpcService()
	svc.MaxBodyBytes = 10
	req := request("")
	req.Method, req.Protocol, req.Body, req.ContentLength = "GET", "websocket", newStream(iotest.ErrReader(errors.New("must not be read"))), -1
	if out := New(Config{Caller: serve(t, s)}).Check(t.Context(), svc, input(req)); !out.Allowed {
		t.Errorf("%+v", out)
	}
}
