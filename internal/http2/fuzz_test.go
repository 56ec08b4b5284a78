package http2_test

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/http2"
	"github.com/ambit-mesh/ambit/internal/message"
)

// seeds are frames of every kind, and ways to break them.
func seeds(f *testing.F) {
	get := "\x82\x86\x84\x41\x01a"
	for _, s := range [][]byte{
		raw(1, 5, 1, []byte(get)...),
		slices.Concat(raw(1, 4, 1, []byte(get)...), raw(0, 0, 1, 'x'), raw(0, 9, 1, 1, 'y', 0)),
		slices.Concat(raw(1, 0, 1, []byte(get)...), raw(9, 0, 1), raw(9, 4, 1, 0x40, 1, 'a', 1, 'b')),
		slices.Concat(raw(1, 4, 1, []byte(get)...), raw(1, 5, 1, 0x40, 1, 'a', 1, 'b')),
		slices.Concat(raw(1, 4, 1, []byte(get)...), raw(3, 0, 1, 0, 0, 0, 8), raw(8, 0, 1, 0, 0, 0, 1)),
		slices.Concat(raw(4, 0, 0, 0, 4, 0, 0, 0, 1), raw(4, 1, 0), raw(6, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8), raw(2, 0, 1, 0, 0, 0, 0, 1)),
		slices.Concat(raw(1, 0x2c, 1, append([]byte{1, 0, 0, 0, 0, 9}, get+"\x00"...)...), raw(7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)),
		slices.Concat(raw(1, 4, 1, 0x88), raw(0, 1, 1, 'x')),
		slices.Concat(raw(1, 4, 1, 0x48, 3, '1', '0', '3'), raw(1, 5, 1, 0x88, 0x40, 1, 'a', 1, 'b')),
		slices.Concat(raw(1, 4, 1, 0x88, 0x5c, 1, '3'), raw(0, 0, 1, 'a', 'b'), raw(0, 1, 1, 'c')),
	} {
		f.Add(s, uint8(0))
		f.Add(s, uint8(7))
	}
}

// pieces writes b in pieces of a size, so that frames are cut anywhere.
func pieces(w io.Writer, b []byte, size uint8) {
	for len(b) > 0 {
		n := len(b)
		if size > 0 {
			n = min(n, int(size))
		}
		if _, err := w.Write(b[:n]); err != nil {
			return
		}
		b = b[n:]
	}
}

// FuzzServer feeds a server anything behind a greeting. What it hands to handlers
// is well-formed, and it always ends.
func FuzzServer(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, frames []byte, size uint8) {
		c, s := bufferedPipe(t)
		sc := http2.NewServerConn(s, http2.Config{}, message.HandlerFunc(func(ctx context.Context, req *message.Request, w message.Responder) {
			wellFormed(t, req.Fields)
			if req.Method == "" || req.Authority == "" || strings.ContainsAny(req.Authority, "@/ \r\n") || strings.ContainsAny(req.Path, " \r\n\x00#") {
				t.Errorf("%+v", req)
			}
			if !req.Tunnel() && !strings.HasPrefix(req.Path, "/") && req.Path != "*" {
				t.Errorf("path %q", req.Path)
			}
			n := int64(0)
			if req.Body != nil {
				var err error
				n, err = io.Copy(io.Discard, req.Body)
				if err != nil {
					return
				}
				wellFormed(t, req.Body.Trailers())
			}
			if req.ContentLength >= 0 && n != req.ContentLength {
				t.Errorf("%d bytes, content-length %d", n, req.ContentLength)
			}
			answer(w, 200, "hello")
		}))
		ended := make(chan error, 1)
		go func() { ended <- sc.Run(context.Background()) }()
		go func() { _, _ = io.Copy(io.Discard, c) }()
		pieces(c, slices.Concat([]byte(xhttp2.ClientPreface), raw(4, 0, 0), frames), size)
		_ = c.(*memConn).CloseWrite()
		<-ended
	})
}

func wellFormed(t *testing.T, fields message.Fields) {
	for _, f := range fields {
		if f.Name == "" || f.Name != strings.ToLower(f.Name) || strings.ContainsAny(f.Name, " :\r\n\x00") || strings.ContainsAny(f.Value, "\r\n\x00") || strings.Trim(f.Value, " \t") != f.Value {
			t.Errorf("field %q: %q", f.Name, f.Value)
		}
		switch f.Name {
		case "connection", "transfer-encoding", "content-length", "host", "upgrade", "keep-alive", "proxy-connection":
			t.Errorf("field %q came through", f.Name)
		}
	}
}

// FuzzClient answers a client with anything.
func FuzzClient(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, frames []byte, size uint8) {
		c, s := bufferedPipe(t)
		cc := http2.NewClientConn(c, http2.Config{})
		ended := make(chan error, 1)
		go func() { ended <- cc.Run(context.Background()) }()
		go func() { _, _ = io.Copy(io.Discard, s) }()
		done := make(chan struct{})
		go func() {
			defer close(done)
			body, w := newPipeBody()
			resp, err := cc.RoundTrip(context.Background(), post("/", body, -1), nil)
			if err != nil {
				if _, ok := err.(*message.ExchangeError); !ok {
					t.Errorf("%T %v", err, err)
				}
				return
			}
			wellFormed(t, resp.Fields)
			if resp.Status < 200 || resp.Status > 999 {
				t.Errorf("status %d", resp.Status)
			}
			n := int64(0)
			if resp.Body != nil {
				n, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			if err == nil && resp.ContentLength >= 0 && n != resp.ContentLength && resp.Status != 304 {
				t.Errorf("%d bytes, content-length %d", n, resp.ContentLength)
			}
			w.Close()
		}()
		pieces(s, slices.Concat(raw(4, 0, 0), frames), size)
		_ = s.(*memConn).CloseWrite()
		<-done
		<-ended
	})
}
