package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/relay"
	"github.com/ambit-mesh/ambit/internal/segment"
	"github.com/ambit-mesh/ambit/internal/tunnel"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// openQUIC opens the pod's socket for tunnels over QUIC, and one to open them. The
// first is not inherited, because each process needs to receive at one of its own; the
// kernel gives what comes to the newest, which hands on what is of others.
func (p *Pod) openQUIC(given *inherited) error {
	sock, err := netns.ListenUDP(p.ns, netip.AddrPortFrom(netip.IPv6Unspecified(), PortHBONE), netns.UDPOptions{Mark: Mark, Shared: true, ReceiveBuffer: quicBuffer})
	if err != nil {
		return fmt.Errorf("pod %s/%s: listen on UDP %d: %w", p.info.Namespace, p.info.Name, PortHBONE, err)
	}
	relays := given.relays
	given.relays = nil
	if p.quicSocket, err = relay.Open(sock, relays...); err != nil {
		return fmt.Errorf("pod %s/%s: %w", p.info.Namespace, p.info.Name, err)
	}
	cfg := p.cfg.HBONE3
	cfg.ConnectionIDs, cfg.ResetKey = p.quicSocket.ConnectionIDs(), p.quicSocket.ResetKey()
	server := identity.QUICServerConfig(func() (*identity.Certificate, error) {
		ctx, cancel := context.WithTimeout(context.Background(), certTimeout)
		defer cancel()
		return p.source.Get(ctx)
	})
	cfg.MaxHandshakes = maxHandshakes
	cfg.OnTurned = func(why hbone3.Turned) { p.cfg.Metrics.turnedAway(tunnel.H3, string(why)) }
	cfg.OnFailed = p.handshakeFailed
	cfg.OnDropped = func() { p.cfg.Metrics.dropped(Inbound, dropQueue) }
	p.quic, err = hbone3.NewServer(p.quicSocket, server, cfg, func(ctx context.Context, in *hbone3.Incoming) { p.serve(ctx, tunnel.AskHTTP3(in)) })
	if err != nil {
		return fmt.Errorf("pod %s/%s: %w", p.info.Namespace, p.info.Name, err)
	}
	own, err := netns.ListenUDP(p.ns, netip.AddrPortFrom(netip.IPv6Unspecified(), 0), netns.UDPOptions{Mark: Mark, ReceiveBuffer: quicBuffer})
	if err != nil {
		return fmt.Errorf("pod %s/%s: a socket for QUIC: %w", p.info.Namespace, p.info.Name, err)
	}
	groups, err := segment.New(own)
	if err != nil {
		return fmt.Errorf("pod %s/%s: a socket for QUIC: %w", p.info.Namespace, p.info.Name, errors.Join(err, own.Close()))
	}
	p.quicOwn = &quic.Transport{Conn: groups}
	return nil
}

// handshakeFailed notes a peer that has not got through the handshake.
func (p *Pod) handshakeFailed(from net.Addr, err error) {
	c := &connection{direction: Inbound, start: time.Now(), tunnel: true, transport: tunnel.H3, dstID: p.source.ID(), dst: p.workload()}
	if udp, ok := from.(*net.UDPAddr); ok {
		c.srcAddr = netip.AddrPortFrom(udp.AddrPort().Addr().Unmap(), udp.AddrPort().Port())
	}
	c.src = p.cfg.Store.Workload(c.srcAddr.Addr())
	p.finished(c, err)
}

// quicBuffer is asked for the sockets of tunnels, in bytes: what quic-go asks for.
const quicBuffer = 7 << 20

// dialQUIC sets up a tunnel connection over QUIC from within the pod.
func (p *Pod) dialQUIC(ctx context.Context, key tunnel.Key) (*hbone3.ClientConn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.ConnectTimeout)
	defer cancel()
	tlsConfig, err := key.TLS(ctx, p.source.Get, tunnel.H3)
	if err != nil {
		return nil, err
	}
	cfg := p.cfg.HBONE3
	cfg.OnDropped = func() { p.cfg.Metrics.dropped(Outbound, dropQueue) }
	return p.cfg.Reach.Dial(ctx, p.quicOwn, key.Addr, p.cfg.Store.Workload(key.Addr.Addr()), tlsConfig, cfg)
}

// seen notes who the other end has proved to be.
func (c *connection) seen(state tls.ConnectionState) {
	if id, err := identity.FromState(&state); err == nil {
		c.dstID = id
	}
}

// openTunnel opens a stream by the transport that policy and the path allow.
func (p *Pod) openTunnel(ctx context.Context, c *connection, r *wds.Route, req hbone.Request) (tunnel.Stream, error) {
	key := tunnel.KeyOf(r.Connect, r.Workload.UID, r.Peers)
	if p.cfg.Reach.Wants(c.src, r.Workload, false) {
		s, _, cc, err := p.pool3.Open(ctx, key, req)
		if err == nil {
			c.seen(cc.PeerState())
			c.transport = tunnel.H3
			return s, nil
		}
		if !hbone3.Unavailable(err) {
			return nil, err
		}
	}
	s, _, cc, err := p.pool.Open(ctx, key, req)
	if err != nil {
		return nil, err
	}
	c.seen(cc.PeerState())
	c.transport = tunnel.H2
	return s, nil
}

// closeQUIC closes what openQUIC has opened.
func (p *Pod) closeQUIC() {
	if p.quic != nil {
		p.quic.Close()
	}
	if p.quicOwn != nil {
		_ = p.quicOwn.Close()
		_ = p.quicOwn.Conn.Close()
	}
}
