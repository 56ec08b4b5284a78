package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/quic-go/quic-go"

	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/segment"
	"github.com/ambit-mesh/ambit/internal/tunnel"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// wantsQUIC says whether sessions with a workload go over HTTP/3.
func (d *Dialer) wantsQUIC(w *wds.Workload) bool {
	if d.Reach == nil || d.Self == nil {
		return false
	}
	self := d.Self()
	return self != nil && d.Reach.Wants(self, w, true)
}

// dialQUIC is dialTunnel over QUIC.
func (d *Dialer) dialQUIC(ctx context.Context, key tunnel.Key) (*hbone3.ClientConn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	tlsConfig, err := key.TLS(ctx, d.Certificate, tunnel.H3)
	if err != nil {
		return nil, err
	}
	tr, err := d.socket()
	if err != nil {
		return nil, err
	}
	return d.Reach.Dial(ctx, tr, key.Addr, d.Workload(key.Addr.Addr()), tlsConfig, d.HBONE3)
}

// socket gives the one that all tunnels over QUIC share. It is opened for the first.
func (d *Dialer) socket() (*quic.Transport, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.own != nil {
		return d.own, nil
	}
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, fmt.Errorf("a socket for QUIC: %w", err)
	}
	groups, err := segment.New(c)
	if err != nil {
		return nil, fmt.Errorf("a socket for QUIC: %w", errors.Join(err, c.Close()))
	}
	d.own = &quic.Transport{Conn: groups}
	return d.own, nil
}

// closeQUIC ends the tunnels over QUIC, giving their streams until ctx ends.
func (d *Dialer) closeQUIC(ctx context.Context) {
	d.pool3.Drain(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.own != nil {
		_ = d.own.Close()
		_ = d.own.Conn.Close()
	}
}
