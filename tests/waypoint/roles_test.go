package waypoint_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// manifests are the pods that all tests share.
func manifests() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(`apiVersion: v1
kind: Namespace
metadata:
  name: app
  labels: {ambit-mesh.io/dataplane-mode: ambient, ambit-mesh.io/use-waypoint: wp}
---
apiVersion: v1
kind: Namespace
metadata:
  name: other
  labels: {ambit-mesh.io/dataplane-mode: ambient}
`)
	pod := func(namespace, name, app, version, account, role string) {
		fmt.Fprintf(&b, `---
apiVersion: v1
kind: ServiceAccount
metadata: {name: %[5]s, namespace: %[1]s}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  replicas: 1
  selector: {matchLabels: {app: %[3]s, version: %[4]s}}
  template:
    metadata: {labels: {app: %[3]s, version: %[4]s}}
    spec:
      serviceAccountName: %[5]s
      containers:
      - name: main
        command: [%[6]s, %[7]s]
        env: [{name: %[8]s, value: "1"}, {name: VERSION, value: %[4]s}]
`, namespace, name, app, version, account, self, role, roleEnv)
	}
	pod("app", "client", "client", "v1", "client", "idle")
	pod("app", "tester", "tester", "v1", "tester", "idle")
	pod("other", "client", "client", "v1", "client", "idle")
	pod("app", "echo-v1", "echo", "v1", "echo-v1", "echo")
	pod("app", "echo-v2", "echo", "v2", "echo-v2", "echo")
	return b.String(), nil
}

// role is what the test binary does in a pod.
func role(args []string) int {
	var err error
	switch args[0] {
	case "idle":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		<-c
	case "echo":
		err = echo()
	case "client":
		err = client(os.Stdin, os.Stdout)
	case "interop":
		err = interopClient(args[1], args[2:])
	case "load":
		err = load(os.Stdin, os.Stdout)
	case "tcp":
		err = tcpClient(args[1], args[2])
	default:
		err = fmt.Errorf("role %q", args[0])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// seen is what the echo server says of a request.
type seen struct {
	Version string      `json:"version"`
	Proto   string      `json:"proto"`
	Method  string      `json:"method"`
	Host    string      `json:"host"`
	Path    string      `json:"path"`
	Header  http.Header `json:"header"`
	Remote  string      `json:"remote"`
	Size    int64       `json:"size"`
	Sum     string      `json:"sum"`
	Count   int         `json:"count"` // of requests with the same key
}

// echo serves HTTP on 8080, gRPC on 7070, a protocol in which the server speaks
// first on 9090, and TLS on 8443.
func echo() error {
	e := &echoServer{counts: make(map[string]int), version: os.Getenv("VERSION")}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	errs := make(chan error, 4)
	go func() { errs <- (&http.Server{Addr: ":8080", Handler: e, Protocols: protocols}).ListenAndServe() }()
	go func() {
		l, err := net.Listen("tcp", ":7070")
		if err != nil {
			errs <- err
			return
		}
		s := grpc.NewServer()
		testgrpc.RegisterTestServiceServer(s, interop.NewTestServer())
		errs <- s.Serve(l)
	}()
	go func() { errs <- e.speakFirst(":9090") }()
	go func() { errs <- e.serveTLS(":8443") }()
	return <-errs
}

type echoServer struct {
	version string
	mu      sync.Mutex
	counts  map[string]int // guarded by mu
}

func (e *echoServer) count(key string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.counts[key]++
	return e.counts[key]
}

// ServeHTTP answers with what it has seen. The query asks for other answers:
// status, delay (ms), size (bytes), fail=n (503 for the first n with that key),
// reset=n (the connection is broken off), trailer.
func (e *echoServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	num := func(name string) int { n, _ := strconv.Atoi(q.Get(name)); return n }
	if strings.HasPrefix(r.URL.Path, "/upgrade") {
		e.upgrade(w, r)
		return
	}
	count := 0
	if key := q.Get("key"); key != "" {
		count = e.count(key)
	}
	sum := sha256.New()
	size, err := io.Copy(sum, r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	<-time.After(time.Duration(num("delay")) * time.Millisecond)
	if count > 0 && count <= num("reset") {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("x-version", e.version)
	w.Header().Set("content-type", "application/json")
	status := max(num("status"), 200)
	if count > 0 && count <= num("fail") {
		status = 503
	}
	if q.Has("trailer") {
		w.Header().Set("trailer", "x-trailer")
		defer w.Header().Set("x-trailer", q.Get("trailer"))
	}
	w.WriteHeader(status)
	if n := num("size"); n > 0 {
		piece := bytes.Repeat([]byte("0123456789abcdef"), 4096)
		for left := n; left > 0; left -= len(piece) {
			_, _ = w.Write(piece[:min(left, len(piece))])
		}
		return
	}
	_ = json.NewEncoder(w).Encode(seen{
		Version: e.version, Proto: r.Proto, Method: r.Method, Host: r.Host, Path: r.URL.RequestURI(), Header: r.Header, Remote: r.RemoteAddr,
		Size: size, Sum: hex.EncodeToString(sum.Sum(nil)), Count: count,
	})
}

// upgrade speaks the protocol "lines" after an upgrade: it echoes.
func (e *echoServer) upgrade(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("upgrade"), "lines") {
		http.Error(w, "no upgrade", http.StatusBadRequest)
		return
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\n")
	_ = rw.Flush()
	_, _ = io.Copy(c, rw)
}

func (e *echoServer) speakFirst(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			fmt.Fprintf(c, "hello from %s\n", e.version)
			_, _ = io.Copy(c, c)
		}()
	}
}

func (e *echoServer) serveTLS(addr string) error {
	cert, err := selfSigned()
	if err != nil {
		return err
	}
	s := &http.Server{Addr: addr, Handler: e, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}}
	return s.ListenAndServeTLS("", "")
}

// request is what the client sends.
type request struct {
	URL      string            `json:"url"`
	Method   string            `json:"method,omitempty"`
	Host     string            `json:"host,omitempty"`
	Header   map[string]string `json:"header,omitempty"`
	Body     int64             `json:"body,omitempty"` // bytes
	Chunked  bool              `json:"chunked,omitempty"`
	HTTP2    bool              `json:"http2,omitempty"`
	Insecure bool              `json:"insecure,omitempty"`
	Times    int               `json:"times,omitempty"`
	Fresh    bool              `json:"fresh,omitempty"` // a connection of its own
	Upgrade  string            `json:"upgrade,omitempty"`
}

// response is what came back.
type response struct {
	Status  int           `json:"status"`
	Header  http.Header   `json:"header"`
	Trailer http.Header   `json:"trailer"`
	Body    string        `json:"body"` // of at most 4 KiB
	Size    int64         `json:"size"`
	Seen    seen          `json:"seen"`
	Took    time.Duration `json:"took"`
	Error   string        `json:"error"`
	// Of Times requests: how many by version and by status.
	Versions map[string]int `json:"versions"`
	Statuses map[int]int    `json:"statuses"`
}

// client sends requests.
func client(in io.Reader, out io.Writer) error {
	var list []request
	if err := json.NewDecoder(in).Decode(&list); err != nil {
		return err
	}
	one, two := transport(false), transport(true)
	answers := make([]response, len(list))
	for i, r := range list {
		t := one
		if r.HTTP2 {
			t = two
		}
		answers[i] = send(t, r)
	}
	return json.NewEncoder(out).Encode(answers)
}

func transport(h2 bool) *http.Transport {
	p := new(http.Protocols)
	p.SetHTTP1(!h2)
	p.SetUnencryptedHTTP2(h2)
	return &http.Transport{Protocols: p, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableCompression: true} // the test's own certificate
}

func send(t *http.Transport, r request) response {
	if r.Upgrade != "" {
		return sendUpgrade(r)
	}
	out := response{Versions: map[string]int{}, Statuses: map[int]int{}}
	for range max(1, r.Times) {
		once(t, r, &out)
	}
	return out
}

func once(t *http.Transport, r request, out *response) {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	method := r.Method
	if method == "" {
		method = "GET"
	}
	var body io.Reader
	if r.Body > 0 {
		body = io.LimitReader(zeros{}, r.Body)
	}
	req, err := http.NewRequestWithContext(ctx, method, r.URL, body)
	if err != nil {
		out.Error = err.Error()
		return
	}
	if r.Body > 0 && !r.Chunked {
		req.ContentLength = r.Body
	}
	req.Close = r.Fresh
	for k, v := range r.Header {
		req.Header.Set(k, v)
	}
	req.Host = r.Host
	resp, err := t.RoundTrip(req)
	if err != nil {
		out.Error, out.Status = err.Error(), 0
		out.Statuses[0]++
		return
	}
	defer resp.Body.Close()
	var first bytes.Buffer
	n, err := io.Copy(&first, io.LimitReader(resp.Body, 4096))
	if err == nil {
		var m int64
		m, err = io.Copy(io.Discard, resp.Body)
		n += m
	}
	out.Status, out.Header, out.Trailer, out.Size, out.Body, out.Took, out.Error = resp.StatusCode, resp.Header, resp.Trailer, n, first.String(), time.Since(begin), ""
	if err != nil {
		out.Error = err.Error()
	}
	out.Seen = seen{}
	_ = json.Unmarshal(first.Bytes(), &out.Seen)
	out.Statuses[resp.StatusCode]++
	out.Versions[resp.Header.Get("x-version")]++
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// sendUpgrade upgrades a connection and expects what it says to come back.
func sendUpgrade(r request) (out response) {
	host, path, _ := strings.Cut(strings.TrimPrefix(r.URL, "http://"), "/")
	c, err := net.DialTimeout("tcp", host, 10*time.Second)
	if err != nil {
		return response{Error: err.Error()}
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(c, "GET /%s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\nearly ", path, host, r.Upgrade)
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return response{Error: err.Error()}
	}
	out.Status, out.Header = resp.StatusCode, resp.Header
	if resp.StatusCode != 101 {
		return out
	}
	fmt.Fprint(c, "and late")
	if tc, ok := c.(*net.TCPConn); ok {
		_ = tc.CloseWrite()
	}
	text, err := io.ReadAll(br)
	out.Body = string(text)
	if err != nil {
		out.Error = err.Error()
	}
	return out
}

// tcpClient says something after it has been greeted, or before.
func tcpClient(addr, say string) error {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	begin := time.Now()
	br := bufio.NewReader(c)
	greeting, err := br.ReadString('\n')
	if err != nil {
		return err
	}
	took := time.Since(begin)
	fmt.Fprintln(c, say)
	answer, err := br.ReadString('\n')
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(response{Body: greeting + answer, Took: took})
}
