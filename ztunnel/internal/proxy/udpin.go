package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/masque"
	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/tunnel"
)

// serveUDP serves one CONNECT-UDP.
func (p *Pod) serveUDP(ctx context.Context, a *tunnel.Ask, c *connection) error {
	authority, err := masque.ParsePath(a.Path)
	if err != nil {
		return refuse(statusBadRequest, "http_request_error", "%w", err)
	}
	a.Authority, c.authority = authority, authority
	if err := p.decide(ctx, a, c); err != nil {
		return err
	}
	leave, ok := p.udpRoom(c.srcAddr.Addr())
	if !ok {
		p.cfg.Metrics.dropped(Inbound, dropLimit)
		return refuse(statusNotAvailable, "connection_limit_reached", "too many sessions of %s", c.srcAddr.Addr())
	}
	defer leave()
	var source netip.AddrPort
	if src := c.srcAddr.Addr(); src != c.dstAddr.Addr() && src.Is4() == c.dstAddr.Addr().Is4() {
		source = netip.AddrPortFrom(src, 0)
	}
	app, err := netns.DialUDP(p.ns, source, c.dstAddr, netns.UDPOptions{Mark: Mark, Transparent: source.IsValid(), ReceiveBuffer: udpBuffer})
	if err != nil {
		return refuse(statusNotAvailable, "destination_unavailable", "application at %s: %w", c.dstAddr, err)
	}
	defer app.Close()
	way, err := a.AcceptUDP(hbone.Field{Name: "baggage", Value: baggage(c.dst, p.cfg.Cluster)})
	if err != nil {
		return err
	}
	return p.deliver(c, way, app)
}

// deliver carries datagrams between a tunnel and the application.
func (p *Pod) deliver(c *connection, way tunnel.Packets, app *net.UDPConn) error {
	s := newSession(flowKey{c.srcAddr, c.dstAddr}, c)
	p.established(c)
	c.onCut(func(error) { s.end() })
	s.onEnd(func() { way.Close(true) })
	s.onEnd(func() { _ = app.Close() })
	// The other end decides when a session is idle; this is for one that does not.
	idle := time.AfterFunc(2*udpIdle, func() { p.endIdle(s) })
	defer idle.Stop()
	s.onEnd(func() { idle.Stop() })
	back := make(chan error, 1)
	go func() {
		err := readApp(app, func(b []byte, more bool) {
			s.moved(more)
			if drop := dropReason(way.Send(b, more)); drop != "" {
				p.cfg.Metrics.dropped(Inbound, drop)
			}
		})
		s.end()
		back <- err
	}()
	out := &burst{c: app}
	err := way.Receive(func(b []byte, more bool) {
		s.moved(more)
		if werr := out.add(b, more); werr != nil && !isGone(werr) {
			p.cfg.Metrics.dropped(Inbound, dropReason(werr))
		}
	})
	s.end()
	if berr := <-back; err == nil || isEnd(err) {
		err = berr
	}
	var reset *hbone.ResetError
	if errors.As(err, &reset) {
		return nil // how a client's session ends
	}
	return err
}

// endIdle ends a session in which nothing has moved.
func (p *Pod) endIdle(s *session) {
	if quiet := time.Since(time.Unix(0, s.last.Load())); quiet < 2*udpIdle {
		again := time.AfterFunc(2*udpIdle-quiet, func() { p.endIdle(s) })
		s.onEnd(func() { again.Stop() })
		return
	}
	s.end()
}

// udpRoom makes room for a session from an address.
func (p *Pod) udpRoom(from netip.Addr) (leave func(), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.udpFrom == nil {
		p.udpFrom = make(map[netip.Addr]int)
	}
	if p.udpCount >= maxSessions || p.udpFrom[from] >= maxOfSource {
		return nil, false
	}
	p.udpCount++
	p.udpFrom[from]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.udpCount--
		if p.udpFrom[from]--; p.udpFrom[from] == 0 {
			delete(p.udpFrom, from)
		}
	}, true
}

// plaintextSession hands the pod what did not come through a tunnel, policy
// permitting. The answers are the pod's own, and find their way by themselves.
func (p *Pod) plaintextSession(ctx context.Context, s *session) {
	err := p.plaintextUDP(ctx, s)
	if cut := s.c.cutReason(); cut != nil {
		err = cut
	}
	p.finished(s.c, err)
}

func (p *Pod) plaintextUDP(ctx context.Context, s *session) error {
	c := s.c
	if illegalPort(c.dstAddr.Port()) {
		return fmt.Errorf("port %d is the proxy's own", c.dstAddr.Port())
	}
	var err error
	if c.dst, err = p.awaitWorkload(ctx); err != nil {
		return err
	}
	c.src = p.cfg.Store.Workload(c.srcAddr.Addr())
	ended := make(chan struct{})
	s.onEnd(func() { close(ended) })
	c.onCut(func(error) { s.end() })
	if err := p.authorize(c); err != nil {
		return err
	}
	p.cfg.Metrics.plaintextSeen(c)
	app, _, err := p.impersonate(c.srcAddr, c.dstAddr, plainMark)
	if err != nil {
		return fmt.Errorf("application at %s: %w", c.dstAddr, err)
	}
	defer app.Close()
	p.established(c)
	s.ready(func(b []byte) error {
		c.toDst.Add(int64(len(b)))
		_, err := app.Write(b)
		if isGone(err) {
			return nil
		}
		return err
	})
	<-ended
	return nil
}
