package http1

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/internal/message"
)

// TestIdleClientNotices has the other end close, half-close or talk while nobody
// uses the connection.
func TestIdleClientNotices(t *testing.T) {
	for name, f := range map[string]func(far *pipeConn){
		"close":      func(far *pipeConn) { _ = far.Close() },
		"half-close": func(far *pipeConn) { _ = far.CloseWrite() },
		"bytes":      func(far *pipeConn) { _, _ = far.Write([]byte("HTTP/1.1 408 \r\n\r\n")) },
	} {
		for _, hide := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					near, far := newPipe()
					go answerAll(far, len("GET / HTTP/1.1\r\nhost: h\r\n\r\n"), []byte("HTTP/1.1 204 \r\n\r\n"))
					var conn net.Conn = near
					if hide {
						conn = plain{near}
					}
					c := NewClientConn(conn, Config{})
					for range 3 {
						roundTrip(t, c, get("/"))
						time.Sleep(5 * time.Second) // of the bubble's clock: the guard is reading
						if !c.Idle() {
							t.Fatal("not idle")
						}
					}
					f(far)
					<-c.Done()
					_, err := c.RoundTrip(context.Background(), get("/"), nil)
					var e *message.ExchangeError
					if !errors.As(err, &e) || e.Stage != message.Unprocessed || !e.Reused {
						t.Errorf("%v", err)
					}
					_ = far.Close()
				})
			})
		}
	}
}

func stageOf(err error) message.Stage {
	var e *message.ExchangeError
	if errors.As(err, &e) {
		return e.Stage
	}
	return 0
}

// failing is a body that breaks off.
type failing struct{ whole }

func (f *failing) Buffered() int { return 0 }
func (f *failing) Read(p []byte) (int, error) {
	if len(f.b) == 0 {
		return 0, errors.New("its sender is gone")
	}
	n := copy(p, f.b)
	f.b = f.b[n:]
	return n, nil
}

func TestStages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The other end reads the request and goes.
		near, far := newPipe()
		go func() { _, _ = far.Read(make([]byte, 1<<10)); _ = far.Close() }()
		_, err := NewClientConn(near, Config{}).RoundTrip(context.Background(), get("/"), nil)
		if stageOf(err) != message.Sent {
			t.Errorf("closed: %v", err)
		}
		// It was gone before.
		near, far = newPipe()
		_ = far.Close()
		_, err = NewClientConn(plain{near}, Config{}).RoundTrip(context.Background(), get("/"), nil)
		if stageOf(err) != message.Unprocessed {
			t.Errorf("gone: %v", err)
		}
		// ctx ends.
		near, far = newPipe()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err = NewClientConn(near, Config{}).RoundTrip(ctx, get("/"), nil)
		if stageOf(err) != message.Aborted || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ctx: %v", err)
		}
		_ = far.Close()
		// The request's body fails.
		near, far = newPipe()
		req := get("/")
		req.Method, req.ContentLength, req.Body = "POST", 10, &failing{whole{b: []byte("abc")}}
		_, err = NewClientConn(near, Config{}).RoundTrip(context.Background(), req, nil)
		if stageOf(err) != message.Aborted {
			t.Errorf("body: %v", err)
		}
		_ = far.Close()
		// Two at a time.
		near, far = newPipe()
		go func() { _, _ = io.Copy(io.Discard, far) }()
		c := NewClientConn(near, Config{})
		done := make(chan struct{})
		go func() { defer close(done); _, _ = c.RoundTrip(context.Background(), get("/"), nil) }()
		synctest.Wait()
		if _, err = c.RoundTrip(context.Background(), get("/"), nil); stageOf(err) != message.Unprocessed || !errors.Is(err, errBusy) {
			t.Errorf("busy: %v", err)
		}
		_ = c.Close()
		<-done
		_ = far.Close()
	})
}

// TestEarlyAnswer has the server answer before the request has come whole.
func TestEarlyAnswer(t *testing.T) {
	near, _ := serve(t, Config{}, func(_ context.Context, _ *message.Request, w message.Responder) {
		_ = w.Respond(&message.Response{Status: 413, ContentLength: 2})
		_, _ = w.Write([]byte("no"))
		_ = w.End(nil)
	})
	c := NewClientConn(near, Config{})
	req := get("/")
	req.Method, req.ContentLength, req.Body = "POST", 8<<20, &whole{b: make([]byte, 8<<20)}
	resp, got := roundTrip(t, c, req)
	if resp.Status != 413 || got != "no" {
		t.Errorf("%d %q", resp.Status, got)
	}
	_ = c.Close()
}

// TestUnreadResponse closes bodies: what has come already does not cost the
// connection, what is still to come does.
func TestUnreadResponse(t *testing.T) {
	for _, whole := range []bool{true, false} {
		near, far := newPipe()
		go func() {
			_, _ = far.Read(make([]byte, 1<<10))
			answer := "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
			if !whole {
				answer = answer[:len(answer)-1]
			}
			_, _ = far.Write([]byte(answer))
		}()
		c := NewClientConn(near, Config{})
		resp, err := c.RoundTrip(context.Background(), get("/"), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if c.Idle() != whole {
			t.Errorf("whole %v: idle %v", whole, c.Idle())
		}
		_ = c.Close()
		_ = far.Close()
	}
}

// A body tells all that has come, not only what the codec has taken from the
// connection, so that it is passed on in large pieces.
func TestBodyTellsWhatTheConnectionKeeps(t *testing.T) {
	const size = 40 << 10
	content := strings.Repeat("x", size)
	for name, answer := range map[string]string{
		"length":  "HTTP/1.1 200 OK\r\ncontent-length: 40960\r\n\r\n" + content,
		"chunked": "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na000\r\n" + content + "\r\n0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			near, far := newPipe()
			if _, err := far.Write([]byte(answer)); err != nil {
				t.Fatal(err)
			}
			c := NewClientConn(near, Config{})
			defer c.Close()
			resp, err := c.RoundTrip(t.Context(), get("/"), nil)
			if err != nil {
				t.Fatal(err)
			}
			if n := resp.Body.Buffered(); n != size {
				t.Errorf("%d bytes are said to be there, want %d", n, size)
			}
			got := make([]byte, size+100)
			n, err := resp.Body.Read(got)
			if n != size || string(got[:n]) != content {
				t.Errorf("one Read gave %d bytes of %d, %v", n, size, err)
			}
			if _, err := resp.Body.Read(got); err != io.EOF {
				t.Errorf("at the end %v", err)
			}
		})
	}
}
