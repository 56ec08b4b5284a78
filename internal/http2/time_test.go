package http2_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/http2"
	"github.com/ambit-mesh/ambit/internal/message"
)

// took runs f in a bubble and checks how long it was busy, to the precision to
// which timeouts are kept.
func took(t *testing.T, want time.Duration, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		f(t)
		if d := time.Since(start); d < want || d > want+want/2 {
			t.Errorf("took %s, want %s", d, want)
		}
	})
}

func wantEnd(t *testing.T, ended <-chan error, what string) {
	t.Helper()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), what) {
		t.Errorf("Run: %v, want %q", err, what)
	}
}

func TestHandshakeTimeout(t *testing.T) {
	took(t, 10*time.Second, func(t *testing.T) {
		p := clientOf(t, http2.Config{}, byPath)
		p.write([]byte(xhttp2.ClientPreface[:10]))
		wantEnd(t, p.ended, "SETTINGS_TIMEOUT")
	})
}

func TestIdleTimeout(t *testing.T) {
	cfg := http2.Config{IdleTimeout: time.Minute}
	took(t, 2*time.Minute, func(t *testing.T) {
		p := clientOf(t, cfg, byPath).hello()
		p.get(1, true, "/")
		p.wantGoAway(xhttp2.ErrCodeNo)
		wantEnd(t, p.ended, http2.ErrClosed.Error())
	})
	took(t, time.Minute, func(t *testing.T) {
		p, _ := serverOf(t, cfg)
		p.wantGoAway(xhttp2.ErrCodeNo)
		wantEnd(t, p.ended, http2.ErrClosed.Error())
	})
}

func TestDeadPeer(t *testing.T) {
	took(t, 50*time.Second, func(t *testing.T) {
		p := clientOf(t, http2.Config{}, byPath).hello()
		p.get(1, true, "/parked")
		wantEnd(t, p.ended, "no answer to PING")
	})
	// One that answers lives, also with nothing to say.
	synctest.Test(t, func(t *testing.T) {
		p := clientOf(t, http2.Config{}, byPath).hello()
		p.get(1, true, "/parked")
		for range 10 {
			p.until("PING", func(f xhttp2.Frame) bool {
				g, ok := f.(*xhttp2.PingFrame)
				if ok {
					p.ok(p.fr.WritePing(true, g.Data))
				}
				return ok
			})
		}
		p.alive()
	})
}

func TestWriteTimeout(t *testing.T) {
	took(t, 30*time.Second, func(t *testing.T) {
		p := clientOf(t, http2.Config{}, func(_ context.Context, _ *message.Request, w message.Responder) {
			_ = w.Respond(&message.Response{Status: 200, ContentLength: -1})
			for {
				if _, err := w.Write(make([]byte, 10000)); err != nil {
					return
				}
			}
		}).hello(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 30})
		p.ok(p.fr.WriteWindowUpdate(0, 1<<30))
		p.get(1, true, "/")
		wantEnd(t, p.ended, "took no byte")
	})
}

// drained gives a server that is about to be drained, and its client, which has said hello.
func drained(t *testing.T) (*peer, *http2.ServerConn) {
	c, s := bufferedPipe(t)
	sc := http2.NewServerConn(s, http2.Config{}, message.HandlerFunc(byPath))
	p := newPeer(t, c)
	p.ended = newRunner(t).run(sc.Run)
	return p.hello(), sc
}

// hears answers the PING of a drain.
func (p *peer) hears() {
	p.t.Helper()
	p.until("the PING of a drain", func(f xhttp2.Frame) bool {
		g, ok := f.(*xhttp2.PingFrame)
		if ok && !g.IsAck() {
			p.ok(p.fr.WritePing(true, g.Data))
		}
		return ok && !g.IsAck()
	})
}

// A server that drains says so, and takes what was under way, section 6.8.
func TestServerDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, sc := drained(t)
		p.get(1, false, "/")
		p.alive()
		sc.Drain()
		sc.Drain() // is nothing new
		var ping [8]byte
		p.until("the first GOAWAY", func(f xhttp2.Frame) bool {
			g, ok := f.(*xhttp2.GoAwayFrame)
			return ok && g.LastStreamID == 1<<31-1 && g.ErrCode == xhttp2.ErrCodeNo
		})
		p.until("its PING", func(f xhttp2.Frame) bool {
			g, ok := f.(*xhttp2.PingFrame)
			if ok {
				ping = g.Data
			}
			return ok && !g.IsAck()
		})
		p.get(3, true, "/") // the client did not know
		p.wantStatus(3, "200")
		p.ok(p.fr.WritePing(true, ping))
		p.until("the last GOAWAY", func(f xhttp2.Frame) bool {
			g, ok := f.(*xhttp2.GoAwayFrame)
			return ok && g.LastStreamID == 3
		})
		p.get(5, true, "/")
		p.wantReset(5, xhttp2.ErrCodeRefusedStream)
		p.data(1, true, "rest")
		p.wantStatus(1, "200")
		p.wantGoAway(xhttp2.ErrCodeNo)
		wantEnd(t, p.ended, http2.ErrClosed.Error())
	})
}

// A client that does not answer the PING of a drain does not hold it up.
func TestServerDrainsWithoutAnswer(t *testing.T) {
	took(t, 20*time.Second, func(t *testing.T) {
		p, sc := drained(t)
		synctest.Wait()
		sc.Drain()
		wantEnd(t, p.ended, http2.ErrClosed.Error())
	})
}

// The last exchange of a drained server has ended, and its client, which is slow to read
// the answer, still gives window back. It finds an open connection, until it closes it.
func TestServerDrainsASlowClient(t *testing.T) {
	took(t, 10*time.Second, func(t *testing.T) {
		p, sc := drained(t)
		p.get(1, true, "/")
		sc.Drain()
		p.hears()
		<-time.After(10 * time.Second)
		p.ok(p.fr.WriteWindowUpdate(0, 1))
		_ = p.conn.Close()
		wantEnd(t, p.ended, http2.ErrClosed.Error())
	})
}

// One that has had nothing to say for long has nothing on its way either: its client, which
// does not close its end, does not hold it up.
func TestServerDrainsAnIdleClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, sc := drained(t)
		p.get(1, true, "/")
		p.wantStatus(1, "200")
		<-time.After(time.Minute)
		p.alive()
		<-time.After(10 * time.Second)
		began := time.Now()
		sc.Drain()
		p.hears()
		wantEnd(t, p.ended, http2.ErrClosed.Error())
		if d := time.Since(began); d > time.Second {
			t.Errorf("took %s", d)
		}
	})
}

func TestClientDrains(t *testing.T) {
	p, cc := serverOf(t, http2.Config{})
	got := p.ask(t.Context(), cc, get("/"))
	id := p.request()
	cc.Drain()
	if cc.Room() != 0 {
		t.Error("there is room")
	}
	_, err := cc.RoundTrip(t.Context(), get("/"), nil)
	wantStage(t, err, message.Unprocessed)
	p.headers(id, false, ":status", "200")
	p.data(id, true, "whole")
	if o := <-got; o.err != nil || o.body != "whole" {
		t.Errorf("%+v", o)
	}
	p.wantGoAway(xhttp2.ErrCodeNo)
	wantEnd(t, p.ended, http2.ErrClosed.Error())
}

func TestBothDrainEachOther(t *testing.T) {
	p := newPair(t, http2.Config{}, echo)
	p.roundTrip(t, get("/"))
	p.sc.Drain()
	wantEnd(t, p.scEnd, http2.ErrClosed.Error())
	wantEnd(t, p.ccEnd, http2.ErrClosed.Error())
}

func TestCloseEndsEverything(t *testing.T) {
	gone, begun := make(chan error, 1), make(chan struct{})
	p := newPair(t, http2.Config{}, func(ctx context.Context, req *message.Request, _ message.Responder) {
		close(begun)
		_, err := req.Body.Read(make([]byte, 10))
		<-ctx.Done()
		gone <- err
	})
	body, _ := newPipeBody()
	failed := make(chan error)
	go func() {
		_, err := p.cc.RoundTrip(context.Background(), post("/", body, -1), nil)
		failed <- err
	}()
	<-begun
	p.sc.Close()
	if err := <-gone; !errors.Is(err, http2.ErrClosed) {
		t.Errorf("the body's reader: %v", err)
	}
	wantStage(t, <-failed, message.Sent)
}

// Expect: 100-continue, from both sides.
func TestContinue(t *testing.T) {
	// The server sends 100 when the body is read, once.
	p := clientOf(t, http2.Config{}, byPath).hello()
	p.get(1, false, "/", "expect", "100-continue")
	p.wantStatus(1, "100")
	p.data(1, true, "abc")
	p.wantStatus(1, "200")
	// And not when it is not.
	p.get(3, false, "/ended", "expect", "100-continue")
	p.wantStatus(3, "200")

	ask := func(p *peer, cc *http2.ClientConn) (<-chan outcome, uint32) {
		req := post("/", newBody("body"), 4)
		req.Continue = true
		got := p.ask(context.Background(), cc, req)
		return got, p.request()
	}
	body := func(p *peer, id uint32) {
		p.until("the body", func(f xhttp2.Frame) bool {
			d, ok := f.(*xhttp2.DataFrame)
			return ok && d.StreamID == id && d.StreamEnded()
		})
	}
	t.Run("wanted", func(t *testing.T) {
		p, cc := serverOf(t, http2.Config{})
		got, id := ask(p, cc)
		p.headers(id, false, ":status", "100")
		body(p, id)
		p.headers(id, true, ":status", "204")
		if o := <-got; o.err != nil || o.resp.Status != 204 {
			t.Errorf("%+v", o)
		}
	})
	t.Run("not wanted", func(t *testing.T) {
		p, cc := serverOf(t, http2.Config{})
		got, id := ask(p, cc)
		p.headers(id, false, ":status", "417")
		p.data(id, true, "no")
		p.wantReset(id, xhttp2.ErrCodeCancel)
		if o := <-got; o.err != nil || o.resp.Status != 417 || o.body != "no" {
			t.Errorf("%+v", o)
		}
	})
	t.Run("nobody says", func(t *testing.T) {
		took(t, time.Second, func(t *testing.T) {
			p, cc := serverOf(t, http2.Config{})
			got, id := ask(p, cc)
			body(p, id)
			p.headers(id, true, ":status", "200")
			<-got
		})
	})
}

// A trickle in both directions at once, with nobody waiting for the other's end.
func TestBidirectional(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := bufferedPipe(t)
		p := pairOver(t, c, s, http2.Config{}, echo)
		body, w := newPipeBody()
		resp, err := p.cc.RoundTrip(t.Context(), post("/", body, -1), nil)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 10)
		for range 100 {
			_, _ = w.Write([]byte("ping"))
			if _, err := io.ReadFull(resp.Body, b[:4]); err != nil || string(b[:4]) != "ping" {
				t.Fatalf("%q, %v", b[:4], err)
			}
			time.Sleep(time.Second)
		}
		body.trailers = fields("x", "y")
		w.Close()
		if n, err := resp.Body.Read(b); n != 0 || err != io.EOF || resp.Body.Trailers().Get("x") != "y" {
			t.Errorf("%d, %v, %v", n, err, resp.Body.Trailers())
		}
		p.cc.Close()
	})
}
