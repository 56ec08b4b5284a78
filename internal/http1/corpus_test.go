package http1

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/message"
)

var update = flag.Bool("update", false, "write what happens into testdata; read the difference")

// goldenCase is one case of a corpus file: a "# name" line, lines "> " with quoted
// bytes that are sent, and lines "= " with what has to happen.
type goldenCase struct {
	name string
	arg  string // behind the name in brackets
	in   string
	want []string
}

func readCorpus(t testing.TB, path string) (cases []*goldenCase) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var c *goldenCase
	for i, line := range strings.Split(string(b), "\n") {
		switch {
		case strings.HasPrefix(line, "# "):
			c = &goldenCase{name: line[2:]}
			if name, arg, ok := strings.Cut(c.name, " ["); ok {
				c.name, c.arg = name, strings.TrimSuffix(arg, "]")
			}
			cases = append(cases, c)
		case strings.HasPrefix(line, "> "):
			s, err := strconv.Unquote(line[2:])
			if err != nil {
				t.Fatalf("%s:%d: %v", path, i+1, err)
			}
			c.in += s
		case strings.HasPrefix(line, "= "):
			c.want = append(c.want, line[2:])
		}
	}
	return cases
}

// checkCorpus runs each case of a file and compares, or updates the file.
func checkCorpus(t *testing.T, path string, run func(t *testing.T, c *goldenCase) []string) {
	t.Helper()
	var out strings.Builder
	for _, c := range readCorpus(t, path) {
		t.Run(c.name, func(t *testing.T) {
			got := run(t, c)
			head := c.name
			if c.arg != "" {
				head += " [" + c.arg + "]"
			}
			fmt.Fprintf(&out, "# %s\n", head)
			for _, l := range strings.SplitAfter(c.in, "\n") {
				if l != "" {
					fmt.Fprintf(&out, "> %q\n", l)
				}
			}
			for _, l := range got {
				fmt.Fprintf(&out, "= %s\n", l)
			}
			out.WriteString("\n")
			if g, w := strings.Join(got, "\n"), strings.Join(c.want, "\n"); g != w && !*update {
				t.Errorf("sent %q\ngot:\n%s\nwant:\n%s", c.in, g, w)
			}
		})
	}
	if *update {
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// corpusConfig has limits that a case can exceed.
var corpusConfig = Config{MaxHeaderBytes: 4 << 10, MaxFields: 8, MaxTargetBytes: 256}

func describe(fields message.Fields) string {
	var b strings.Builder
	for _, f := range fields {
		fmt.Fprintf(&b, " %s=%q", f.Name, f.Value)
	}
	return b.String()
}

// serveBytes gives in to a server connection, and tells what its handler saw and
// what came back.
func serveBytes(cfg Config, in string) (events []string) {
	near, far := newPipe()
	cfg.Rejected = func(r message.Rejection) {
		events = append(events, strings.TrimSpace(fmt.Sprintf("rejected %d %s (%s)", r.Status, r.Reason, r.Limit)))
	}
	h := message.HandlerFunc(func(_ context.Context, req *message.Request, w message.Responder) {
		e := fmt.Sprintf("%s %s://%s%s %s", req.Method, req.Scheme, req.Authority, req.Path, req.Version)
		if req.Protocol != "" {
			e += " upgrade=" + req.Protocol
		}
		if req.Continue {
			e += " continue"
		}
		e += describe(req.Fields)
		if req.Body != nil && !req.Tunnel() {
			b, err := io.ReadAll(req.Body)
			e += fmt.Sprintf(" body(%d)=%q", req.ContentLength, b)
			if err != nil {
				events = append(events, e+" error: "+err.Error())
				return
			}
			if t := req.Body.Trailers(); len(t) > 0 {
				e += " trailers" + describe(t)
			}
		}
		events = append(events, e)
		_ = w.Respond(&message.Response{Status: 200})
		_ = w.End(nil)
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = NewServerConn(far, cfg, h).Run(context.Background())
	}()
	go func() {
		_, _ = near.Write([]byte(in))
		_ = near.CloseWrite()
	}()
	answer, _ := io.ReadAll(near)
	<-done
	_ = near.Close()
	r := bufio.NewReader(strings.NewReader(string(answer)))
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return events
		}
		if strings.HasPrefix(line, "HTTP/1.1 ") {
			events = append(events, "answer "+line[9:12])
		}
		if strings.HasPrefix(line, "connection: close") {
			events = append(events, "close")
		}
	}
}

// TestRequests sends what is in the corpus, each over a connection of its own.
func TestRequests(t *testing.T) {
	for _, f := range []string{"requests", "smuggling", "chunked"} {
		t.Run(f, func(t *testing.T) {
			checkCorpus(t, "testdata/"+f+".txt", func(_ *testing.T, c *goldenCase) []string { return serveBytes(corpusConfig, c.in) })
		})
	}
}

// answerBytes has a client send a request that is answered with in.
func answerBytes(cfg Config, method, in string) (events []string) {
	near, far := newPipe()
	go func() {
		b := make([]byte, 4<<10)
		_, _ = far.Read(b)
		_, _ = far.Write([]byte(in))
		_ = far.CloseWrite()
	}()
	c := NewClientConn(near, cfg)
	defer func() { _ = far.Close() }()
	defer func() { _ = c.Close() }()
	req := &message.Request{Method: method, Authority: "h", Path: "/"}
	switch method {
	case "CONNECT":
		req.Authority = "h:1"
	case "UPGRADE":
		req.Method, req.Protocol = "GET", "websocket"
		req.Fields.Add("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
	}
	resp, err := c.RoundTrip(context.Background(), req, func(status int, f message.Fields) {
		events = append(events, fmt.Sprintf("interim %d%s", status, describe(f)))
	})
	if err != nil {
		return append(events, failure(err))
	}
	e := fmt.Sprintf("%d %s length=%d%s", resp.Status, resp.Version, resp.ContentLength, describe(resp.Fields))
	if resp.Protocol != "" {
		e += " upgrade=" + resp.Protocol
	}
	if resp.Body != nil {
		b, err := io.ReadAll(resp.Body)
		e += fmt.Sprintf(" body=%q", b)
		if err != nil {
			return append(events, e, failure(err))
		}
		if t := resp.Body.Trailers(); len(t) > 0 {
			e += " trailers" + describe(t)
		}
	}
	events = append(events, e)
	if c.Idle() {
		events = append(events, "idle")
	}
	return events
}

func failure(err error) string {
	var e *message.ExchangeError
	if !errors.As(err, &e) {
		return "not an ExchangeError: " + err.Error()
	}
	s := e.Error()
	if errors.Is(err, message.ErrProtocol) {
		s += " (protocol)"
	}
	return s
}

// TestResponses answers a request with what is in the corpus.
func TestResponses(t *testing.T) {
	checkCorpus(t, "testdata/responses.txt", func(_ *testing.T, c *goldenCase) []string {
		method := c.arg
		if method == "" {
			method = "GET"
		}
		return answerBytes(corpusConfig, method, c.in)
	})
}
