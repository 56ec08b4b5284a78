package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/unixsock"
)

// Handler decides about pods.
type Handler interface {
	// Add returns nil when the pod may start.
	Add(ctx context.Context, a *Add) error
	// Del forgets a pod; one that is not known is no error.
	Del(ctx context.Context, d *Del) error
	// Check returns nil if the pod is as it should be.
	Check(uid string) error
	// Uninstall takes everything off the node that the agent put there, and
	// returns when that is done. Pods start untouched from then on.
	Uninstall(ctx context.Context) error
}

// Config configures a Server.
type Config struct {
	// Path of the socket.
	Path    string
	Handler Handler
	// Timeout bounds the answer to an addition.
	Timeout    time.Duration
	Logger     *zap.Logger
	Registerer prometheus.Registerer
}

// Server serves the plugin.
type Server struct {
	cfg      Config
	requests *prometheus.CounterVec
}

// New registers the server's metrics; Run listens.
func New(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, requests: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ambit_cni_requests_total",
		Help: "Requests of the CNI plugin, by command (add, del, check, status, uninstall) and result (ok, refused, failed).",
	}, []string{"command", "result"})}
	if err := cfg.Registerer.Register(s.requests); err != nil {
		return nil, fmt.Errorf("cni server: %w", err)
	}
	return s, nil
}

// Run serves until ctx ends. Additions that wait are then refused.
func (s *Server) Run(ctx context.Context) error {
	l, err := unixsock.Listen("unix", s.cfg.Path)
	if err != nil {
		return fmt.Errorf("cni %w", err)
	}
	defer l.Release()
	srv := &http.Server{
		Handler:           s.mux(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          zap.NewStdLog(s.cfg.Logger),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		err := srv.Shutdown(grace)
		if err != nil {
			err = srv.Close()
		}
		stopped <- err
	})
	defer stop()
	if err := srv.Serve(l.UnixListener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("cni socket: %w", err)
	}
	return <-stopped
}

func (s *Server) mux() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cmdadd", s.command("add", s.add))
	mux.HandleFunc("POST /cmddel", s.command("del", s.del))
	mux.HandleFunc("POST /cmdcheck", s.command("check", s.check))
	mux.HandleFunc("POST /status", s.command("status", func(context.Context, *http.Request) error { return nil }))
	mux.HandleFunc("POST /uninstall", s.command("uninstall", func(ctx context.Context, _ *http.Request) error {
		return s.cfg.Handler.Uninstall(ctx)
	}))
	return mux
}

func (s *Server) add(ctx context.Context, r *http.Request) error {
	a, err := decodeAdd(r.Body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	return s.cfg.Handler.Add(ctx, a)
}

func (s *Server) del(ctx context.Context, r *http.Request) error {
	d, err := decodeDel(r.Body)
	if err != nil {
		return err
	}
	return s.cfg.Handler.Del(ctx, d)
}

func (s *Server) check(_ context.Context, r *http.Request) error {
	d, err := decodeDel(r.Body)
	if err != nil {
		return err
	}
	return s.cfg.Handler.Check(d.PodUID)
}

// command answers with JSON whatever f says.
func (s *Server) command(name string, f func(context.Context, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		err := f(r.Context(), r)
		status, result := http.StatusOK, "ok"
		var answer struct {
			Error string `json:"error,omitempty"`
		}
		if err != nil {
			answer.Error = err.Error()
			status, result = http.StatusServiceUnavailable, "failed"
			if _, ok := errors.AsType[badRequest](err); ok {
				status, result = http.StatusBadRequest, "refused"
			}
			s.cfg.Logger.Warn("CNI request failed", zap.String("command", name), zap.Error(err))
		}
		s.requests.WithLabelValues(name, result).Inc()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		// The plugin went away: nobody is left to tell.
		_ = json.NewEncoder(w).Encode(answer)
	}
}

// Refuse marks an error of a Handler as one of the request, which trying again
// will not mend.
func Refuse(err error) error { return badRequest{err} }
