package http2_test

import (
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/ambit-mesh/ambit/internal/http2"
	"github.com/ambit-mesh/ambit/internal/message"
)

func TestBodiesOfEverySize(t *testing.T) {
	p := newPair(t, http2.Config{}, echo)
	for _, size := range []int{0, 1, 511, 512, 513, 16383, 16384, 16385, 65535, 65536, 65537, 1 << 20, 5 << 20} {
		b := make([]byte, size)
		r := rand.NewChaCha8([32]byte{byte(size)})
		_, _ = r.Read(b)
		for _, length := range []int64{-1, int64(size)} {
			resp, got := p.roundTrip(t, post("/", newBody(string(b)), length))
			if got != string(b) || resp.Status != 200 {
				t.Fatalf("%d bytes: status %d, %d bytes back", size, resp.Status, len(got))
			}
		}
	}
}

func TestManyStreamsAtOnce(t *testing.T) {
	p := newPair(t, http2.Config{}, echo)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			body, w := newPipeBody()
			h := sha256.New()
			go func() {
				_, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(rand.NewChaCha8([32]byte{byte(i)}), 300<<10+int64(i)))
				w.CloseWithError(err)
			}()
			resp, err := p.cc.RoundTrip(p.ctx, post("/", body, -1), nil)
			if err != nil {
				t.Error(err)
				return
			}
			back := sha256.New()
			n, err := io.Copy(back, resp.Body)
			if err != nil || n != 300<<10+int64(i) || string(back.Sum(nil)) != string(h.Sum(nil)) {
				t.Errorf("stream %d: %d bytes, %v", i, n, err)
			}
		})
	}
	wg.Wait()
	if n := p.cc.Streams(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
}

func TestTrailersBothWays(t *testing.T) {
	p := newPair(t, http2.Config{}, echo)
	for _, size := range []int{0, 5, 100000} {
		body := newBody(string(make([]byte, size)))
		body.trailers = message.Fields{{Name: "grpc-status", Value: "0"}}
		resp, got := p.roundTrip(t, post("/", body, -1))
		if len(got) != size || resp.Body.Trailers().Get("grpc-status") != "0" {
			t.Errorf("%d bytes: %d back, trailers %v", size, len(got), resp.Body.Trailers())
		}
	}
}

func TestUnary(t *testing.T) {
	p := newPair(t, http2.Config{}, func(_ context.Context, req *message.Request, w message.Responder) {
		answer(w, 200, "hello "+req.Path, message.Field{Name: "x", Value: req.Authority})
	})
	for range 3 {
		resp, got := p.roundTrip(t, get("/a?b"))
		if got != "hello /a?b" || resp.Fields.Get("x") != "shop:80" || resp.ContentLength != 10 || resp.Version != message.HTTP2 {
			t.Fatalf("%+v %q", resp, got)
		}
	}
}
