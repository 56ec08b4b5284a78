package http2_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/http2"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

// erratic does one of the things that handlers do.
func erratic(ctx context.Context, req *message.Request, w message.Responder) {
	switch rand.IntN(6) {
	case 0:
		answer(w, 200, "early")
	case 1:
		_ = w.Respond(&message.Response{Status: 200, ContentLength: -1})
		_, _ = w.Write(make([]byte, 30000))
		w.Break(errors.New("broken off"))
	case 2:
		_, _ = io.CopyN(io.Discard, req.Body, 10000)
		answer(w, 500, strings.Repeat("x", 20000))
	case 3:
		req.Body.Close()
		answer(w, 200, "not read")
	default:
		echo(ctx, req, w)
	}
}

// Whatever ends exchanges, in whichever order, nothing of them stays behind: no
// stream, and no byte of the connection's windows, which are small here.
func TestNothingIsLeftBehind(t *testing.T) {
	p := newPair(t, http2.Config{MaxStreams: 4, ConnWindow: 256 << 10}, erratic)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 150 {
				ctx, cancel := context.WithCancel(p.ctx)
				if rand.IntN(3) == 0 {
					time.AfterFunc(time.Duration(rand.IntN(1000))*time.Microsecond, cancel)
				}
				resp, err := p.cc.RoundTrip(ctx, post("/", newBody(strings.Repeat("y", rand.IntN(200000))), -1), nil)
				if err == nil && resp.Body != nil {
					if rand.IntN(3) > 0 {
						_, _ = io.Copy(io.Discard, resp.Body)
					}
					resp.Body.Close()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if n := p.cc.Streams(); n != 0 {
		t.Fatalf("%d streams are left", n)
	}
	testkit.Until(t, "every byte of window is accounted for", func() bool {
		return p.cc.Missing() == 0 && p.sc.Missing() == 0
	})
}
