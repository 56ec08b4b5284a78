package hbone3

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// Closing a connection discards what the peer has not got yet, or not passed on. One that is
// being left stays for leaveTimeout after its last stream of bytes has ended, and for
// partTimeout after its last session of datagrams, of which some may be lost anyway.
const (
	leaveTimeout = 5 * time.Second
	partTimeout  = 250 * time.Millisecond
)

// ClientConn is the side of a connection that opens streams.
type ClientConn struct {
	conn *quic.Conn
	h3   *http3.ClientConn
	cfg  Config
	own  *datagrams // nil where the library has them

	mu      sync.Mutex
	streams int         // open or being opened; guarded by mu
	retired bool        // takes no new ones; guarded by mu
	until   time.Time   // it stays at least, if it is being left; guarded by mu
	idle    *time.Timer // guarded by mu
}

// Dial connects from a socket of the caller's, which many connections may share.
// ErrUnreachable says that nothing came back.
func Dial(ctx context.Context, tr *quic.Transport, addr netip.AddrPort, tlsConfig *tls.Config, cfg Config) (*ClientConn, error) {
	cfg = cfg.withDefaults()
	bounded, cancel := context.WithTimeout(ctx, cfg.HandshakeTimeout)
	defer cancel()
	conn, err := tr.Dial(bounded, net.UDPAddrFromAddrPort(addr), tlsConfig, cfg.quic())
	if err != nil {
		return nil, dialError(ctx, err)
	}
	c := &ClientConn{conn: conn, cfg: cfg, own: newDatagrams(conn, cfg.OnDropped)}
	c.h3 = (&http3.Transport{EnableDatagrams: c.own == nil, MaxResponseHeaderBytes: maxHeaderBytes}).NewClientConn(conn)
	// A peer that refuses our certificate says so only after our side of the
	// handshake is done; its settings say that it does not.
	select {
	case <-c.h3.ReceivedSettings():
	case <-conn.Context().Done():
		return nil, mapped(context.Cause(conn.Context()))
	case <-bounded.Done():
		c.close(http3.ErrCodeNoError, "too late")
		return nil, dialError(ctx, bounded.Err())
	}
	if s := c.h3.Settings(); !s.EnableDatagrams && c.own == nil || !s.EnableExtendedConnect {
		c.close(http3.ErrCodeSettingsError, "datagrams and extended CONNECT are needed")
		return nil, &hbone.ConnError{Code: hbone.CodeProtocol, Reason: "the peer speaks HTTP/3 without datagrams or extended CONNECT"}
	}
	c.idle = time.AfterFunc(cfg.IdleTimeout, c.closeIdle)
	cfg.watch(conn)
	if c.own != nil {
		go c.own.run() // ends with the connection
	}
	return c, nil
}

// PeerState is what TLS knows of the peer.
func (c *ClientConn) PeerState() tls.ConnectionState { return c.conn.ConnectionState().TLS }

// Done is closed when the connection has ended.
func (c *ClientConn) Done() <-chan struct{} { return c.conn.Context().Done() }

// claim makes room for a stream; false says that the connection takes none.
func (c *ClientConn) claim() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retired || c.conn.Context().Err() != nil {
		return false
	}
	c.idle.Stop()
	c.streams++
	return true
}

// load gives how many streams there are, and whether there is room for another one.
func (c *ClientConn) load() (streams int, room bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams, !c.retired && c.streams < c.cfg.MaxStreams
}

// rtt is the shortest round trip to the peer so far.
func (c *ClientConn) rtt() time.Duration { return c.conn.ConnectionStats().MinRTT }

// left notes that a stream has ended, for what of it may still be on its way.
func (c *ClientConn) left(linger time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if until := time.Now().Add(linger); until.After(c.until) {
		c.until = until
	}
	if c.streams--; c.streams > 0 {
		return
	}
	if c.retired {
		c.idle.Reset(max(0, time.Until(c.until)))
		return
	}
	c.idle.Reset(c.cfg.IdleTimeout)
}

func (c *ClientConn) closeIdle() {
	c.mu.Lock()
	unused := c.streams == 0
	c.retired = c.retired || unused
	c.mu.Unlock()
	if unused {
		c.close(http3.ErrCodeNoError, "")
	}
}

// Drain lets the streams end and takes no new ones.
func (c *ClientConn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retired = true
	if c.streams == 0 {
		c.idle.Reset(max(0, time.Until(c.until)))
	}
}

func (c *ClientConn) close(code http3.ErrCode, reason string) {
	_ = c.conn.CloseWithError(quic.ApplicationErrorCode(code), reason)
}

// Open opens a stream and waits for the answer. The stream has to be spliced, received
// from or reset: the connection stays as long as it is not. A *hbone.RefusedError is a negative
// answer. hbone.Unprocessed tells whether it may be tried elsewhere.
func (c *ClientConn) Open(ctx context.Context, req hbone.Request) (*Stream, *hbone.Response, error) {
	if !c.claim() {
		return nil, nil, hbone.ErrDraining
	}
	return c.open(ctx, req)
}

// open does it with the room that was claimed.
func (c *ClientConn) open(ctx context.Context, req hbone.Request) (*Stream, *hbone.Response, error) {
	s, err := c.h3.OpenRequestStream(ctx)
	if err != nil {
		c.left(0)
		if ctx.Err() != nil {
			return nil, nil, fmt.Errorf("no room for a stream: %w", ctx.Err())
		}
		return nil, nil, fmt.Errorf("%w: %w", hbone.ErrDraining, mapped(err))
	}
	resp, err := c.ask(ctx, s, req)
	if err != nil {
		s.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
		s.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
		c.left(0)
		return nil, nil, err
	}
	linger := leaveTimeout
	if req.Protocol != "" {
		linger = partTimeout
	}
	with, leave := c.own.join(s, s.StreamID())
	return &Stream{w: with, ended: func() { leave(); c.left(linger) }}, resp, nil
}

func (c *ClientConn) ask(ctx context.Context, s *http3.RequestStream, req hbone.Request) (*hbone.Response, error) {
	stop := context.AfterFunc(ctx, func() { _ = s.SetDeadline(aLongTimeAgo) })
	defer stop()
	hr := &http.Request{Method: http.MethodConnect, Host: req.Authority, URL: &url.URL{Host: req.Authority}, Header: header(req.Fields)}
	if req.Protocol != "" {
		hr.Proto = req.Protocol
		u, err := url.ParseRequestURI(req.Path)
		if err != nil {
			return nil, err
		}
		hr.URL = &url.URL{Scheme: "https", Host: req.Authority, Path: u.Path, RawPath: u.RawPath}
	}
	if err := s.SendRequestHeader(hr); err != nil {
		return nil, because(ctx, err)
	}
	resp, err := s.ReadResponse() //nolint:bodyclose // the stream is what follows
	for err == nil && resp.StatusCode < 200 {
		resp, err = s.ReadResponse() //nolint:bodyclose // the same
	}
	if err != nil {
		return nil, because(ctx, err)
	}
	if !stop() {
		return nil, because(ctx, ctx.Err())
	}
	return answer(resp)
}

func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("no answer to CONNECT: %w", ctx.Err())
	}
	return mapped(err)
}
