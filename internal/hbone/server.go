package hbone

import (
	"context"
	"crypto/tls"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/h2wire"
)

// Handler decides about one incoming stream: it calls Accept or Refuse of in, and
// after Accept splices the stream. The stream ends when it returns.
type Handler func(ctx context.Context, in *Incoming)

// Incoming is a CONNECT that waits for a decision.
type Incoming struct {
	// Authority is the target, not yet parsed.
	Authority string
	// Protocol and Path are those of an extended CONNECT (RFC 8441), "" of others.
	// Only Config.Protocol gets here.
	Protocol, Path string
	// Fields are the other header fields.
	Fields []Field
	// Peer is what TLS knows of who asks.
	Peer *tls.ConnectionState
	// RemoteAddr and LocalAddr are those of the tunnel connection.
	RemoteAddr, LocalAddr net.Addr

	sc *ServerConn
	s  *Stream
}

// Get gives the first value of a field.
func (in *Incoming) Get(name string) string {
	for _, f := range in.Fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// Stream is the stream, for watching or resetting it before it is accepted.
func (in *Incoming) Stream() *Stream { return in.s }

// Accept answers 200. The stream can be spliced from then on. An error means that
// the stream has ended, was answered before, or that the fields are too large.
func (in *Incoming) Accept(fields ...Field) (*Stream, error) {
	if err := in.sc.respond(in.s, 200, false, fields); err != nil {
		return nil, err
	}
	return in.s, nil
}

// Refuse answers with another status, and why (RFC 9209). A stream that was
// accepted is reset instead.
func (in *Incoming) Refuse(status int, proxyStatus string) {
	if in.s.answered() {
		in.s.reset(CodeCancel)
		return
	}
	in.sc.refuse(in.s, status, proxyStatus)
}

// ServerConn is the side of a tunnel connection that accepts streams.
type ServerConn struct {
	c       *conn
	handler Handler
	state   tls.ConnectionState
	remote  net.Addr
	local   net.Addr
	enc     *blockEncoder // guarded by the sender's lock
	ctx     context.Context
	wg      sync.WaitGroup
}

// NewServerConn does the TLS handshake on sock and says hello. Run has to be called next; it owns
// the connection from then on. If an error is returned, sock is closed.
func NewServerConn(ctx context.Context, sock net.Conn, tlsConfig *tls.Config, cfg Config, h Handler) (*ServerConn, error) {
	cfg = cfg.withDefaults()
	born := time.Now()
	ctx, cancel := context.WithTimeout(ctx, cfg.HandshakeTimeout)
	defer cancel()
	under, hold := underTLS(sock)
	t := tls.Server(hold, tlsConfig)
	if err := shakeHands(ctx, t, sock); err != nil {
		return nil, err
	}
	c := newConn(t, under, hold, cfg, true)
	c.born = born
	sc := &ServerConn{c: c, handler: h, state: t.ConnectionState(), remote: sock.RemoteAddr(), local: sock.LocalAddr(), enc: newBlockEncoder()}
	c.headers = sc.onHeaders
	c.post(c.greeting(nil))
	return sc, nil
}

// PeerState is what TLS knows of the peer.
func (sc *ServerConn) PeerState() tls.ConnectionState { return sc.state }

// Drain lets the streams end and takes no new ones.
func (sc *ServerConn) Drain() { sc.c.drain() }

// Close ends the connection and its streams at once, with a reason for the peer.
func (sc *ServerConn) Close(reason string) { sc.c.shutdown(reason) }

// Run serves the connection until it has ended and every handler has returned. It
// returns why it ended; ErrClosed when that was intended.
func (sc *ServerConn) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer sc.wg.Wait()
	defer cancel()
	sc.ctx = ctx
	return sc.c.run(ctx, &sc.state)
}

// What streams that come to nothing take from their peer's budget.
const (
	costRefused   = 2 // beyond the limit
	costMalformed = 1
	costLate      = 1 // trailers of a stream that has ended
)

func (sc *ServerConn) onHeaders(id uint32, h *header, endStream bool) (cost float64, err error) {
	c := sc.c
	c.mu.Lock()
	if s := c.streams[id]; s != nil || id <= c.lastPeerID {
		c.mu.Unlock()
		return sc.trailers(s, h, endStream)
	}
	c.lastPeerID = id
	// Handlers of streams that were reset may take a while to return; a peer cannot
	// know how long, but does not get to start any number of them either.
	if c.draining || len(c.streams) >= c.cfg.MaxStreams || c.running >= 2*c.cfg.MaxStreams {
		c.mu.Unlock()
		c.post(h2wire.AppendRSTStream(nil, id, CodeRefusedStream))
		return costRefused, nil
	}
	s := newStream(c, id)
	c.processed = id
	c.running++
	c.registerLocked(s)
	c.mu.Unlock()
	if endStream {
		s.remoteEnd()
	}
	status, reason := refusal(h, c.cfg.Protocol)
	if status != 0 {
		cost = costMalformed
	}
	in := &Incoming{Authority: h.authority, Protocol: h.protocol, Path: h.path, Fields: h.fields, Peer: &sc.state, RemoteAddr: sc.remote, LocalAddr: sc.local, sc: sc, s: s}
	sc.wg.Add(1)
	go func() {
		defer sc.wg.Done()
		defer sc.handled(s)
		if status != 0 {
			in.Refuse(status, reason)
			return
		}
		sc.handler(sc.ctx, in)
	}()
	return cost, nil
}

// refusal answers what is not a CONNECT, or one of another protocol than is taken:
// status 0 means that it is one.
func refusal(h *header, protocol string) (status int, reason string) {
	switch {
	case h.tooLarge:
		return 431, ProxyStatus("http_request_error", "header fields too large")
	case h.status != "":
		return 400, ProxyStatus("http_request_error", "malformed: pseudo-header field :status")
	case h.malformed != "":
		return 400, ProxyStatus("http_request_error", "malformed: "+h.malformed)
	case h.method != "CONNECT":
		return 400, ProxyStatus("http_request_error", "method must be CONNECT")
	case h.authority == "":
		return 400, ProxyStatus("http_request_error", "no authority")
	}
	if reason := h.connectMalformed(); reason != "" {
		return 400, ProxyStatus("http_request_error", "malformed: "+reason)
	}
	if h.protocol != "" && h.protocol != protocol {
		return 501, ProxyStatus("http_request_error", "no such protocol here")
	}
	return 0, ""
}

// trailers handles HEADERS on a stream that is or was open.
func (sc *ServerConn) trailers(s *Stream, h *header, endStream bool) (cost float64, err error) {
	switch {
	case s == nil && h.method == "" && endStream:
		return costLate, nil // sent before the peer knew that the stream has ended
	case s == nil:
		return 0, connError(CodeStreamClosed, "HEADERS on a closed stream")
	case !endStream:
		s.reset(CodeProtocol)
	default:
		s.remoteEnd()
	}
	return 0, nil
}

// handled ends the stream after its handler, if nothing else has.
func (sc *ServerConn) handled(s *Stream) {
	s.reset(CodeCancel)
	c := sc.c
	c.mu.Lock()
	c.running--
	last := c.leftLocked()
	c.mu.Unlock()
	if last {
		c.endInPeace()
	}
}

// respond sends the answer. It waits for a peer that reads slowly.
func (sc *ServerConn) respond(s *Stream, status int, end bool, fields []Field) error {
	return sc.c.out.open(true, func(b []byte) ([]byte, error) {
		b, err := sc.enc.headersFrame(b, s.id, end, []Field{{Name: ":status", Value: strconv.Itoa(status)}}, fields)
		if err == nil && !end {
			err = s.accept()
		}
		return b, err
	})
}

func (sc *ServerConn) refuse(s *Stream, status int, proxyStatus string) {
	var fields []Field
	if proxyStatus != "" {
		fields = append(fields, Field{Name: "proxy-status", Value: proxyStatus})
	}
	if !s.finish(&RefusedError{Status: status, ProxyStatus: proxyStatus}) {
		return
	}
	// RFC 9113 section 8.1: what the peer still sends is of no interest.
	code := CodeNo
	if err := sc.respond(s, status, true, fields); err != nil {
		code = CodeInternal
	}
	sc.c.out.last(s, h2wire.AppendRSTStream(nil, s.id, code))
}

// ProxyStatus formats a Proxy-Status field (RFC 9209) of this proxy.
func ProxyStatus(errorType, details string) string {
	return "ambit; error=" + errorType + "; details=" + sfString(details)
}

// sfString quotes a string for a structured field (RFC 8941 section 3.3.3), which
// holds printable ASCII only.
func sfString(s string) string {
	b := make([]byte, 0, len(s)+2)
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c < 0x20 || c >= 0x7f:
			b = append(b, '?')
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		default:
			b = append(b, c)
		}
		if len(b) > 1024 {
			break
		}
	}
	return string(append(b, '"'))
}
