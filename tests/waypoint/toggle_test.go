package waypoint_test

import (
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// testService is what the echo pods say that they serve, beside the whole server.
const testService = "grpc.testing.TestService"

// toggles are what a pod can be told to be: /serving?is=false of grpc.health.v1, on
// the port of HTTP too, and /listen?on=true of a second port of HTTP, 9191.
type toggles struct {
	health *health.Server
	rpc    *grpc.Server // serves health alone, by HTTP

	mu   sync.Mutex
	more net.Listener // guarded by mu
}

func newToggles() *toggles {
	t := &toggles{health: health.NewServer(), rpc: grpc.NewServer()}
	t.health.SetServingStatus(testService, healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(t.rpc, t.health)
	return t
}

// serve reports whether the request was for one of them.
func (t *toggles) serve(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
	switch {
	case strings.HasPrefix(r.URL.Path, "/grpc.health.v1.Health/"):
		t.rpc.ServeHTTP(w, r)
	case r.URL.Path == "/serving":
		is := healthpb.HealthCheckResponse_NOT_SERVING
		if r.URL.Query().Get("is") == "true" {
			is = healthpb.HealthCheckResponse_SERVING
		}
		t.health.SetServingStatus(testService, is)
	case r.URL.Path == "/listen":
		if err := t.listen(r.URL.Query().Get("on") == "true", h); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	default:
		return false
	}
	return true
}

func (t *toggles) listen(on bool, h http.Handler) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.more != nil && !on {
		err := t.more.Close()
		t.more = nil
		return err
	}
	if t.more != nil || !on {
		return nil
	}
	l, err := net.Listen("tcp", ":9191")
	if err != nil {
		return err
	}
	t.more = l
	s := &http.Server{Handler: h}
	s.SetKeepAlivesEnabled(false) // a connection that is there would outlive the listener
	go func() { _ = s.Serve(l) }()
	return nil
}

// keyServer has a JWK set at /keys, and is told which at /set?keys=...; at /count it
// says how often it was asked for them.
type keyServer struct {
	mu    sync.Mutex
	keys  string // guarded by mu
	count int    // guarded by mu
}

// ServeHTTP implements http.Handler.
func (k *keyServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch r.URL.Path {
	case "/set":
		k.keys, k.count = r.URL.Query().Get("keys"), 0
	case "/count":
		_ = json.NewEncoder(w).Encode(seen{Count: k.count})
	case "/keys":
		k.count++
		w.Header().Set("content-type", "application/jwk-set+json")
		_, _ = w.Write([]byte(k.keys))
	default:
		http.NotFound(w, r)
	}
}

// setKeys is the query of a set.
func setKeys(keys string) string { return "/set?keys=" + url.QueryEscape(keys) }

// full listens on a port and takes no connections: its queue is full, so that
// whoever connects waits.
func full(port int) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: port}); err != nil {
		return err
	}
	if err := syscall.Listen(fd, 0); err != nil {
		return err
	}
	for range 4 {
		self := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
		c, err := net.DialTimeout("tcp", self.String(), 300*time.Millisecond)
		if err != nil {
			return nil // it is full
		}
		keep(c)
	}
	return nil
}

var kept struct {
	sync.Mutex
	conns []net.Conn
}

// keep holds a connection as long as the process lives.
func keep(c net.Conn) {
	kept.Lock()
	defer kept.Unlock()
	kept.conns = append(kept.conns, c)
}
