package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/tunnel"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// outboundSession carries what the pod sends to one address, and the answers.
func (p *Pod) outboundSession(ctx context.Context, s *session) {
	c := s.c
	c.srcID = p.source.ID()
	err := p.outboundUDP(ctx, s)
	if cut := c.cutReason(); cut != nil {
		err = cut
	}
	p.finished(c, err)
}

func (p *Pod) outboundUDP(ctx context.Context, s *session) error {
	c := s.c
	if illegalPort(c.dstAddr.Port()) && c.dstAddr.Addr() == c.srcAddr.Addr() {
		return fmt.Errorf("port %d is the proxy's own", c.dstAddr.Port())
	}
	var err error
	if c.src, err = p.awaitWorkload(ctx); err != nil {
		return err
	}
	// Answers come from where the pod has sent to. As soon as this socket is there
	// the kernel gives it what follows.
	app, own, err := p.impersonate(c.dstAddr, c.srcAddr, Mark)
	if err != nil {
		return fmt.Errorf("answer from %s: %w", c.dstAddr, err)
	}
	defer app.Close()
	way, done, err := p.connectUDP(ctx, c)
	if err != nil {
		return err
	}
	defer done()
	return p.exchange(s, way, app, own)
}

// connectUDP finds an endpoint and a way to it.
func (p *Pod) connectUDP(ctx context.Context, c *connection) (tunnel.Packets, func(), error) {
	var tried []*wds.Workload
	for try := 1; ; try++ {
		route, err := p.awaitWaypoint(ctx, func() (wds.Route, error) { return p.cfg.Store.RouteUDP(c.src, c.dstAddr, tried...) })
		c.service, c.dst, c.target, c.waypoint = route.Service, route.Workload, route.Target, route.Waypoint
		if err != nil {
			return nil, nil, err
		}
		way, done, err := p.wayUDP(ctx, c, &route)
		if err == nil || !retryable(err) || try == endpointTries || route.Service == nil && !route.Waypoint || ctx.Err() != nil {
			return way, done, err
		}
		tried = append(tried, route.Workload)
	}
}

func (p *Pod) wayUDP(ctx context.Context, c *connection, r *wds.Route) (tunnel.Packets, func(), error) {
	if !r.Tunnel {
		c.tunnel, c.authority, c.dstID = false, "", identity.ID{}
		up, err := netns.DialUDP(p.ns, netip.AddrPort{}, r.Connect, netns.UDPOptions{Mark: Mark, ReceiveBuffer: udpBuffer})
		if err != nil {
			return nil, nil, err
		}
		p.cfg.Metrics.plaintextSeen(c)
		return &asItIs{up}, func() {}, nil
	}
	c.tunnel, c.authority, c.dstID = true, r.Authority, r.Peers[0]
	c.traceparent = trace.Begin().Traceparent()
	done := r.Workload.Opened()
	ctx, cancel := context.WithTimeout(ctx, 2*p.cfg.ConnectTimeout)
	defer cancel()
	key := tunnel.KeyOf(r.Connect, r.Workload.UID, r.Peers)
	pools := tunnel.Pools{H2: p.pool, H3: p.pool3}
	s, err := pools.OpenUDP(ctx, key, p.cfg.Reach.Wants(c.src, r.Workload, true), r.Target, p.requestFields(c))
	if err != nil {
		done()
		return nil, nil, err
	}
	c.seen(s.Peer)
	c.moved, c.transport = s.Stream.Transferred, s.Transport
	return s, done, nil
}

// exchange carries datagrams both ways until the session ends. own is the socket
// that the kernel gives the application's datagrams to, nil where they come through
// the session.
func (p *Pod) exchange(s *session, way tunnel.Packets, app sender, own *net.UDPConn) error {
	c := s.c
	g := &guarded{Packets: way}
	if c.moved == nil {
		c.moved = func() (int64, int64) { return g.n.Load(), c.toSrc.Load() }
	}
	dir := c.direction
	send := func(b []byte, more bool) {
		s.moved(more)
		drop := dropReason(g.Send(b, more))
		if drop == "" {
			return
		}
		p.cfg.Metrics.dropped(dir, drop)
		if c.tunnel && drop == dropDelivered {
			// The tunnel takes nothing any more, such as that of a ztunnel that was replaced. An application that goes on
			// asking would keep the session alive for ever; what it sends after the end is a new one, by a new tunnel.
			s.end()
		}
	}
	c.onCut(func(error) { s.end() })
	p.conns.add(c)
	p.established(c)
	s.onEnd(func() { way.Close(true) })
	if own != nil {
		s.onEnd(func() { _ = own.Close() })
	}
	s.ready(func(b []byte) error { return g.Send(b, false) })
	var back chan error
	if own != nil {
		back = make(chan error, 1)
		go func() {
			err := readApp(own, send)
			s.end()
			back <- err
		}()
	}
	answer := func(b []byte, _ bool) error {
		if b == nil {
			return nil
		}
		_, err := app.Write(b)
		return err
	}
	if own != nil {
		answer = (&burst{c: own}).add
	}
	err := way.Receive(func(b []byte, more bool) {
		s.moved(more)
		c.toSrc.Add(int64(len(b)))
		if werr := answer(b, more); werr != nil && !isGone(werr) {
			p.cfg.Metrics.dropped(dir, dropReason(werr))
		}
	})
	s.mu.Lock()
	over := s.over
	s.mu.Unlock()
	s.end()
	if back != nil {
		if berr := <-back; berr != nil && over {
			err = berr
		}
	}
	if over && (err == nil || isEnd(err)) {
		return nil // idle, released, or cut for a reason of its own
	}
	return err
}

// isEnd reports what a session that was ended on purpose ends with.
func isEnd(err error) bool {
	var reset *hbone.ResetError
	return errors.Is(err, net.ErrClosed) || errors.Is(err, hbone.ErrClosed) || errors.As(err, &reset) && !reset.Remote
}

// readApp reads an application's socket to its end. An application that has closed
// its own socket is no failure of the session: it may open it again.
func readApp(c *net.UDPConn, f func(p []byte, more bool)) error {
	for {
		err := readBatches(c, f)
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case !isGone(err):
			return fmt.Errorf("application: %w", err)
		}
	}
}
