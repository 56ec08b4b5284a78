package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/authz"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/masque"
	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/tunnel"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// Statuses of the answer to a CONNECT, reference section 1.5.
const (
	statusBadRequest     = 400
	statusDenied         = 401
	statusNotImplemented = 501
	statusNotAvailable   = 503
)

// certTimeout bounds how long a handshake waits for this pod's certificate.
const certTimeout = 5 * time.Second

// serveTunnel serves one tunnel connection to this pod.
func (p *Pod) serveTunnel(ctx context.Context, sock *netns.Conn) {
	select {
	case p.handshakes <- struct{}{}:
	default:
		p.cfg.Metrics.turnedAway(tunnel.H2, string(hbone3.TurnedFull))
		p.log.Warn("too many handshakes at a time; connection dropped", zap.Stringer("from", sock.RemoteAddr()))
		return
	}
	sc, err := hbone.NewServerConn(ctx, sock, p.serverTLS(ctx), p.cfg.HBONE, func(ctx context.Context, in *hbone.Incoming) { p.serve(ctx, tunnel.AskHTTP2(in)) })
	<-p.handshakes
	if err != nil {
		c := &connection{direction: Inbound, start: time.Now(), tunnel: true, srcAddr: sock.RemoteAddrPort(), dstID: p.source.ID(), dst: p.workload()}
		c.src = p.cfg.Store.Workload(c.srcAddr.Addr())
		p.ended(sock, c, err)
		return
	}
	p.mu.Lock()
	p.tunnels[sc] = struct{}{}
	closing := p.closing
	p.mu.Unlock()
	if closing {
		sc.Drain()
	}
	if err := sc.Run(ctx); err != nil && !errors.Is(err, hbone.ErrClosed) {
		p.log.Debug("tunnel connection ended", zap.Stringer("from", sock.RemoteAddr()), zap.Error(err))
	}
	p.mu.Lock()
	delete(p.tunnels, sc)
	p.mu.Unlock()
}

func (p *Pod) serverTLS(ctx context.Context) *tls.Config {
	return identity.ServerConfig(func() (*identity.Certificate, error) {
		ctx, cancel := context.WithTimeout(ctx, certTimeout)
		defer cancel()
		return p.source.Get(ctx)
	})
}

// refusal is an answer other than 200.
type refusal struct {
	status int
	// kind is the error type of Proxy-Status, RFC 9209 section 2.3.
	kind string
	err  error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

func refuse(status int, kind string, format string, args ...any) error {
	return &refusal{status, kind, fmt.Errorf(format, args...)}
}

// serve serves one CONNECT of either transport.
func (p *Pod) serve(ctx context.Context, a *tunnel.Ask) {
	c := &connection{direction: Inbound, start: time.Now(), tunnel: true, authority: a.Authority, transport: a.Transport, dstID: p.source.ID(), moved: received(a.Stream), traceparent: a.Get("traceparent")}
	c.srcAddr, _ = netip.ParseAddrPort(a.Remote.String())
	c.srcAddr = netip.AddrPortFrom(c.srcAddr.Addr().Unmap(), c.srcAddr.Port())
	var err error
	switch a.Protocol {
	case "":
		err = p.serveTCP(ctx, a, c)
	case masque.Protocol:
		c.udp = true
		err = p.serveUDP(ctx, a, c)
	default:
		err = refuse(statusNotImplemented, "http_request_error", "no such protocol here")
	}
	var r *refusal
	if errors.As(err, &r) {
		a.Refuse(r.status, hbone.ProxyStatus(r.kind, r.Error()))
	}
	if cut := c.cutReason(); cut != nil {
		err = cut
	}
	p.finished(c, err)
}

// received counts in the direction of a connection: towards its destination first.
func received(s tunnel.Stream) func() (int64, int64) {
	return func() (int64, int64) {
		sent, recv := s.Transferred()
		return recv, sent
	}
}

// serveTCP serves a CONNECT for bytes.
func (p *Pod) serveTCP(ctx context.Context, a *tunnel.Ask, c *connection) error {
	if err := p.decide(ctx, a, c); err != nil {
		return err
	}
	up, err := p.dialApp(ctx, c)
	if err != nil {
		return err
	}
	defer up.Close()
	s, err := a.Accept(hbone.Field{Name: "baggage", Value: baggage(c.dst, p.cfg.Cluster)})
	if err != nil {
		return err
	}
	p.established(c)
	return s.Splice(up)
}

// decide finds out who asks for what, and whether that may be.
func (p *Pod) decide(ctx context.Context, a *tunnel.Ask, c *connection) error {
	var err error
	if c.srcID, err = identity.FromState(a.Peer); err != nil {
		return refuse(statusBadRequest, "tls_certificate_error", "%w", err)
	}
	if c.dst, err = p.awaitWorkload(ctx); err != nil {
		return refuse(statusNotAvailable, "destination_not_found", "%w", err)
	}
	if err := p.identify(a.Fields, c); err != nil {
		return refuse(statusBadRequest, "http_request_error", "%w", err)
	}
	c.src = p.cfg.Store.Workload(c.srcAddr.Addr())
	local, _ := netip.ParseAddrPort(a.Local.String())
	if c.dstAddr, c.service, err = p.target(a.Authority, local.Addr().Unmap(), c.dst); err != nil {
		return err
	}
	// Registered before it is decided, so that a policy that changes in between
	// finds the connection.
	c.onCut(func(error) { a.Stream.Reset(hbone.CodeCancel) })
	if err := p.authorize(c); err != nil {
		return refuse(statusDenied, "http_request_denied", "%w", err)
	}
	return nil
}

// identify finds out whether the peer speaks for somebody else: a waypoint of this
// pod does, for its client.
func (p *Pod) identify(fields []hbone.Field, c *connection) error {
	c.peerID = c.srcID
	if !p.cfg.Store.SpeaksFor(c.peerID, c.dst) {
		return nil
	}
	c.peerAddr = c.srcAddr
	return c.onBehalf(fields)
}

// authorize registers the connection and asks the policies.
func (p *Pod) authorize(c *connection) error {
	c.facts = authz.Connection{Source: c.srcID, Peer: c.peerID, SourceIP: c.srcAddr.Addr(), DestIP: c.dstAddr.Addr(), DestPort: c.dstAddr.Port()}
	p.conns.add(c)
	d := p.cfg.Store.Evaluator(c.dst).Decide(c.facts)
	c.audits = d.Audits
	if !d.Allowed {
		c.denial = &d
		p.cfg.Metrics.denied(c, &d)
		return deniedBy(&d)
	}
	return nil
}

// target reads the authority: this pod's own address, or a service of it, and a
// port that is not the proxy's.
func (p *Pod) target(authority string, local netip.Addr, w *wds.Workload) (netip.AddrPort, *wds.Service, error) {
	bad := func(format string, args ...any) (netip.AddrPort, *wds.Service, error) {
		return netip.AddrPort{}, nil, refuse(statusBadRequest, "http_request_error", format, args...)
	}
	dst, err := netip.ParseAddrPort(authority)
	var svc *wds.Service
	switch {
	case err == nil && dst.Addr().Zone() == "":
		dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
		if dst.Addr() != local {
			return bad("authority %s is not this pod, which is %s", dst, local)
		}
	default:
		at := strings.LastIndexByte(authority, ':')
		port, perr := strconv.ParseUint(authority[at+1:], 10, 16)
		if at <= 0 || perr != nil || strings.ContainsAny(authority[:at], "[]:@/ ") {
			return bad("authority %q: want host:port", clip(authority))
		}
		var target uint16
		svc, target, err = p.cfg.Store.ServiceTarget(w, authority[:at], uint16(port))
		if err != nil {
			return netip.AddrPort{}, nil, refuse(statusNotAvailable, "destination_not_found", "%w", err)
		}
		dst = netip.AddrPortFrom(local, target)
	}
	if dst.Port() == 0 {
		return bad("authority %q: port 0", clip(authority))
	}
	if illegalPort(dst.Port()) {
		return netip.AddrPort{}, nil, refuse(statusNotAvailable, "destination_ip_prohibited", "port %d is the proxy's own", dst.Port())
	}
	return dst, svc, nil
}

func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "..."
	}
	return s
}

// dialApp connects to the application from the address of the real client.
func (p *Pod) dialApp(ctx context.Context, c *connection) (*netns.Conn, error) {
	opts := netns.DialOptions{Mark: Mark, Timeout: p.cfg.ConnectTimeout}
	if src := c.srcAddr.Addr(); src != c.dstAddr.Addr() && src.Is4() == c.dstAddr.Addr().Is4() {
		opts.Source = netip.AddrPortFrom(src, 0)
	}
	up, err := p.dialFrom(ctx, opts, c)
	switch {
	case err == nil:
		return up, nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, refuse(statusNotAvailable, "connection_refused", "application at %s: %w", c.dstAddr, err)
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return nil, refuse(statusNotAvailable, "connection_timeout", "application at %s: %w", c.dstAddr, err)
	}
	return nil, refuse(statusNotAvailable, "destination_unavailable", "application at %s: %w", c.dstAddr, err)
}

// Ports from which a plaintext client's connection is continued. They are below those
// that kernels give to clients by themselves (32768 and up), and above those of
// services.
const (
	deliveryPortMin = 10240
	deliveryPortMax = 32767
	deliveryTries   = 16
)

// dialFrom connects from the client's address. The client of a tunnel has no
// connection of its own to the application's port in this namespace. That of plaintext
// has: if the kernel gave ours the port of that one, or of another one of the same
// client, connection tracking would take both for the same.
func (p *Pod) dialFrom(ctx context.Context, opts netns.DialOptions, c *connection) (*netns.Conn, error) {
	if c.tunnel || !opts.Source.IsValid() {
		return netns.Dial(ctx, p.ns, opts, c.dstAddr)
	}
	for try := 1; ; try++ {
		port := deliveryPortMin + rand.N(uint16(deliveryPortMax-deliveryPortMin+1))
		if port == c.srcAddr.Port() {
			continue
		}
		opts.Source = netip.AddrPortFrom(opts.Source.Addr(), port)
		up, err := netns.Dial(ctx, p.ns, opts, c.dstAddr)
		taken := errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL)
		if !taken || try >= deliveryTries {
			return up, err
		}
	}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
