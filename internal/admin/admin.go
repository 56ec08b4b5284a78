package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/lifecycle"
)

// NewMux gives the handlers that every component's admin port has: /logging and
// /debug/pprof/. The component adds its own, such as /config_dump.
func NewMux(level zap.AtomicLevel) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /logging", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "level:", level)
	})
	initial := level.Level()
	mux.HandleFunc("POST /logging", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Has("reset") {
			level.SetLevel(initial)
		} else if err := level.UnmarshalText([]byte(q.Get("level"))); err != nil {
			http.Error(w, "level: want debug, info, warn or error; or ?reset", http.StatusBadRequest)
			return
		}
		fmt.Fprintln(w, "level:", level)
	})
	return mux
}

// MetricsHandler serves the registry under /metrics and /stats/prometheus.
func MetricsHandler(g prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	h := promhttp.HandlerFor(g, promhttp.HandlerOpts{EnableOpenMetrics: true})
	mux.Handle("/metrics", h)
	mux.Handle("/stats/prometheus", h)
	return mux
}

// ReadyHandler answers /healthz/ready with 200, or with 503 and the names of
// what is pending.
func ReadyHandler(r *lifecycle.Readiness) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz/ready", func(w http.ResponseWriter, _ *http.Request) {
		if pending := r.Pending(); len(pending) > 0 {
			http.Error(w, "pending: "+strings.Join(pending, ", "), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, strings.Join(append([]string{"ready"}, r.Notes()...), "\n"))
	})
	return mux
}

// WriteJSON answers with v, indented.
func WriteJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	// The client went away: nobody is left to tell.
	_ = enc.Encode(v)
}

// Server serves one handler on one address.
type Server struct {
	listener net.Listener
	handler  http.Handler
}

// Listen opens the address at once, so that a port that is taken is an error at
// start and not later. With loopbackOnly any other address is refused.
func Listen(address string, loopbackOnly bool, h http.Handler) (*Server, error) {
	if loopbackOnly {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("admin address %q: %w", address, err)
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return nil, fmt.Errorf("admin address %q: must be on loopback, for example 127.0.0.1:15000", address)
		}
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return &Server{listener: l, handler: h}, nil
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	srv := &http.Server{Handler: s.handler, Protocols: new(http.Protocols), ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true) // for what is asked over gRPC
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err := srv.Shutdown(grace)
		if err != nil {
			err = srv.Close()
		}
		stopped <- err
	})
	defer stop()
	if err := srv.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}
