package admission

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/netutil"
)

// maxConnections is more than API servers have, which keep theirs.
const maxConnections = 256

// Server answers API servers over TLS.
type Server struct {
	listener net.Listener
	// after is closed when there is a mesh to judge by.
	after <-chan struct{}
	http  *http.Server
}

// Listen takes the port. Clients are served once after is closed.
func Listen(address string, t *tls.Config, h http.Handler, after <-chan struct{}, log *zap.Logger) (*Server, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("admission: listen on %s: %w", address, err)
	}
	t = t.Clone()
	t.NextProtos = []string{"h2", "http/1.1"}
	errorLog, err := zap.NewStdLogAt(log, zap.DebugLevel)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("admission: %w", err), l.Close())
	}
	return &Server{
		listener: netutil.LimitListener(l, maxConnections), after: after,
		http: &http.Server{
			Handler: h, TLSConfig: t, ErrorLog: errorLog,
			ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 15 * time.Second, IdleTimeout: 2 * time.Minute,
			MaxHeaderBytes: 16 << 10,
		},
	}, nil
}

// Addr is where API servers are answered.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Run serves until ctx ends, and lets reviews under way end.
func (s *Server) Run(ctx context.Context) error {
	select {
	case <-s.after:
	case <-ctx.Done():
		return s.listener.Close()
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if s.http.Shutdown(bounded) != nil {
			_ = s.http.Close()
		}
	})
	err := s.http.ServeTLS(s.listener, "", "")
	if stop() {
		_ = s.http.Close()
	} else {
		<-stopped
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.listener.Addr(), err)
	}
	return nil
}
