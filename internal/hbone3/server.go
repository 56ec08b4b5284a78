package hbone3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// Handler decides about one incoming stream: it calls Accept or Refuse of in. The
// stream ends when it returns.
type Handler func(ctx context.Context, in *Incoming)

// Incoming is a CONNECT that waits for a decision.
type Incoming struct {
	// Authority, Protocol, Path, Fields, Peer and the addresses are those of
	// hbone.Incoming.
	Authority, Protocol, Path string
	Fields                    []hbone.Field
	Peer                      *tls.ConnectionState
	RemoteAddr, LocalAddr     net.Addr

	w        http.ResponseWriter
	s        *Stream
	own      *datagrams // nil where the library has them
	leave    func()     // of own; nil before Accept
	answered bool
}

// Stream is the stream, for watching or resetting it before it is accepted.
func (in *Incoming) Stream() *Stream { return in.s }

// Accept answers 200. The stream can be used from then on.
func (in *Incoming) Accept(fields ...hbone.Field) (*Stream, error) {
	if in.answered {
		return nil, errors.New("stream was answered before")
	}
	in.answered = true
	for _, f := range fields {
		in.w.Header().Add(f.Name, f.Value)
	}
	in.w.WriteHeader(http.StatusOK)
	s, err := in.w.(http3.HTTPStreamer).HTTPStream()
	if err != nil {
		return nil, mapped(err)
	}
	with, leave := in.own.join(s, s.StreamID())
	in.leave = leave
	in.s.taken(with)
	return in.s, nil
}

// Refuse answers with another status, and why (RFC 9209). A stream that was
// accepted is reset instead.
func (in *Incoming) Refuse(status int, proxyStatus string) {
	if in.answered {
		in.s.Reset(hbone.CodeCancel)
		return
	}
	in.answered = true
	if proxyStatus != "" {
		in.w.Header().Set("proxy-status", proxyStatus)
	}
	in.w.WriteHeader(status)
}

// ended makes sure that nothing is left open after the handler.
func (in *Incoming) ended() {
	if !in.answered {
		in.Refuse(http.StatusServiceUnavailable, "")
		return
	}
	if in.leave != nil {
		in.leave()
	}
	in.s.w.CancelRead(quic.StreamErrorCode(http3.ErrCodeConnectError))
	if !in.s.whole.Load() { // else what is on its way would be lost
		in.s.w.CancelWrite(quic.StreamErrorCode(http3.ErrCodeConnectError))
	}
}

// Server takes tunnels at one socket.
type Server struct {
	tr      *quic.Transport
	ln      *quic.Listener
	h3, own *http3.Server // the one has datagrams, the other leaves them to us
	handler Handler
	// maxHandlers bounds those of a connection. A stream that was reset makes room for
	// another one, while its handler may take a while to return.
	maxHandlers int64
	admit       *admission
	cfg         Config

	mu    sync.Mutex
	conns map[*quic.Conn]*datagrams // guarded by mu
}

// NewServer listens on sock, which it owns from then on. Run has to be called next.
func NewServer(sock net.PacketConn, tlsConfig *tls.Config, cfg Config, h Handler) (*Server, error) {
	cfg = cfg.withDefaults()
	s := &Server{cfg: cfg, handler: h, maxHandlers: 2 * int64(cfg.MaxStreams), conns: make(map[*quic.Conn]*datagrams)}
	// Peers that flood us with first packets, or have others flooded by our answers,
	// are asked to prove where they are.
	s.admit = newAdmission(cfg)
	s.tr = &quic.Transport{
		Conn: sock, ConnectionIDGenerator: cfg.ConnectionIDs, StatelessResetKey: cfg.ResetKey,
		VerifySourceAddress: s.admit.prove, ConnContext: s.admit.begin,
	}
	s.h3, s.own = s.http3Server(true), s.http3Server(false)
	var err error
	if s.ln, err = s.tr.Listen(tlsConfig, cfg.quic()); err != nil {
		_ = sock.Close()
		return nil, fmt.Errorf("listen for QUIC: %w", err)
	}
	return s, nil
}

func (s *Server) http3Server(datagrams bool) *http3.Server {
	return &http3.Server{
		Handler: http.HandlerFunc(s.serve), EnableDatagrams: datagrams, MaxHeaderBytes: maxHeaderBytes,
		// The client closes what is idle; this is for clients that do not.
		IdleTimeout: 2 * s.cfg.IdleTimeout,
		ConnContext: func(ctx context.Context, c *quic.Conn) context.Context {
			s.mu.Lock()
			defer s.mu.Unlock()
			return context.WithValue(ctx, connKey{}, &peer{Conn: c, own: s.conns[c]})
		},
		Logger: slog.New(slog.DiscardHandler),
	}
}

type connKey struct{}

// peer is a connection and how many handlers it has.
type peer struct {
	*quic.Conn
	own      *datagrams
	handlers atomic.Int64
}

// Run serves until ctx ends, and then closes everything and waits for the handlers.
func (s *Server) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for {
		c, err := s.ln.Accept(ctx)
		if err != nil {
			break
		}
		if h, ok := c.Context().Value(shakeKey{}).(*shake); ok {
			h.done()
		}
		own, h3 := newDatagrams(c, s.cfg.OnDropped), s.h3
		if own != nil {
			h3 = s.own
			wg.Go(own.run)
		}
		s.mu.Lock()
		s.conns[c] = own
		s.mu.Unlock()
		s.cfg.watch(c)
		wg.Go(func() {
			// Why a connection ended is its streams' to say.
			if err := h3.ServeQUICConn(c); errors.Is(err, http.ErrServerClosed) {
				_ = c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "closing") // it came too late
			}
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		})
	}
	<-ctx.Done()
	s.mu.Lock()
	for c := range s.conns {
		_ = c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "closing")
	}
	s.mu.Unlock()
	wg.Wait()
	_ = s.h3.Close()
	_ = s.own.Close()
	s.Close()
	return nil
}

// Close closes the socket, of a server that does not run or has.
func (s *Server) Close() {
	_ = s.tr.Close()
	_ = s.tr.Conn.Close()
}

// Drain lets connections end when their streams have, and takes no new ones: they are
// another process's at this port. It returns when all have ended or ctx has.
func (s *Server) Drain(ctx context.Context) {
	_ = s.ln.Close()
	s.shutdown(ctx)
}

// Leave is Drain where nobody takes over: who comes is refused at once, so that it
// need not find out that nobody answers.
func (s *Server) Leave(ctx context.Context) {
	s.admit.closed.Store(true)
	s.shutdown(ctx)
}

func (s *Server) shutdown(ctx context.Context) {
	var wg sync.WaitGroup
	for _, h3 := range []*http3.Server{s.h3, s.own} {
		wg.Go(func() { _ = h3.Shutdown(ctx) })
	}
	wg.Wait()
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	c, _ := r.Context().Value(connKey{}).(*peer)
	defer c.handlers.Add(-1)
	if c.handlers.Add(1) > s.maxHandlers {
		reject(w)
		return
	}
	in := &Incoming{
		Authority: r.Host, Fields: fields(r.Header), Peer: r.TLS, w: w,
		RemoteAddr: c.RemoteAddr(), LocalAddr: c.LocalAddr(), s: newPending(w), own: c.own,
	}
	if r.Proto != "HTTP/3.0" {
		in.Protocol, in.Path = r.Proto, r.URL.EscapedPath()
	}
	defer in.ended()
	if r.Method != http.MethodConnect {
		in.Refuse(http.StatusBadRequest, hbone.ProxyStatus("http_request_error", "method must be CONNECT"))
		return
	}
	s.handler(r.Context(), in)
}

// reject resets a stream that nothing was done about.
func reject(w http.ResponseWriter) {
	if h, ok := w.(http3.HTTPStreamer); ok {
		if s, err := h.HTTPStream(); err == nil {
			s.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestRejected))
			s.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestRejected))
		}
	}
}

// pending stands for a stream that is not accepted yet.
type pending struct {
	wire
	w http.ResponseWriter
}

// newPending makes a stream that can be reset before it is accepted: that is noted
// and happens when the handler returns.
func newPending(w http.ResponseWriter) *Stream { return &Stream{w: pending{w: w}} }

// taken puts the accepted stream in place.
func (s *Stream) taken(w wire) {
	s.mu.Lock()
	s.w = w
	err := s.err
	s.mu.Unlock()
	if err != nil {
		s.fail(err)
	}
}

// CancelRead and CancelWrite do nothing: there is no stream yet.
func (pending) CancelRead(quic.StreamErrorCode)  {}
func (pending) CancelWrite(quic.StreamErrorCode) {}
