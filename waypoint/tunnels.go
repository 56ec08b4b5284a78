package waypoint

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/waypoint/internal/proxy"
)

const (
	// certTimeout bounds how long a handshake waits for the certificate.
	certTimeout = 5 * time.Second
	// acceptPause is how long accepting rests after it has failed for want of
	// resources.
	acceptPause = 50 * time.Millisecond
)

// tunnels takes the tunnel connections of clients.
type tunnels struct {
	listener net.Listener
	// certificate of the waypoint.
	certificate  func(context.Context) (*identity.Certificate, error)
	cfg          hbone.Config
	proxy        *proxy.Proxy
	delay, drain time.Duration
	log          *zap.Logger
	quic         *hbone3.Server // nil for none

	handshakes chan struct{}
	wg         sync.WaitGroup
	work       context.Context // ends when what is under way is broken off; set by Run

	mu       sync.Mutex
	conns    map[*hbone.ServerConn]struct{} // guarded by mu
	draining bool                           // guarded by mu
	over     bool                           // no streams over QUIC any more; guarded by mu
}

// Run takes connections until ctx ends, and for a delay after that; then no more, and
// lets the requests that are under way go on for the drain time.
func (t *tunnels) Run(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	t.work = work
	defer t.runQUIC(ctx)()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(t.delay, func() { _ = t.listener.Close() }) })
	defer stop()
	for {
		c, err := t.listener.Accept()
		if err == nil {
			t.wg.Go(func() { t.serve(work, c) })
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			break
		}
		t.log.Warn("accept", zap.Error(err))
		<-time.After(acceptPause)
	}
	t.leave(cancel)
	return nil
}

// leave asks clients to go elsewhere, and waits until they have, or the time is
// up.
func (t *tunnels) leave(cancel context.CancelFunc) {
	t.mu.Lock()
	t.draining = true
	for c := range t.conns {
		c.Drain()
	}
	t.mu.Unlock()
	t.proxy.Drain()
	idle, broken := context.WithCancel(context.Background())
	defer broken()
	if t.quic != nil {
		t.wg.Go(func() { t.quic.Leave(idle) })
	}
	done := make(chan struct{})
	go func() {
		t.wg.Wait()
		close(done)
	}()
	var late <-chan time.Time
	if t.drain >= 0 {
		timer := time.NewTimer(t.drain)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-done:
	case <-late:
		t.log.Warn("drain time is over; requests under way are broken off", zap.Int64("requests", t.proxy.Active()))
	}
	t.mu.Lock()
	t.over = true
	t.mu.Unlock()
	cancel()
	broken()
	<-done
}

func (t *tunnels) serve(ctx context.Context, sock net.Conn) {
	select {
	case t.handshakes <- struct{}{}:
	default:
		t.proxy.TunnelRefused("handshakes")
		t.log.Warn("too many handshakes at a time; connection dropped", zap.Stringer("from", sock.RemoteAddr()))
		_ = sock.Close()
		return
	}
	sc, err := hbone.NewServerConn(ctx, sock, t.serverTLS(ctx), t.cfg, t.proxy.ServeStream)
	<-t.handshakes
	if err != nil {
		t.log.Warn("tunnel refused", zap.Stringer("from", sock.RemoteAddr()), zap.Error(err))
		return
	}
	t.mu.Lock()
	t.conns[sc] = struct{}{}
	if t.draining {
		sc.Drain()
	}
	t.mu.Unlock()
	if err := sc.Run(ctx); err != nil && !errors.Is(err, hbone.ErrClosed) {
		t.log.Debug("tunnel connection ended", zap.Stringer("from", sock.RemoteAddr()), zap.Error(err))
	}
	t.mu.Lock()
	delete(t.conns, sc)
	t.mu.Unlock()
}

func (t *tunnels) serverTLS(ctx context.Context) *tls.Config {
	return identity.ServerConfig(func() (*identity.Certificate, error) {
		ctx, cancel := context.WithTimeout(ctx, certTimeout)
		defer cancel()
		return t.certificate(ctx)
	})
}
