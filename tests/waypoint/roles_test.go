package waypoint_test

import (
	"bytes"
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
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"github.com/ambit-mesh/ambit/internal/testkit/sniff"
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
---
apiVersion: v1
kind: Namespace
metadata: {name: outside}
`)
	deploy(&b, self, 1, "outside", "host", "host", "v1", "host", "outside")
	deploy(&b, self, 1, "app", "client", "client", "v1", "client", "idle")
	deploy(&b, self, 1, "app", "tester", "tester", "v1", "tester", "idle")
	deploy(&b, self, 1, "other", "client", "client", "v1", "client", "idle")
	deploy(&b, self, 1, "app", "echo-v1", "echo", "v1", "echo-v1", "echo")
	deploy(&b, self, 1, "app", "echo-v2", "echo", "v2", "echo-v2", "echo")
	deploy(&b, self, 3, "app", "many", "many", "v1", "many", "echo")
	deploy(&b, self, 1, "app", "helper", "helper", "v1", "helper", "helper")
	return b.String(), nil
}

// deploy writes a Deployment whose pods play a role.
func deploy(b *strings.Builder, self string, replicas int, namespace, name, app, version, account, role string) {
	fmt.Fprintf(b, `
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: %[5]s, namespace: %[1]s}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  replicas: %[9]d
  selector: {matchLabels: {app: %[3]s, version: %[4]s}}
  template:
    metadata: {labels: {app: %[3]s, version: %[4]s}}
    spec:
      serviceAccountName: %[5]s
      containers:
      - name: main
        command: [%[6]s, %[7]s]
        env: [{name: %[8]s, value: "1"}, {name: VERSION, value: %[4]s}]
`, namespace, name, app, version, account, self, role, roleEnv, replicas)
}

// pods is a Service with an echo pod of its own, for policies about pods.
func pods(name string) string {
	self, _ := os.Executable()
	var b strings.Builder
	deploy(&b, self, 1, "app", name, name, "v1", name, "echo")
	return b.String() + strings.ReplaceAll(service(name, ""), "app: echo", "app: "+name)
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
	case "helper":
		err = helper()
	case "outside":
		err = outside()
	case "nameserver":
		err = nameserver(args[1])
	case "sniff":
		err = sniff.Run(sniff.Config{Interface: "eth0", Needles: strings.Split(args[1], "|"), MeshPort: 15008}, os.Stdin, os.Stdout)
	case "block-quic":
		err = blockQUIC()
	case "client":
		err = client(os.Stdin, os.Stdout)
	case "hold":
		err = holdConns(os.Stdin, os.Stdout)
	case "websocket":
		err = webSocketClient(args[1], args[2] == "true")
	case "converse":
		err = converseAll(os.Stdin, os.Stdout)
	case "acknowledged":
		err = acknowledged(os.Stdin, os.Stdout)
	case "drained":
		err = drained(os.Stdin, os.Stdout)
	case "speak":
		err = speak(os.Stdin, os.Stdout)
	case "signal":
		err = signalled(args[1], args[2])
	case "get":
		if r := once(transport(false), request{URL: args[1]}); r.Status != 200 {
			err = fmt.Errorf("%d %s", r.Status, r.Error)
		}
	case "interop":
		err = interopClient(args[1], args[2:])
	case "load":
		err = load(os.Stdin, os.Stdout)
	case "certificate":
		err = certificateOf(args[1])
	case "datagrams":
		err = datagramClient()
	case "datagrams-lasting":
		err = lastingSession(os.Stdin, os.Stdout)
	case "datagrams-resting":
		err = restingSession(os.Stdin, os.Stdout)
	case "bounds":
		err = beyondBounds(os.Stdin, os.Stdout)
	case "datagrams-held":
		err = holdSession(args[1])
	case "linger":
		err = linger(args[1], args[2])
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
	Pod     string      `json:"pod"` // its address
	Proto   string      `json:"proto"`
	Method  string      `json:"method"`
	Host    string      `json:"host"`
	Path    string      `json:"path"`
	Header  http.Header `json:"header"`
	Remote  string      `json:"remote"`
	Size    int64       `json:"size"`
	Sum     string      `json:"sum"`
	Count   int         `json:"count"` // of requests with the same key
	SNI     string      `json:"sni"`   // the server name of TLS
}

// echo serves HTTP on 8080, gRPC on 7070, a protocol in which the server speaks
// first on 9090, TLS on 8443, and datagrams on 8053.
func echo() error {
	e := &echoServer{toggles: newToggles(), counts: make(map[string]int), gates: make(map[string]chan struct{}), version: os.Getenv("VERSION")}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	errs := make(chan error, 5)
	go func() { errs <- echoDatagrams(e.version) }()
	go func() { errs <- (&http.Server{Addr: ":8080", Handler: e, Protocols: protocols}).ListenAndServe() }()
	go func() {
		l, err := net.Listen("tcp", ":7070")
		if err != nil {
			errs <- err
			return
		}
		s := grpc.NewServer()
		testgrpc.RegisterTestServiceServer(s, interop.NewTestServer())
		healthpb.RegisterHealthServer(s, e.toggles.health)
		errs <- s.Serve(l)
	}()
	go func() { errs <- e.speakFirst(":9090") }()
	go func() { errs <- e.serveTLS(":8443") }()
	return <-errs
}

type echoServer struct {
	version string
	toggles *toggles
	mu      sync.Mutex
	counts  map[string]int           // guarded by mu
	gates   map[string]chan struct{} // of requests that stall; guarded by mu
	ill     atomic.Int32             // the status of all answers; 0 when well
	total   atomic.Int64             // requests, but for those to /total
}

func (e *echoServer) count(key string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.counts[key]++
	return e.counts[key]
}

// gate is closed once requests that stall with the key go on.
func (e *echoServer) gate(key string) <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.gateOf(key)
}

// open lets requests go on that stall with the key.
func (e *echoServer) open(key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-e.gateOf(key):
	default:
		close(e.gateOf(key))
	}
}

// gateOf needs mu.
func (e *echoServer) gateOf(key string) chan struct{} {
	if e.gates[key] == nil {
		e.gates[key] = make(chan struct{})
	}
	return e.gates[key]
}

// ServeHTTP answers with what it has seen. The query asks for other answers:
// status, delay (ms), size (bytes), fail=n (503 for the first n with that key),
// reset=n (the connection is broken off), slow=n (only the first n are delayed),
// pause (ms, between the pieces of size), trailer, stall=key (the body of the
// request is read only after a request for /go?key=key). gRPC is answered with a status
// only, UNAVAILABLE for a failure. On /ill?status=n this server
// answers everything with n until it is told another.
func (e *echoServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	num := func(name string) int { n, _ := strconv.Atoi(q.Get(name)); return n }
	if e.toggles.serve(w, r, e) {
		return
	}
	if r.URL.Path == "/websocket" {
		e.webSocket(w, r)
		return
	}
	if r.Method == http.MethodConnect {
		e.tunnel(w, r)
		return
	}
	if strings.HasPrefix(r.URL.Path, "/upgrade") {
		e.upgrade(w, r)
		return
	}
	pod := r.Context().Value(http.LocalAddrContextKey).(net.Addr).(*net.TCPAddr).IP.String()
	w.Header().Set("x-version", e.version)
	w.Header().Set("x-pod", pod)
	if r.URL.Path == "/total" {
		_ = json.NewEncoder(w).Encode(seen{Count: int(e.total.Load())})
		return
	}
	if r.URL.Path == "/go" {
		e.open(q.Get("key"))
		return
	}
	e.total.Add(1)
	if r.URL.Path == "/ill" {
		e.ill.Store(int32(num("status")))
		return
	}
	if n := e.ill.Load(); n != 0 {
		if r.Header.Get("content-type") == "application/grpc" {
			w.Header().Set("content-type", "application/grpc")
			w.Header().Set("trailer", "grpc-status")
			_, _ = w.Write(make([]byte, 5))
			w.Header().Set("grpc-status", "14")
			return
		}
		w.WriteHeader(int(n))
		return
	}
	count := 0
	if key := q.Get("key"); key != "" {
		count = e.count(key)
	}
	if key := q.Get("stall"); key != "" {
		<-e.gate(key)
	}
	sum := sha256.New()
	size, err := io.Copy(sum, r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if slow := num("slow"); slow == 0 || count <= slow {
		select {
		case <-time.After(time.Duration(num("delay")) * time.Millisecond):
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	if count > 0 && count <= num("reset") {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("content-type", "application/json")
	status := max(num("status"), 200)
	if count > 0 && count <= num("fail") {
		status = 503
	}
	if r.Header.Get("content-type") == "application/grpc" {
		w.Header().Set("content-type", "application/grpc")
		w.Header().Set("grpc-status", map[bool]string{true: "14", false: "0"}[status == 503])
		return
	}
	if q.Has("trailer") {
		w.Header().Set("trailer", "x-trailer")
		defer w.Header().Set("x-trailer", q.Get("trailer"))
	}
	if n := num("random"); n > 0 {
		w.Header().Set("trailer", "x-sum")
		_, _ = io.Copy(io.MultiWriter(w, sum), io.LimitReader(random(), int64(n)))
		w.Header().Set("x-sum", hex.EncodeToString(sum.Sum(nil)))
		return
	}
	w.WriteHeader(status)
	if n := num("size"); n > 0 {
		piece := bytes.Repeat([]byte("0123456789abcdef"), 4096)
		for left := n; left > 0; left -= len(piece) {
			_, _ = w.Write(piece[:min(left, len(piece))])
			if ms := num("pause"); ms > 0 {
				_ = http.NewResponseController(w).Flush()
				<-time.After(time.Duration(ms) * time.Millisecond)
			}
		}
		return
	}
	name := ""
	if r.TLS != nil {
		name = r.TLS.ServerName
	}
	_ = json.NewEncoder(w).Encode(seen{
		Version: e.version, Pod: pod, SNI: name, Proto: r.Proto, Method: r.Method, Host: r.Host, Path: r.URL.RequestURI(), Header: r.Header, Remote: r.RemoteAddr,
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

// tunnel answers CONNECT with what it was asked for, and echoes. To port 1 it does
// not connect.
func (e *echoServer) tunnel(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.Host, ":1") {
		http.Error(w, "not there", http.StatusForbidden)
		return
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	fmt.Fprintf(rw, "HTTP/1.1 200 Connected\r\n\r\ntunnel to %s\n", r.Host)
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

// signalled sends a signal to a process of the sandbox.
func signalled(pid, number string) error {
	p, err := strconv.Atoi(pid)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	if err := syscall.Kill(p, syscall.Signal(n)); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(response{Status: 200})
}
