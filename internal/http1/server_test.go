package http1

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/internal/message"
)

func ok(_ context.Context, _ *message.Request, w message.Responder) {
	_ = w.Respond(&message.Response{Status: 200})
	_ = w.End(nil)
}

// serveIn is serve for a synctest bubble; ended gets what Run returns.
func serveIn(cfg Config, h message.HandlerFunc) (near *pipeConn, sc *ServerConn, ended chan error) {
	near, far := newPipe()
	sc, ended = NewServerConn(far, cfg, h), make(chan error, 1)
	go func() { ended <- sc.Run(context.Background()) }()
	return near, sc, ended
}

const simpleGet = "GET / HTTP/1.1\r\nhost: h\r\n\r\n"

func TestServerTimeouts(t *testing.T) {
	for _, c := range []struct {
		name, in string
		cfg      Config
		after    time.Duration // at least, and at most half as much again
		answer   string
		limit    string
	}{
		{"idle from the start", "", Config{IdleTimeout: time.Minute}, time.Minute, "", "idle_timeout"},
		{"idle, shorter than a second", "", Config{IdleTimeout: 500 * time.Millisecond}, 500 * time.Millisecond, "", "idle_timeout"},
		{"idle after a request", simpleGet, Config{IdleTimeout: time.Minute}, time.Minute, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "idle_timeout"},
		{"head", "GET / HT", Config{HeaderTimeout: 3 * time.Second}, 3 * time.Second, "HTTP/1.1 408 Request Timeout", "header_timeout"},
		{"second head", simpleGet + "GET / HT", Config{HeaderTimeout: 3 * time.Second}, 3 * time.Second, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 408", "header_timeout"},
		{"body", "POST /read HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nab", Config{BodyTimeout: 2 * time.Second}, 2 * time.Second, "HTTP/1.1 408", "body_timeout"},
		{"body that nobody reads", "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nab", Config{}, settleTimeout, "HTTP/1.1 200", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limit := make(chan string, 1)
				c.cfg.Rejected = func(r message.Rejection) { limit <- r.Limit }
				near, _, ended := serveIn(c.cfg, func(ctx context.Context, req *message.Request, w message.Responder) {
					if req.Path == "/read" {
						if _, err := io.ReadAll(req.Body); err != nil {
							return
						}
					}
					ok(ctx, req, w)
				})
				began := time.Now()
				_, _ = near.Write([]byte(c.in))
				b, _ := io.ReadAll(near)
				took := time.Since(began)
				if took < c.after || took > c.after*3/2 || !strings.HasPrefix(string(b), c.answer) || c.answer == "" && len(b) > 0 {
					t.Errorf("after %v: %q", took, b)
				}
				_ = near.Close()
				<-ended
				close(limit)
				if got := <-limit; got != c.limit {
					t.Errorf("limit %q, want %q", got, c.limit)
				}
			})
		})
	}
}

// TestIdleHoldsNothing has a connection serve a request after a long wait, and
// looks for its buffer in between.
func TestIdleHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, sc, ended := serveIn(Config{}, ok)
		for range 3 {
			_, _ = near.Write([]byte(simpleGet))
			b := make([]byte, 1<<10)
			if n, err := near.Read(b); err != nil || !bytes.HasPrefix(b[:n], []byte("HTTP/1.1 200")) {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second) // of the bubble's clock
			synctest.Wait()
			if sc.in.buf != nil || sc.watch.stop != nil {
				t.Fatal("an idle connection holds a buffer or a watcher")
			}
		}
		_ = near.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, sc, ended := serveIn(Config{}, ok)
		synctest.Wait()
		sc.Drain()
		if err := <-ended; err != nil {
			t.Error("idle:", err)
		}
		_ = near.Close()

		goOn := make(chan struct{})
		near, sc, ended = serveIn(Config{}, func(ctx context.Context, req *message.Request, w message.Responder) {
			<-goOn
			ok(ctx, req, w)
		})
		_, _ = near.Write([]byte(simpleGet))
		synctest.Wait()
		sc.Drain()
		close(goOn)
		b, _ := io.ReadAll(near)
		if !strings.Contains(string(b), "connection: close\r\n") {
			t.Errorf("under way: %q", b)
		}
		_ = near.Close()
		<-ended
	})
}

// A connection that came in while its server drains brings a request that is on
// its way already.
func TestDrainAnswersTheFirstRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := newPipe()
		sc := NewServerConn(far, Config{}, message.HandlerFunc(ok))
		sc.Drain()
		ended := make(chan error, 1)
		go func() { ended <- sc.Run(t.Context()) }()
		synctest.Wait()
		_, _ = near.Write([]byte(simpleGet))
		b, _ := io.ReadAll(near)
		if !strings.HasPrefix(string(b), "HTTP/1.1 200") || !strings.Contains(string(b), "connection: close\r\n") {
			t.Errorf("%q", b)
		}
		_ = near.Close()
		<-ended
	})
}

func TestClientGoneEndsContext(t *testing.T) {
	for _, in := range []string{simpleGet, "GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"} {
		told := make(chan error, 1)
		near, _, ended := serveIn(Config{}, func(ctx context.Context, _ *message.Request, _ message.Responder) {
			<-ctx.Done()
			told <- ctx.Err()
		})
		_, _ = near.Write([]byte(in))
		_ = near.Reset()
		if err := <-told; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, errGone) {
			t.Error(err)
		}
	}
}

// TestBrokenAnswersAreNotComplete ends answers in all the ways a handler can.
func TestBrokenAnswersAreNotComplete(t *testing.T) {
	for name, h := range map[string]func(w message.Responder){
		"left unfinished": func(w message.Responder) {
			_ = w.Respond(&message.Response{Status: 200, ContentLength: -1})
			_, _ = w.Write([]byte("part"))
		},
		"broken off": func(w message.Responder) {
			_ = w.Respond(&message.Response{Status: 200, ContentLength: -1})
			_, _ = w.Write([]byte("part"))
			w.Break(errors.New("other end is gone"))
		},
		"too short": func(w message.Responder) {
			_ = w.Respond(&message.Response{Status: 200, ContentLength: 10})
			_, _ = w.Write([]byte("part"))
			if err := w.End(nil); !errors.Is(err, errLength) {
				t.Error(err)
			}
		},
		"bad trailer": func(w message.Responder) {
			_ = w.Respond(&message.Response{Status: 200, ContentLength: -1})
			_, _ = w.Write([]byte("part"))
			if w.End(message.Fields{{Name: "x", Value: "\n"}}) == nil {
				t.Error("trailer was sent")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			near, _ := serve(t, Config{}, func(_ context.Context, _ *message.Request, w message.Responder) { h(w) })
			c := NewClientConn(near, Config{})
			resp, err := c.RoundTrip(context.Background(), get("/"), nil)
			if err == nil {
				_, err = io.ReadAll(resp.Body)
			}
			var e *message.ExchangeError
			if !errors.As(err, &e) || e.Stage != message.Answered {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestSlowReader has a client that takes nothing: the handler is stopped by it and
// given up in the end.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wrote, failed := 0, error(nil)
		near, _, ended := serveIn(Config{WriteTimeout: time.Minute}, func(_ context.Context, _ *message.Request, w message.Responder) {
			_ = w.Respond(&message.Response{Status: 200, ContentLength: -1})
			for failed == nil {
				var n int
				n, failed = w.Write(make([]byte, 32<<10))
				wrote += n
			}
		})
		_, _ = near.Write([]byte(simpleGet))
		<-ended
		if wrote > 2*pipeSize || !isTimeout(failed) {
			t.Errorf("wrote %d, then %v", wrote, failed)
		}
		_ = near.Close()
	})
}

func TestMaxRequestsPerConn(t *testing.T) {
	near, _ := serve(t, Config{MaxRequestsPerConn: 2}, ok)
	_, _ = near.Write([]byte(strings.Repeat(simpleGet, 3)))
	b, _ := io.ReadAll(near)
	if strings.Count(string(b), "200 OK") != 2 || strings.Count(string(b), "connection: close") != 1 {
		t.Errorf("%q", b)
	}
}

// TestBodyCloseEndsRead has one goroutine read and another close.
func TestBodyCloseEndsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, _, ended := serveIn(Config{}, func(_ context.Context, req *message.Request, w message.Responder) {
			got := make(chan error)
			go func() { _, err := req.Body.Read(make([]byte, 1)); got <- err }()
			synctest.Wait()
			_ = req.Body.Close()
			if err := <-got; err == nil {
				t.Error("Read gave something")
			}
			_ = w.Respond(&message.Response{Status: 200})
			_ = w.End(nil)
		})
		_, _ = near.Write([]byte("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\n"))
		b, _ := io.ReadAll(near)
		if !strings.Contains(string(b), "200 OK") {
			t.Errorf("%q", b)
		}
		_ = near.Close()
		<-ended
	})
}

// TestTunnelWaitsForAnswer has somebody read from a tunnel that is then refused, or
// closed by its reader's owner.
func TestTunnelWaitsForAnswer(t *testing.T) {
	for _, closes := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			near, _, ended := serveIn(Config{}, func(_ context.Context, req *message.Request, w message.Responder) {
				got := make(chan error)
				go func() { _, err := req.Body.Read(make([]byte, 1)); got <- err }()
				synctest.Wait()
				if closes {
					_ = req.Body.Close()
				} else {
					_ = w.Respond(&message.Response{Status: 403})
					_ = w.End(nil)
				}
				if err := <-got; err == nil {
					t.Error("Read gave something")
				}
			})
			_, _ = near.Write([]byte("CONNECT h:1 HTTP/1.1\r\nhost: h\r\n\r\nGET / HTTP/1.1\r\n"))
			_, _ = io.ReadAll(near)
			_ = near.Close()
			<-ended
		})
	}
}

// TestEarlyTunnelBytes gives what came right behind the head of a CONNECT to the
// tunnel.
func TestEarlyTunnelBytes(t *testing.T) {
	near, _ := serve(t, Config{}, func(_ context.Context, req *message.Request, w message.Responder) {
		_ = w.Respond(&message.Response{Status: 200})
		b, _ := io.ReadAll(req.Body)
		_, _ = w.Write(b)
		_ = w.End(nil)
	})
	early := "GET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n"
	_, _ = near.Write([]byte("CONNECT h:1 HTTP/1.1\r\nhost: h\r\n\r\n" + early))
	_ = near.CloseWrite()
	if b, _ := io.ReadAll(near); string(b) != "HTTP/1.1 200 OK\r\n\r\n"+early {
		t.Errorf("%q", b)
	}
}
