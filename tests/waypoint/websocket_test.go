package waypoint_test

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
)

// webSocket echoes messages. "close n" closes the connection with that code.
func (e *echoServer) webSocket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"echo"}})
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(8 << 20)
	for {
		kind, message, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if text, ok := bytes.CutPrefix(message, []byte("close ")); ok {
			code, _ := strconv.Atoi(string(text))
			_ = c.Close(websocket.StatusCode(code), "as wished")
			return
		}
		if c.Write(r.Context(), kind, message) != nil {
			return
		}
	}
}

// webSocketClient goes through what WebSocket connections have to stand, and ends
// with an error at the first that goes wrong.
func webSocketClient(url string, h2 bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	options := &websocket.DialOptions{Subprotocols: []string{"echo"}}
	if h2 {
		options.HTTPClient = &http.Client{Transport: newExtendedConnect()}
	}
	for _, code := range []websocket.StatusCode{1000, 1001, 1013, 3000, 4999} {
		c, _, err := websocket.Dial(ctx, url, options)
		if err != nil {
			return fmt.Errorf("dial: %w", err)
		}
		if err := converse(ctx, c); err != nil {
			return err
		}
		if err := c.Write(ctx, websocket.MessageText, fmt.Appendf(nil, "close %d", code)); err != nil {
			return err
		}
		if _, _, err = c.Read(ctx); websocket.CloseStatus(err) != code {
			return fmt.Errorf("closed with %w, want %d", err, code)
		}
	}
	c, _, err := websocket.Dial(ctx, url, options)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	if err := c.Close(websocket.StatusGoingAway, "enough"); err != nil {
		return fmt.Errorf("closing handshake: %w", err)
	}
	return json.NewEncoder(os.Stdout).Encode(response{Status: 200})
}

func converse(ctx context.Context, c *websocket.Conn) error {
	if c.Subprotocol() != "echo" {
		return fmt.Errorf("subprotocol %q", c.Subprotocol())
	}
	c.SetReadLimit(8 << 20)
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 4 << 20} {
		message := bytes.Repeat([]byte("ambit"), size/5+1)[:size]
		// A writer sends fragments.
		w, err := c.Writer(ctx, websocket.MessageBinary)
		if err != nil {
			return err
		}
		for piece := range piecesOf(message, max(1, size/7)) {
			if _, err := w.Write(piece); err != nil {
				return err
			}
		}
		if err := w.Close(); err != nil {
			return err
		}
		kind, got, err := c.Read(ctx)
		if err != nil || kind != websocket.MessageBinary || !bytes.Equal(got, message) {
			return fmt.Errorf("a message of %d bytes came back as %d: %w", size, len(got), err)
		}
	}
	// Pongs are seen by whoever reads.
	read := make(chan error, 1)
	go func() {
		_, _, err := c.Read(ctx)
		read <- err
	}()
	for range 3 {
		if err := c.Ping(ctx); err != nil {
			return fmt.Errorf("ping: %w", err)
		}
	}
	if err := c.Write(ctx, websocket.MessageText, []byte("after pings")); err != nil {
		return err
	}
	return <-read
}

func piecesOf(p []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(p) > 0 {
			k := min(n, len(p))
			if !yield(p[:k]) {
				return
			}
			p = p[k:]
		}
	}
}

// extendedConnect opens WebSocket connections as streams of HTTP/2 (RFC 8441) for
// a client that knows HTTP/1.1 only.
type extendedConnect struct{ t *http2.Transport }

func newExtendedConnect() extendedConnect {
	return extendedConnect{&http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}}
}

// RoundTrip makes the answer to the stream look like one of HTTP/1.1.
func (e extendedConnect) RoundTrip(r *http.Request) (*http.Response, error) {
	in, out := io.Pipe()
	h := http.Header{":protocol": {"websocket"}, "Sec-Websocket-Version": {"13"}}
	if p := r.Header.Get("Sec-WebSocket-Protocol"); p != "" {
		h.Set("Sec-WebSocket-Protocol", p)
	}
	req := (&http.Request{Method: "CONNECT", URL: r.URL, Host: r.Host, Header: h, Body: in, ContentLength: -1}).WithContext(context.WithoutCancel(r.Context()))
	resp, err := e.t.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != 200 {
		return nil, errors.New("extended CONNECT: " + resp.Status)
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	resp.StatusCode = http.StatusSwitchingProtocols
	resp.Header.Set("Connection", "Upgrade")
	resp.Header.Set("Upgrade", "websocket")
	resp.Header.Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(sum[:]))
	resp.Body = &duplex{resp.Body, out}
	return resp, nil
}

type duplex struct {
	io.ReadCloser
	out *io.PipeWriter
}

func (d *duplex) Write(p []byte) (int, error) { return d.out.Write(p) }

func (d *duplex) Close() error {
	_ = d.out.Close()
	return d.ReadCloser.Close()
}

// WebSocket connections go through, upgraded from HTTP/1.1 or as streams of HTTP/2:
// fragments, large messages, pings, and how they are closed.
func TestWebSocket(t *testing.T) {
	m := use(t)
	m.apply(service("socket", "v1"))
	m.until("the service answers", request{URL: "http://socket/"}, status(200))
	for _, h2 := range []bool{false, true} {
		var out response
		m.run("client", nil, &out, "websocket", "http://socket/websocket", strconv.FormatBool(h2))
	}
	m.logged(`"path":"/websocket"`, `"upgrade":"websocket"`, `"method":"CONNECT"`)
}
