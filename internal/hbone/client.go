package hbone

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/internal/h2wire"
)

// Request opens a stream.
type Request struct {
	// Authority is host:port, the target of the CONNECT.
	Authority string
	// Protocol and Path make it an extended CONNECT (RFC 8441); "" for none.
	Protocol, Path string
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
	tls *tls.Conn
	enc *blockEncoder // guarded by the sender's lock
	// claims are streams that the pool has given this connection and that are
	// not open yet.
	claims atomic.Int64
}

// NewClientConn does the TLS handshake on sock and says hello. Run has to be
// called next; it owns the connection from then on. If an error is returned, sock
// is closed.
func NewClientConn(ctx context.Context, sock net.Conn, tlsConfig *tls.Config, cfg Config) (*ClientConn, error) {
	cfg = cfg.withDefaults()
	born := time.Now()
	ctx, cancel := context.WithTimeout(ctx, cfg.HandshakeTimeout)
	defer cancel()
	under, hold := underTLS(sock)
	t := tls.Client(hold, tlsConfig)
	if err := shakeHands(ctx, t, sock); err != nil {
		return nil, err
	}
	c := newConn(t, under, hold, cfg, false)
	c.born = born
	cc := &ClientConn{c: c, tls: t, enc: newBlockEncoder()}
	c.headers = cc.onHeaders
	c.post(c.greeting([]byte(h2wire.Preface)))
	return cc, nil
}

// shakeHands does the TLS handshake, which has to agree on h2. If it fails, the
// peer is told why by an alert and sock is closed.
func shakeHands(ctx context.Context, t *tls.Conn, sock net.Conn) error {
	if err := t.HandshakeContext(ctx); err != nil {
		refused(sock)
		return &HandshakeError{Err: err}
	}
	if p := t.ConnectionState().NegotiatedProtocol; p != "h2" {
		_ = sock.SetWriteDeadline(time.Now().Add(closeTimeout))
		_ = t.CloseWrite()
		refused(sock)
		return &HandshakeError{Err: fmt.Errorf("peer does not speak h2 (ALPN %q)", p)}
	}
	return nil
}

// HandshakeError is a TLS handshake that failed.
type HandshakeError struct{ Err error }

// Error says what the TLS layer said.
func (e *HandshakeError) Error() string { return "TLS handshake: " + e.Err.Error() }

// Unwrap gives the TLS layer's error.
func (e *HandshakeError) Unwrap() error { return e.Err }

// Run serves the connection until it ends, and returns why; ErrClosed when that
// was intended by ctx, Drain or an idle timeout.
func (cc *ClientConn) Run(ctx context.Context) error {
	peer := cc.PeerState()
	return cc.c.run(ctx, &peer)
}

// Done is closed when the connection has ended.
func (cc *ClientConn) Done() <-chan struct{} { return cc.c.done }

// Drain lets the streams end and takes no new ones.
func (cc *ClientConn) Drain() { cc.c.drain() }

// PeerState is what TLS knows of the peer.
func (cc *ClientConn) PeerState() tls.ConnectionState { return cc.tls.ConnectionState() }

// LocalAddr is the connection's own address.
func (cc *ClientConn) LocalAddr() net.Addr { return cc.c.under.LocalAddr() }

// load gives the number of streams, claimed ones included, and how many more
// could be opened; 0 when draining or out of stream numbers.
func (cc *ClientConn) load() (streams, room int) {
	c := cc.c
	c.mu.Lock()
	defer c.mu.Unlock()
	streams = len(c.streams) + int(cc.claims.Load())
	if c.draining || c.nextID > h2wire.MaxWindow {
		return streams, 0
	}
	return streams, max(0, c.peerStreams-streams)
}

// usable reports whether the connection takes new streams, now or later.
func (cc *ClientConn) usable() bool {
	cc.c.mu.Lock()
	defer cc.c.mu.Unlock()
	return !cc.c.draining
}

// errFull is a connection that carries as many streams as its peer allows.
var errFull = fmt.Errorf("%w now: it carries as many as the peer allows", ErrDraining)

// Open opens a stream and waits for the answer. A *RefusedError is an answer other
// than 200. Unprocessed tells whether it may be tried elsewhere.
func (cc *ClientConn) Open(ctx context.Context, req Request) (*Stream, *Response, error) {
	s, err := cc.start(req)
	if err != nil {
		return nil, nil, err
	}
	return cc.await(ctx, s)
}

// openClaimed is Open for a stream that was claimed.
func (cc *ClientConn) openClaimed(ctx context.Context, req Request) (*Stream, *Response, error) {
	s, err := cc.start(req)
	cc.claims.Add(-1)
	if err != nil {
		return nil, nil, err
	}
	return cc.await(ctx, s)
}

// start sends the HEADERS of a new stream.
func (cc *ClientConn) start(req Request) (s *Stream, err error) {
	err = cc.c.out.open(false, func(b []byte) ([]byte, error) {
		var err error
		s, b, err = cc.begin(b, req)
		return b, err
	})
	if err != nil {
		if s != nil {
			// The stream may have its own reason already: a GOAWAY in answer to the
			// HEADERS ends it as not processed before the connection closes.
			s.finish(err)
			err = s.endedErr()
		}
		return nil, err
	}
	return s, nil
}

// await waits for the answer to a new stream.
func (cc *ClientConn) await(ctx context.Context, s *Stream) (*Stream, *Response, error) {
	select {
	case h := <-s.response:
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

// begin numbers a stream and appends its HEADERS.
func (cc *ClientConn) begin(b []byte, req Request) (*Stream, []byte, error) {
	c := cc.c
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.draining || c.nextID > h2wire.MaxWindow:
		return nil, nil, ErrDraining
	case len(c.streams) >= c.peerStreams:
		return nil, nil, errFull
	}
	pseudo := append(make([]Field, 0, 5), Field{Name: ":method", Value: "CONNECT"}, Field{Name: ":authority", Value: req.Authority})
	if req.Protocol != "" {
		pseudo = append(pseudo, Field{Name: ":protocol", Value: req.Protocol}, Field{Name: ":scheme", Value: "https"}, Field{Name: ":path", Value: req.Path})
	}
	b, err := cc.enc.headersFrame(b, c.nextID, false, pseudo, req.Fields)
	if err != nil {
		return nil, nil, err
	}
	s := newStream(c, c.nextID)
	s.response = make(chan *header, 1)
	c.nextID += 2
	c.registerLocked(s)
	return s, b, nil
}

func (cc *ClientConn) answered(s *Stream, h *header) (*Stream, *Response, error) {
	s.response = nil
	if h.status == "200" {
		return s, &Response{Fields: h.fields}, nil
	}
	s.reset(CodeCancel)
	status, _ := strconv.Atoi(h.status) // three digits, see onHeaders
	return nil, nil, &RefusedError{Status: status, ProxyStatus: clip(h.get("proxy-status"))}
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

// costInterim is what an answer before the answer takes from the peer's budget.
const costInterim = 1

func (cc *ClientConn) onHeaders(id uint32, h *header, endStream bool) (cost float64, err error) {
	s, err := cc.c.stream(id)
	if s == nil || err != nil {
		return costLate, err
	}
	s.mu.Lock()
	answered := s.accepted
	interim := !answered && isStatus(h.status) && h.status[0] == '1' && !endStream
	s.accepted = !interim
	s.mu.Unlock()
	malformed := h.malformed != "" || h.tooLarge || h.method != "" || h.authority != "" || h.protocol != "" || h.scheme != "" || h.path != ""
	switch {
	case malformed, answered && !endStream, !answered && !isStatus(h.status), h.status != "" && h.status[0] == '1' && !interim:
		s.reset(CodeProtocol)
		return 0, nil
	case interim: // RFC 9110 section 15.2
		return costInterim, nil
	case !answered:
		s.response <- h
	}
	if endStream {
		s.remoteEnd()
	}
	return 0, nil
}

func isStatus(s string) bool {
	return len(s) == 3 && s[0] >= '1' && s[0] <= '5' && s[1] >= '0' && s[1] <= '9' && s[2] >= '0' && s[2] <= '9'
}

// Ready waits until the peer's settings have come: a peer that refuses our
// certificate says so only after our side of a TLS 1.3 handshake is done. Run has
// to be running.
func (cc *ClientConn) Ready(ctx context.Context) error {
	select {
	case <-cc.c.settings:
		return nil
	case <-cc.c.done:
		return cc.c.reason()
	case <-ctx.Done():
		return ctx.Err()
	}
}
