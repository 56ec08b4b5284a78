package http1

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/message"
)

// whole is a body that lies in memory.
type whole struct {
	b        []byte
	trailers message.Fields
	once     bool // gives a byte at a time and tells of none before
}

func (w *whole) Read(p []byte) (int, error) {
	if w.once && len(p) > 1 {
		p = p[:1]
	}
	n := copy(p, w.b)
	if w.b = w.b[n:]; len(w.b) == 0 {
		return n, io.EOF
	}
	return n, nil
}

func (w *whole) Buffered() int {
	if w.once {
		return 0
	}
	return len(w.b)
}
func (w *whole) Trailers() message.Fields { return w.trailers }
func (w *whole) Close() error             { return nil }

// seen is a request as a handler got it.
type seen struct {
	req      message.Request
	body     string
	trailers message.Fields
}

// parseAll gives in to a server connection and tells which requests it took whole.
func parseAll(cfg Config, in []byte) (got []seen) {
	near, far := newPipe()
	h := message.HandlerFunc(func(_ context.Context, req *message.Request, w message.Responder) {
		s := seen{req: *req}
		if req.Body != nil && !req.Tunnel() {
			b, err := io.ReadAll(req.Body)
			if err != nil {
				return
			}
			s.body, s.trailers = string(b), req.Body.Trailers()
		}
		s.req.Body = nil
		got = append(got, s)
		_ = w.Respond(&message.Response{Status: 204})
		_ = w.End(nil)
	})
	go func() {
		_, _ = near.Write(in)
		_ = near.CloseWrite()
		_, _ = io.Copy(io.Discard, near)
	}()
	_ = NewServerConn(far, cfg, h).Run(context.Background())
	_ = near.Close()
	return got
}

// forward writes a request as a client connection does.
func forward(t *testing.T, s *seen) []byte {
	t.Helper()
	req := s.req
	if !req.Tunnel() && (s.body != "" || req.ContentLength != 0) {
		req.Body = &whole{b: []byte(s.body), trailers: s.trailers}
	}
	req.Continue = false
	tr := &trip{req: &req}
	if err := tr.encode(); err != nil {
		t.Fatalf("what was taken cannot be sent on: %v", err)
	}
	defer tr.out.give()
	wire := bytes.Clone(tr.wire)
	if !tr.whole { // an empty body, which a second goroutine would send
		wire, _ = appendLastChunk(wire, s.trailers)
	}
	return wire
}

func addCorpora(f *testing.F, files ...string) {
	for _, file := range files {
		for _, c := range readCorpus(f, "testdata/"+file+".txt") {
			f.Add([]byte(c.in))
		}
	}
}

// FuzzRequest: what we take can be sent on, means the same when it is read again,
// by us and by net/http, and is one request then.
func FuzzRequest(f *testing.F) {
	addCorpora(f, "requests", "smuggling", "chunked")
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 8<<10 {
			return
		}
		for _, s := range parseAll(corpusConfig, in) {
			if s.req.Authority == "" {
				continue // HTTP/1.0 without Host: an empty one is sent on, and nobody takes that
			}
			wire := forward(t, &s)
			again := parseAll(Config{}, wire)
			if len(again) != 1 {
				t.Fatalf("%d requests in what we send on: %q", len(again), wire)
			}
			checkSame(t, &s, &again[0], wire)
			checkNetHTTP(t, &s, wire)
		}
	})
}

func checkSame(t *testing.T, a, b *seen, wire []byte) {
	t.Helper()
	x, y := a.req, b.req
	// What a hop changes: the version is ours, the form of the target is gone.
	x.Version, x.Scheme, x.Continue, y.Version, y.Scheme, y.Continue = 0, "", false, 0, "", false
	x.Fields, y.Fields = sorted(x.Fields), sorted(y.Fields)
	if !reflect.DeepEqual(x, y) || a.body != b.body || !reflect.DeepEqual(a.trailers, b.trailers) {
		t.Fatalf("sent on as %q\nbefore %+v %q\nafter  %+v %q", wire, x, a.body, y, b.body)
	}
}

// sorted has te, whose place is not kept, at the end.
func sorted(fields message.Fields) message.Fields {
	out := fields.Clone(1)
	if out.Has("te") {
		out.Del("te")
		out.Add("te", "trailers")
	}
	return out
}

func checkNetHTTP(t *testing.T, s *seen, wire []byte) {
	t.Helper()
	r := bufio.NewReader(bytes.NewReader(wire))
	req, err := http.ReadRequest(r)
	if err != nil {
		if strings.Contains(err.Error(), "parse ") || strings.Contains(err.Error(), "invalid URI") {
			return // net/http wants more of an URL, such as whole escapes
		}
		t.Fatalf("net/http does not take %q: %v", wire, err)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil && !strings.Contains(err.Error(), "trailer") {
		t.Fatalf("net/http: body of %q: %v", wire, err)
	}
	target := s.req.Path
	if s.req.Method == "CONNECT" {
		target = s.req.Authority
	}
	if req.Method != s.req.Method || req.RequestURI != target || req.Host != s.req.Authority || err == nil && string(body) != s.body {
		t.Fatalf("net/http reads %q as %s %s %s %q", wire, req.Method, req.RequestURI, req.Host, body)
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Fatalf("net/http finds more than one request in %q", wire)
	}
}

// FuzzResponse: what we take, net/http takes for the same, if it takes it.
func FuzzResponse(f *testing.F) {
	addCorpora(f, "responses")
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 8<<10 {
			return
		}
		near, far := newPipe()
		go func() {
			b := make([]byte, 1<<10)
			_, _ = far.Read(b)
			_, _ = far.Write(in)
			_ = far.CloseWrite()
		}()
		c := NewClientConn(near, corpusConfig)
		defer func() { _ = far.Close() }()
		defer func() { _ = c.Close() }()
		resp, err := c.RoundTrip(context.Background(), &message.Request{Method: "GET", Authority: "h", Path: "/"}, nil)
		if err != nil {
			return
		}
		var body []byte
		if resp.Body != nil {
			if body, err = io.ReadAll(resp.Body); err != nil {
				return
			}
		}
		r := bufio.NewReader(bytes.NewReader(in))
		for {
			theirs, err := http.ReadResponse(r, nil)
			if err != nil {
				return
			}
			if theirs.StatusCode < 200 {
				continue
			}
			b, err := io.ReadAll(theirs.Body)
			_ = theirs.Body.Close()
			if err == nil && (theirs.StatusCode != resp.Status || !bytes.Equal(b, body)) {
				t.Fatalf("net/http reads %q as %d %q, we as %d %q", in, theirs.StatusCode, b, resp.Status, body)
			}
			return
		}
	})
}

// FuzzChunks: what is written as chunks comes out the same, however it is cut.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("hello"), uint16(1), "x-sum", "1")
	f.Add(bytes.Repeat([]byte("a"), 70000), uint16(9000), "", "")
	f.Fuzz(func(t *testing.T, content []byte, piece uint16, name, value string) {
		if len(content)/(int(piece)+1) > 1000 || len(name)+len(value) > 1000 {
			return
		}
		var wire []byte
		for p := content; len(p) > 0; {
			n := min(int(piece)+1, len(p))
			wire = appendChunk(wire, p[:n])
			p = p[n:]
		}
		trailers := message.Fields{{Name: name, Value: value}}
		chunks := len(wire)
		wire, err := appendLastChunk(wire, trailers)
		if err != nil {
			wire, _ = appendLastChunk(wire[:chunks], nil)
		}
		near, far := newPipe()
		cfg := Config{}.withDefaults()
		b := &body{src: &source{conn: far}, cfg: &cfg, owner: nobody{}, how: byChunks}
		go func() {
			for i := 0; i < len(wire); i += 1 + int(piece)/2 {
				_, _ = near.Write(wire[i:min(len(wire), i+1+int(piece)/2)])
			}
			_ = near.CloseWrite()
		}()
		got, err := io.ReadAll(b)
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%v: got %d bytes of %d", err, len(got), len(content))
		}
		_ = near.Close()
		_ = far.Close()
	})
}

type nobody struct{}

func (nobody) begin() error          { return nil }
func (nobody) closing()              {}
func (nobody) ended(err error) error { return err }
