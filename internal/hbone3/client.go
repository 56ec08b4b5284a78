package hbone3

import (
	"context"
	"crypto/tls"
	"errors"
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

// ClientConn is the side of a connection that opens streams.
type ClientConn struct {
	conn *quic.Conn
	h3   *http3.ClientConn
	cfg  Config

	mu      sync.Mutex
	streams int         // open or being opened; guarded by mu
	retired bool        // takes no new ones; guarded by mu
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
	c := &ClientConn{conn: conn, cfg: cfg, h3: (&http3.Transport{EnableDatagrams: true, MaxResponseHeaderBytes: maxHeaderBytes}).NewClientConn(conn)}
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
	if s := c.h3.Settings(); !s.EnableDatagrams || !s.EnableExtendedConnect {
		c.close(http3.ErrCodeSettingsError, "datagrams and extended CONNECT are needed")
		return nil, &hbone.ConnError{Code: hbone.CodeProtocol, Reason: "the peer speaks HTTP/3 without datagrams or extended CONNECT"}
	}
	c.idle = time.AfterFunc(cfg.IdleTimeout, c.closeIdle)
	cfg.watch(conn)
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

// left notes that a stream has ended.
func (c *ClientConn) left() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams--; c.streams > 0 {
		return
	}
	if c.retired {
		c.idle.Reset(0)
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
		c.idle.Reset(0)
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
	s, err := c.h3.OpenRequestStream(ctx)
	if err != nil {
		c.left()
		if ctx.Err() != nil {
			return nil, nil, fmt.Errorf("no room for a stream: %w", ctx.Err())
		}
		return nil, nil, fmt.Errorf("%w: %w", hbone.ErrDraining, mapped(err))
	}
	resp, err := c.ask(ctx, s, req)
	if err != nil {
		s.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
		s.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
		c.left()
		return nil, nil, err
	}
	return &Stream{w: s, ended: c.left}, resp, nil
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
	resp, err := s.ReadResponse()
	for err == nil && resp.StatusCode < 200 {
		resp, err = s.ReadResponse()
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

// Pool shares connections among streams of equal key: one for each key, set up
// without holding up other keys.
type Pool[K comparable] struct {
	dial func(ctx context.Context, key K) (*ClientConn, error)

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool         // guarded by mu
	keys   map[K]*entry // guarded by mu
}

// entry is a connection, or the attempt to have one.
type entry struct {
	done chan struct{}
	conn *ClientConn // and
	err  error       // are written before done is closed
}

// NewPool makes a pool that opens connections with dial. Drain ends it.
func NewPool[K comparable](dial func(ctx context.Context, key K) (*ClientConn, error)) *Pool[K] {
	ctx, cancel := context.WithCancel(context.Background())
	return &Pool[K]{dial: dial, ctx: ctx, cancel: cancel, keys: make(map[K]*entry)}
}

// Open opens a stream on the connection of the key, setting one up if need be. A
// stream that the peer has provably not processed is tried on a new connection.
func (p *Pool[K]) Open(ctx context.Context, key K, req hbone.Request) (*Stream, *hbone.Response, *ClientConn, error) {
	for attempt := 1; ; attempt++ {
		cc, e, err := p.get(ctx, key)
		if err != nil {
			return nil, nil, nil, err
		}
		s, resp, err := cc.Open(ctx, req)
		if err == nil {
			return s, resp, cc, nil
		}
		if !hbone.Unprocessed(err) || attempt == 3 {
			return nil, nil, nil, err
		}
		p.forget(key, e)
	}
}

// Get gives the connection of a key, setting it up if need be.
func (p *Pool[K]) Get(ctx context.Context, key K) (*ClientConn, error) {
	cc, _, err := p.get(ctx, key)
	return cc, err
}

func (p *Pool[K]) get(ctx context.Context, key K) (*ClientConn, *entry, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, nil, hbone.ErrClosed
	}
	e := p.keys[key]
	if e == nil {
		e = &entry{done: make(chan struct{})}
		p.keys[key] = e
		p.wg.Add(1)
		go p.run(key, e)
	}
	p.mu.Unlock()
	select {
	case <-e.done:
		return e.conn, e, e.err
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

// run sets up a connection and waits for its end.
func (p *Pool[K]) run(key K, e *entry) {
	defer p.wg.Done()
	defer p.forget(key, e)
	e.conn, e.err = p.dial(p.ctx, key)
	p.mu.Lock()
	stale := p.keys[key] != e
	p.mu.Unlock()
	close(e.done)
	if e.err != nil {
		return
	}
	if stale {
		e.conn.Drain()
	}
	select {
	case <-e.conn.Done():
	case <-p.ctx.Done():
		e.conn.close(http3.ErrCodeNoError, "closing")
		<-e.conn.Done()
	}
	e.conn.mu.Lock()
	e.conn.idle.Stop()
	e.conn.mu.Unlock()
}

// forget has the next stream of the key get a new connection.
func (p *Pool[K]) forget(key K, e *entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keys[key] == e {
		delete(p.keys, key)
	}
}

// Retire stops the use of connections whose key matches: their streams go on, new
// ones get a new connection.
func (p *Pool[K]) Retire(match func(K) bool) {
	var gone []*entry
	p.mu.Lock()
	for k, e := range p.keys {
		if match(k) {
			gone = append(gone, e)
			delete(p.keys, k)
		}
	}
	p.mu.Unlock()
	for _, e := range gone {
		select {
		case <-e.done:
			if e.err == nil {
				e.conn.Drain()
			}
		default: // run sees that nobody knows it any more
		}
	}
}

// Drain takes no new streams, waits until the present ones have ended or ctx does,
// and then closes what is left.
func (p *Pool[K]) Drain(ctx context.Context) {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Retire(func(K) bool { return true })
	idle := make(chan struct{})
	go func() {
		p.wg.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-ctx.Done():
	}
	p.cancel()
	<-idle
}

// Unreachable reports whether err says that QUIC does not get through.
func Unreachable(err error) bool { return errors.Is(err, ErrUnreachable) }
