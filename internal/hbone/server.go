package hbone

import (
	"context"
	"crypto/tls"
	"net"
	"strconv"
	"sync"
	"time"
)

// Handler decides about one incoming stream: it calls Accept or Refuse of in, and
// after Accept splices the stream. The stream ends when it returns.
type Handler func(ctx context.Context, in *Incoming)

// Incoming is a CONNECT that waits for a decision.
type Incoming struct {
	// Authority is the target, not yet parsed.
	Authority string
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

// Accept answers 200. The stream can be spliced from then on.
func (in *Incoming) Accept(fields ...Field) (*Stream, error) {
	in.s.mu.Lock()
	in.s.accepted = true
	in.s.mu.Unlock()
	if err := in.sc.respond(in.s, 200, false, fields); err != nil {
		return nil, err
	}
	return in.s, nil
}

// Refuse answers with another status, and why (RFC 9209).
func (in *Incoming) Refuse(status int, proxyStatus string) {
	var fields []Field
	if proxyStatus != "" {
		fields = append(fields, Field{Name: "proxy-status", Value: proxyStatus})
	}
	in.sc.refuse(in.s, status, fields)
}

// ServerConn is the side of a tunnel connection that accepts streams.
type ServerConn struct {
	c       *conn
	handler Handler
	state   tls.ConnectionState
	enc     *blockEncoder // guarded by the sender's lock
	ctx     context.Context
	wg      sync.WaitGroup
}

// NewServerConn does the TLS handshake on sock. Run has to be called next; it owns
// the connection from then on. If an error is returned, sock is closed.
func NewServerConn(ctx context.Context, sock net.Conn, tlsConfig *tls.Config, cfg Config, h Handler) (*ServerConn, error) {
	cfg = cfg.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, cfg.HandshakeTimeout)
	defer cancel()
	under, hold := underTLS(sock)
	t := tls.Server(hold, tlsConfig)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = sock.Close()
		return nil, &HandshakeError{Err: err}
	}
	state := t.ConnectionState()
	if state.NegotiatedProtocol != "h2" {
		_ = sock.Close()
		return nil, &HandshakeError{Err: connError(CodeProtocol, "peer offered no h2 (ALPN %q)", state.NegotiatedProtocol)}
	}
	c := newConn(t, under, hold, cfg, true)
	sc := &ServerConn{c: c, handler: h, state: state, enc: newBlockEncoder()}
	c.headers = sc.onHeaders
	return sc, nil
}

// PeerState is what TLS knows of the peer.
func (sc *ServerConn) PeerState() tls.ConnectionState { return sc.state }

// Drain lets the streams end and takes no new ones.
func (sc *ServerConn) Drain() { sc.c.drain() }

// Close ends the connection and its streams at once, with a reason for the peer.
func (sc *ServerConn) Close(reason string) { sc.c.shutdown(CodeNo, reason) }

// Run serves the connection until it has ended and every handler has returned. It
// returns why it ended; ErrClosed when that was intended.
func (sc *ServerConn) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer sc.wg.Wait()
	defer cancel()
	sc.ctx = ctx
	sc.c.post(sc.c.greeting(nil))
	late := time.AfterFunc(sc.c.cfg.HandshakeTimeout, func() {
		select {
		case <-sc.c.settings:
		default:
			sc.c.end(connError(CodeSettingsTimeout, "no SETTINGS within %s", sc.c.cfg.HandshakeTimeout))
		}
	})
	defer late.Stop()
	return sc.c.run(ctx)
}

func (sc *ServerConn) onHeaders(id uint32, h *header, endStream bool) error {
	c := sc.c
	c.mu.Lock()
	if s := c.streams[id]; s != nil || id <= c.lastPeerID {
		c.mu.Unlock()
		return sc.trailers(s, endStream)
	}
	c.lastPeerID = id
	s := newStream(c, id)
	refuse := c.draining || c.running >= c.cfg.MaxStreams
	if !refuse {
		c.running++
		c.registerLocked(s)
	}
	c.mu.Unlock()
	if refuse {
		c.post(appendRSTStream(nil, id, CodeRefusedStream))
		return sc.overLimit()
	}
	if endStream {
		s.remoteEnd()
	}
	in := &Incoming{Authority: h.authority, Fields: h.fields, Peer: &sc.state, RemoteAddr: c.under.RemoteAddr(), LocalAddr: c.under.LocalAddr(), sc: sc, s: s}
	sc.wg.Add(1)
	go func() {
		defer sc.wg.Done()
		defer sc.handled(s)
		if status, reason := refusal(h); status != 0 {
			in.Refuse(status, reason)
			return
		}
		sc.handler(sc.ctx, in)
	}()
	return nil
}

// refusal answers what is not a CONNECT: status 0 means it is one.
func refusal(h *header) (status int, reason string) {
	switch {
	case h.tooLarge:
		return 431, ProxyStatus("http_request_error", "header fields too large")
	case h.malformed != "":
		return 400, ProxyStatus("http_request_error", "malformed: "+h.malformed)
	case h.method != "CONNECT":
		return 400, ProxyStatus("http_request_error", "method must be CONNECT")
	case h.authority == "":
		return 400, ProxyStatus("http_request_error", "no authority")
	}
	return 0, ""
}

// trailers handles HEADERS on a stream that is or was open.
func (sc *ServerConn) trailers(s *Stream, endStream bool) error {
	switch {
	case s == nil:
		return connError(CodeStreamClosed, "HEADERS on a closed stream")
	case !endStream:
		s.reset(CodeProtocol)
	default:
		s.remoteEnd()
	}
	return nil
}

// overLimit charges a peer that does not keep to the limit it was told.
func (sc *ServerConn) overLimit() error {
	if sc.c.flooded.Add(1) > budgetBurst {
		return connError(CodeEnhanceYourCalm, "too many streams")
	}
	return nil
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
		c.end(ErrClosed)
	}
}

func (sc *ServerConn) respond(s *Stream, status int, end bool, fields []Field) error {
	return sc.c.out.open(func(b []byte) ([]byte, error) {
		return sc.enc.headersFrame(b, s.id, end, []Field{{Name: ":status", Value: strconv.Itoa(status)}}, fields)
	})
}

func (sc *ServerConn) refuse(s *Stream, status int, fields []Field) {
	if s.finish(&RefusedError{Status: status}) {
		// An error here is the connection's end, which everybody learns of.
		_ = sc.respond(s, status, true, fields)
		// RFC 9113 section 8.1: what the peer still sends is of no interest.
		sc.c.post(appendRSTStream(nil, s.id, CodeNo))
	}
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
