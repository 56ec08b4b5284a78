package waypoint

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"net"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/segment"
)

// listenQUIC has t take tunnels over QUIC, at the address where it takes those over
// TCP, with the same certificate and of the same peers.
func (t *tunnels) listenQUIC(podUID string, cfg hbone3.Config) error {
	at, ok := t.listener.Addr().(*net.TCPAddr)
	if !ok {
		return fmt.Errorf("waypoint: HBONE address %s: want one of TCP", t.listener.Addr())
	}
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: at.IP, Port: at.Port, Zone: at.Zone})
	if err != nil {
		return fmt.Errorf("waypoint: HBONE address over QUIC: %w", err)
	}
	sock, err := segment.New(c)
	if err != nil {
		_ = c.Close()
		return fmt.Errorf("waypoint: HBONE address over QUIC: %w", err)
	}
	cfg.ResetKey = resetKey(podUID)
	cfg.MaxHandshakes = cap(t.handshakes)
	cfg.OnTurned = t.proxy.TurnedAway
	cfg.OnFailed = func(from net.Addr, err error) {
		t.log.Warn("tunnel refused", zap.Stringer("from", from), zap.String("tunnel", "h3"), zap.Error(err))
	}
	cfg.OnDropped = t.proxy.QueueFull
	server := identity.QUICServerConfig(func() (*identity.Certificate, error) {
		ctx, cancel := context.WithTimeout(context.Background(), certTimeout)
		defer cancel()
		return t.certificate(ctx)
	})
	t.quic, err = hbone3.NewServer(sock, server, cfg, func(_ context.Context, in *hbone3.Incoming) {
		if !t.enter() {
			return
		}
		defer t.wg.Done()
		// Not the context of the stream: that of a client who is gone says nothing, and
		// that of a waypoint that stops has to.
		t.proxy.ServeDatagrams(t.work, in)
	})
	if err != nil {
		return fmt.Errorf("waypoint: HBONE address over QUIC: %w", err)
	}
	return nil
}

// enter counts a stream over QUIC in, unless the time for them is over.
func (t *tunnels) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return false
	}
	t.wg.Add(1)
	return true
}

// resetKey is what resets of connections are made from that a former process of the
// pod had (RFC 9000, section 10.3), nil if that cannot be known. Who sees the packets
// of a connection and knows the pod can make them too, and ends it: no more than who
// sees those of a TCP connection.
func resetKey(podUID string) *quic.StatelessResetKey {
	if podUID == "" {
		return nil
	}
	m := hmac.New(sha256.New, []byte("ambit waypoint: stateless reset"))
	_, _ = m.Write([]byte(podUID)) // never fails
	return (*quic.StatelessResetKey)(m.Sum(nil))
}

// runQUIC serves tunnels over QUIC until it is told to stop, when nobody needs them any
// more.
func (t *tunnels) runQUIC(ctx context.Context) (stop func()) {
	if t.quic == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := t.quic.Run(ctx); err != nil {
			t.log.Warn("QUIC", zap.Error(err))
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}
