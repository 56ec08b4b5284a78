package http2

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"

	"github.com/ambit-mesh/ambit/internal/h2wire"
	"github.com/ambit-mesh/ambit/internal/http2/hpack"
	"github.com/ambit-mesh/ambit/internal/message"
)

// ClientConn is a connection that sends requests.
type ClientConn struct {
	c      conn
	wg     sync.WaitGroup // uploads
	claims int            // streams that are about to be opened; guarded by c.mu
}

// NewClientConn makes a connection for requests to the other end of conn. Run owns
// conn from when it is called.
func NewClientConn(nc net.Conn, cfg Config) *ClientConn {
	cc := &ClientConn{}
	cc.c.init(nc, cfg.withDefaults(false))
	cc.c.pending = cc.c.greeting()
	return cc
}

// Run serves the connection until it ends, and returns why; ErrClosed when that was
// intended by ctx, Drain, Close, an idle timeout, or a server that has told before
// that it leaves.
func (cc *ClientConn) Run(ctx context.Context) error {
	defer cc.wg.Wait()
	return cc.c.run(ctx, newReader(&cc.c))
}

// Done is closed when the connection has ended.
func (cc *ClientConn) Done() <-chan struct{} { return cc.c.done }

// Drain lets the exchanges that are under way end and takes no new ones.
func (cc *ClientConn) Drain() { cc.c.drain() }

// Close ends the connection and its exchanges at once.
func (cc *ClientConn) Close() { cc.c.shutdown() }

// Streams is how many exchanges are under way.
func (cc *ClientConn) Streams() int {
	cc.c.mu.Lock()
	defer cc.c.mu.Unlock()
	return len(cc.c.streams) + cc.claims
}

// Room is how many more streams may be opened now.
func (cc *ClientConn) Room() int {
	cc.c.mu.Lock()
	defer cc.c.mu.Unlock()
	if cc.c.draining || cc.c.nextID > h2wire.MaxWindow {
		return 0
	}
	return max(0, cc.c.peerStreams-len(cc.c.streams)-cc.claims)
}

// clientStream is one request and its answer. All but the request is guarded by the
// connection's mu.
type clientStream struct {
	stream
	req         *message.Request
	head        *message.Response
	informs     []inform // not handed out yet
	sentAt      int64    // what c.handed must exceed for the request to have left
	unprocessed bool     // the peer has said so
	goOn        bool     // the peer wants the body: 100 (Continue)
	uploading   bool
	unwatch     func() bool // stops looking after the end of the caller's context
}

type inform struct {
	status int
	fields message.Fields
}

// RoundTrip sends a request and waits for the head of its answer. When ctx ends,
// also later, the exchange does. An error is always a *message.ExchangeError; where it is
// Unread, req has a body that is whole.
func (cc *ClientConn) RoundTrip(ctx context.Context, req *message.Request, informer message.Informer) (*message.Response, error) {
	fail := func(stage message.Stage, err error) error {
		return &message.ExchangeError{Stage: stage, Reused: cc.reused(), Unread: stage == message.Unprocessed, Err: err}
	}
	if err := ctx.Err(); err != nil {
		return nil, fail(message.Aborted, err)
	}
	if err := checkRequest(req); err != nil {
		return nil, fail(message.Unprocessed, err)
	}
	if err := cc.claim(ctx, req); err != nil {
		if ctx.Err() != nil {
			return nil, fail(message.Aborted, err)
		}
		return nil, fail(message.Unprocessed, err)
	}
	b, err := firstOf(req)
	if err != nil {
		cc.unclaim()
		return nil, fail(message.Aborted, err)
	}
	s := &clientStream{req: req}
	s.client, s.lastAt, s.body.ctx = s, -1, ctx
	if err := cc.open(s, b); err != nil {
		b.giveBack(req)
		return nil, fail(message.Unprocessed, err)
	}
	return s.await(ctx, informer)
}

func (cc *ClientConn) reused() bool {
	cc.c.mu.Lock()
	defer cc.c.mu.Unlock()
	return cc.c.nextID > 1
}

// checkRequest makes sure that a request can be sent and says nothing that it does
// not mean.
func checkRequest(req *message.Request) error {
	connect := req.Method == "CONNECT"
	switch {
	case !validToken(req.Method):
		return malformed("method %q", req.Method)
	case !validAuthority(req.Authority):
		return malformed("authority %q", req.Authority)
	case connect && req.Protocol == "":
	case req.Protocol != "" && !validToken(req.Protocol):
		return malformed("protocol %q", req.Protocol)
	case req.Scheme != "http" && req.Scheme != "https":
		return malformed("scheme %q", req.Scheme)
	case !validPath(req.Path) || req.Path == "*" && req.Method != "OPTIONS":
		return malformed("path %q", req.Path)
	}
	return checkFields(req.Fields)
}

// claim makes sure that there is room for a stream before the body is touched.
func (cc *ClientConn) claim(ctx context.Context, req *message.Request) error {
	c := &cc.c
	if req.Protocol != "" && !isClosed(c.greeted) {
		// What the peer can is not known before its SETTINGS, RFC 8441 section 3.
		select {
		case <-c.greeted:
		case <-c.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return c.err
	case c.draining || c.nextID > h2wire.MaxWindow:
		return c.departureLocked()
	case len(c.streams)+cc.claims >= c.peerStreams:
		return errFull
	case len(c.pending) >= maxBacklog:
		return errSlow
	case req.Protocol != "" && !c.peerConnect:
		return errNoConnect
	}
	cc.claims++
	return nil
}

func (cc *ClientConn) unclaim() {
	cc.c.mu.Lock()
	defer cc.c.mu.Unlock()
	cc.claims--
}

// open sends the head of a request and as much of its body as is there. With an error b is
// still the caller's.
func (cc *ClientConn) open(s *clientStream, b beginning) error {
	c := &cc.c
	c.mu.Lock()
	defer c.mu.Unlock()
	cc.claims--
	if c.draining || c.nextID > h2wire.MaxWindow {
		if c.err != nil {
			return c.err
		}
		return c.departureLocked()
	}
	s.id = c.nextID
	c.nextID += 2
	s.expect = -1
	s.sentAt = c.handed + int64(len(c.pending))
	waitChan(&s.readWake)
	c.addLocked(&s.stream)
	s.requestLocked(b.none)
	s.beginWindowLocked()
	rest := s.dataLocked(b.data)
	switch {
	case b.none:
		s.sendEndLocked()
	case b.whole && len(rest) == 0 && len(b.trailers) > 0:
		s.trailersFrameLocked(b.trailers)
	case b.whole && len(rest) == 0:
		s.endFrameLocked()
	default:
		cc.uploadLocked(s, b, rest)
		c.kickLocked()
		return nil
	}
	b.release()
	c.kickLocked()
	return nil
}

// uploadLocked starts to send the rest of a body.
func (cc *ClientConn) uploadLocked(s *clientStream, b beginning, rest []byte) {
	s.uploading = true
	cc.wg.Go(func() { s.upload(b, rest) })
}

// requestLocked appends the HEADERS of a request, RFC 9113 section 8.3.1.
func (s *clientStream) requestLocked(end bool) {
	c, req := s.c, s.req
	at := c.beginBlockLocked()
	method := req.Method
	if req.Protocol != "" {
		method = "CONNECT" // an upgrade in HTTP/1.1 is a GET
	}
	c.fieldLocked(":method", method)
	if method != "CONNECT" || req.Protocol != "" {
		c.fieldLocked(":scheme", req.Scheme)
		c.fieldLocked(":path", req.Path)
	}
	c.fieldLocked(":authority", req.Authority)
	if req.Protocol != "" {
		c.fieldLocked(":protocol", req.Protocol)
	}
	if req.ContentLength > 0 || req.ContentLength == 0 && !end && !req.Tunnel() {
		c.fieldLocked("content-length", strconv.FormatInt(req.ContentLength, 10))
	}
	if req.Continue && !end {
		c.fieldLocked("expect", "100-continue")
	}
	c.fieldsLocked(req.Fields)
	c.endBlockLocked(at, s.id, end)
}

// costInterim is what an answer before the answer takes from the peer's budget, and
// maxInforms how many are kept for a caller that does not take them.
const (
	costInterim = 1
	maxInforms  = 16
)

// headLocked takes a header block before the body.
func (s *clientStream) headLocked(fields []hpack.Field, excess hpack.Excess, end bool) error {
	if excess != hpack.Within {
		return s.violatedLocked(h2wire.CodeProtocol, "header fields too large")
	}
	resp, reason := parseResponse(fields, end, s.req.Method)
	if reason != "" {
		return s.violatedLocked(h2wire.CodeProtocol, reason)
	}
	defer wake(s.sendWake) // an upload may have waited for it
	if resp.Status < 200 {
		s.goOn = s.goOn || resp.Status == 100
		if len(s.informs) < maxInforms {
			s.informs = append(s.informs, inform{resp.Status, resp.Fields})
		}
		return s.c.spendLocked(costInterim)
	}
	switch {
	case s.req.Tunnel() && resp.Status/100 == 2:
		s.tunnel = true
		resp.Protocol, resp.ContentLength = s.req.Protocol, -1
	case bodiless(s.req.Method, resp.Status):
		if s.expect = 0; end {
			s.expect = -1
		}
	default:
		s.expect = resp.ContentLength
	}
	s.head = resp
	if end {
		s.recvEndLocked()
	} else {
		resp.Body = &s.body
	}
	return nil
}

// await waits for the head of the answer.
func (s *clientStream) await(ctx context.Context, informer message.Informer) (*message.Response, error) {
	c := s.c
	for {
		c.mu.Lock()
		informs, head, err := s.informs, s.head, s.err
		s.informs = nil
		if head != nil {
			s.watchLocked(ctx)
		} else if err != nil {
			err = s.failureLocked()
		}
		c.mu.Unlock()
		if informer != nil {
			for _, i := range informs {
				informer(i.status, i.fields)
			}
		}
		switch {
		case head != nil:
			return head, nil
		case err != nil:
			return nil, err
		}
		select {
		case <-s.readWake:
		case <-ctx.Done():
			s.abort(ctx.Err())
		}
	}
}

// watchLocked ends an exchange that goes on after its head when ctx ends.
func (s *clientStream) watchLocked(ctx context.Context) {
	if !s.gone && ctx.Done() != nil {
		s.unwatch = context.AfterFunc(ctx, func() { s.abort(ctx.Err()) })
	}
}

// abort gives the exchange up.
func (s *clientStream) abort(err error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.abortLocked(h2wire.CodeCancel, err)
}

func (s *clientStream) abortLocked(code ErrCode, err error) {
	s.resetLocked(code, &message.ExchangeError{Stage: message.Aborted, Reused: s.id > 1, Err: err})
}

// failureLocked says how far a request got that has no answer.
func (s *clientStream) failureLocked() error {
	if e, ok := s.err.(*message.ExchangeError); ok {
		return e
	}
	e := &message.ExchangeError{Stage: message.Sent, Reused: s.id > 1, Err: s.err}
	var reset *ResetError
	if s.unprocessed || s.sentAt >= s.c.handed || errors.As(s.err, &reset) && reset.Code == h2wire.CodeRefusedStream {
		e.Stage = message.Unprocessed
	}
	return e
}

// leftLocked is called when the stream is over.
func (s *clientStream) leftLocked() {
	if s.unwatch != nil {
		s.unwatch()
		s.unwatch = nil
	}
	if s.uploading && s.err != nil {
		// It may be waiting in Read.
		s.uploading = false
		if s.req.Body != nil {
			go s.req.Body.Close()
		}
	}
}
