package hbone

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// Request opens a stream.
type Request struct {
	// Authority is host:port, the target of the CONNECT.
	Authority string
	// Fields are sent with it, such as forwarded, baggage and traceparent.
	// Names are lower case. Fields that make the block larger than 16 KiB are an error.
	Fields []Field
}

// Response is the answer to a Request.
type Response struct {
	Fields []Field
}

// ClientConn is the side of a tunnel connection that opens streams.
type ClientConn struct {
	c   *conn
	enc *blockEncoder // guarded by the sender's lock
}

// NewClientConn does the TLS handshake on sock and says hello. Run has to be
// called next; it owns the connection from then on. If an error is returned, sock
// is closed.
func NewClientConn(ctx context.Context, sock net.Conn, tlsConfig *tls.Config, cfg Config) (*ClientConn, error) {
	cfg = cfg.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, cfg.HandshakeTimeout)
	defer cancel()
	under, hold := underTLS(sock)
	t := tls.Client(hold, tlsConfig)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = sock.Close()
		return nil, &HandshakeError{Err: err}
	}
	if p := t.ConnectionState().NegotiatedProtocol; p != "h2" {
		_ = sock.Close()
		return nil, &HandshakeError{Err: fmt.Errorf("peer does not speak h2 (ALPN %q)", p)}
	}
	c := newConn(t, under, hold, cfg, false)
	cc := &ClientConn{c: c, enc: newBlockEncoder()}
	c.headers = cc.onHeaders
	if err := c.out.send(c.greeting([]byte(preface))); err != nil {
		_ = sock.Close()
		return nil, err
	}
	return cc, nil
}

// HandshakeError is a TLS handshake that failed.
type HandshakeError struct{ Err error }

// Error says what the TLS layer said.
func (e *HandshakeError) Error() string { return "TLS handshake: " + e.Err.Error() }

// Unwrap gives the TLS layer's error.
func (e *HandshakeError) Unwrap() error { return e.Err }

// Run serves the connection until it ends, and returns why; ErrClosed when that
// was intended by ctx, Drain or an idle timeout.
func (cc *ClientConn) Run(ctx context.Context) error { return cc.c.run(ctx) }

// Done is closed when the connection has ended.
func (cc *ClientConn) Done() <-chan struct{} { return cc.c.done }

// Drain lets the streams end and takes no new ones.
func (cc *ClientConn) Drain() { cc.c.drain() }

// PeerState is what TLS knows of the peer.
func (cc *ClientConn) PeerState() tls.ConnectionState { return cc.c.tls.ConnectionState() }

// LocalAddr is the connection's own address.
func (cc *ClientConn) LocalAddr() net.Addr { return cc.c.under.LocalAddr() }

// load gives the number of streams, and how many more could be opened; 0 when draining.
func (cc *ClientConn) load() (streams, room int) {
	cc.c.mu.Lock()
	defer cc.c.mu.Unlock()
	if cc.c.draining {
		return len(cc.c.streams), 0
	}
	return len(cc.c.streams), max(0, cc.c.peerStreams-len(cc.c.streams))
}

// usable reports whether the connection takes new streams at all.
func (cc *ClientConn) usable() bool {
	cc.c.mu.Lock()
	defer cc.c.mu.Unlock()
	return !cc.c.draining
}

// Open opens a stream and waits for the answer. A *RefusedError is an answer other
// than 200. Unprocessed tells whether it may be tried elsewhere.
func (cc *ClientConn) Open(ctx context.Context, req Request) (*Stream, *Response, error) {
	c := cc.c
	var s *Stream
	err := c.out.open(func(b []byte) ([]byte, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.draining || len(c.streams) >= c.peerStreams || c.nextID > maxWindow-2 {
			return nil, ErrDraining
		}
		s = newStream(c, c.nextID)
		s.response = make(chan *header, 1)
		b, err := cc.enc.headersFrame(b, s.id, false, []Field{{Name: ":method", Value: "CONNECT"}, {Name: ":authority", Value: req.Authority}}, req.Fields)
		if err != nil {
			return nil, err
		}
		c.nextID += 2
		c.registerLocked(s)
		return b, nil
	})
	if err != nil {
		if s != nil {
			s.finish(err)
		}
		return nil, nil, err
	}
	select {
	case h := <-s.response:
		s.response = nil
		return cc.answered(s, h)
	case <-s.done:
		select {
		case h := <-s.response: // the answer came, and then the end
			return cc.answered(s, h)
		default:
			return nil, nil, s.endedErr()
		}
	case <-ctx.Done():
		s.reset(CodeCancel)
		return nil, nil, fmt.Errorf("no answer to CONNECT: %w", ctx.Err())
	}
}

func (cc *ClientConn) answered(s *Stream, h *header) (*Stream, *Response, error) {
	if h.status == "200" {
		return s, &Response{Fields: h.fields}, nil
	}
	s.reset(CodeCancel)
	status, err := strconv.Atoi(h.status)
	if err != nil {
		return nil, nil, connError(CodeProtocol, "status %q", h.status)
	}
	return nil, nil, &RefusedError{Status: status, ProxyStatus: h.get("proxy-status")}
}

// Get gives the first value of a field of the response.
func (r *Response) Get(name string) string {
	for _, f := range r.Fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

func (cc *ClientConn) onHeaders(id uint32, h *header, endStream bool) error {
	s, err := cc.c.stream(id)
	if s == nil || err != nil {
		return err
	}
	if h.malformed != "" || h.tooLarge || h.status == "" {
		s.reset(CodeProtocol)
		return nil
	}
	s.mu.Lock()
	first := !s.accepted
	s.accepted = first || s.accepted
	s.mu.Unlock()
	if first && h.status[0] == '1' {
		s.mu.Lock()
		s.accepted = false // an interim response, RFC 9110 section 15.2
		s.mu.Unlock()
		return nil
	}
	if first {
		s.response <- h
	}
	if endStream {
		s.remoteEnd()
	}
	return nil
}

// Ready waits until the peer's settings have come: a peer that refuses our
// certificate says so only after our side of a TLS 1.3 handshake is done.
func (cc *ClientConn) Ready(ctx context.Context) error {
	timer := time.NewTimer(cc.c.cfg.HandshakeTimeout)
	defer timer.Stop()
	select {
	case <-cc.c.settings:
		return nil
	case <-cc.c.done:
		err := cc.c.reason()
		if errors.Is(err, ErrClosed) {
			return err
		}
		return &HandshakeError{Err: err}
	case <-timer.C:
		return &HandshakeError{Err: errors.New("no SETTINGS from the peer")}
	case <-ctx.Done():
		return ctx.Err()
	}
}
