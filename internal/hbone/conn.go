package hbone

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/internal/h2wire"
	"github.com/ambit-mesh/ambit/internal/linger"
)

// initialStreams is how many streams are opened before the peer has said how many
// it takes; RFC 9113 section 6.5.2 asks for no less.
const initialStreams = 100

// secured is the TLS layer.
type secured interface {
	net.Conn
	// CloseWrite says that nothing more will be sent.
	CloseWrite() error
}

// conn is what both ends of a tunnel connection have in common.
type conn struct {
	cfg    Config
	tls    secured
	under  *rawConn // below the TLS layer
	out    *sender
	bye    *linger.Linger // closes the socket
	server bool
	born   time.Time // when the handshake began
	// headers handles a complete header block and says what that takes from the
	// peer's budget. Called by the read loop.
	headers func(stream uint32, h *header, endStream bool) (cost float64, err error)

	// Written by the read loop, read elsewhere too.
	lastRead  atomic.Int64 // unix nanoseconds of the last frame
	recvAvail atomic.Int64 // bytes that the peer may still send on the connection
	recvFreed atomic.Int64 // bytes taken by readers and not yet given back to the peer

	// spare is how much all streams' windows together may still grow by, in bytes.
	spare atomic.Int64

	mu           sync.Mutex
	streams      map[uint32]*Stream // guarded by mu
	sendWindow   int64              // guarded by mu
	peerWindow   int64              // initial window of new streams; guarded by mu
	peerMaxFrame int                // guarded by mu
	peerStreams  int                // peer's limit of our streams; guarded by mu
	lastPeerID   uint32             // highest stream the peer named; guarded by mu
	processed    uint32             // highest stream of the peer that was not refused; guarded by mu
	nextID       uint32             // next stream that we open; guarded by mu
	running      int                // server: handlers that have not returned; guarded by mu
	leaving      bool               // the peer was told to open no more streams; guarded by mu
	draining     bool               // no new streams; guarded by mu
	idleSince    time.Time          // zero while there are streams; guarded by mu
	pingSent     time.Time          // guarded by mu
	writeErr     error              // why writing failed; guarded by mu
	err          error              // why it ended; guarded by mu
	done         chan struct{}      // closed with err
	settings     chan struct{}      // closed by the first SETTINGS
	hungUp       chan struct{}      // closed when nothing more will be written
	emptied      chan struct{}      // closed when it has ended, and the last stream too
}

func newConn(t secured, under *rawConn, hold *coalescer, cfg Config, server bool) *conn {
	now := time.Now()
	c := &conn{
		cfg: cfg, tls: t, under: under, server: server, born: now,
		streams: make(map[uint32]*Stream), sendWindow: h2wire.DefaultWindow, peerWindow: h2wire.DefaultWindow,
		peerMaxFrame: h2wire.MinMaxFrame, peerStreams: min(cfg.MaxStreams, initialStreams), nextID: 1, idleSince: now,
		done: make(chan struct{}), settings: make(chan struct{}), hungUp: make(chan struct{}), emptied: make(chan struct{}),
	}
	c.out = newSender(t, hold, c.writeFailed)
	c.bye = linger.New(under.Conn, closeTimeout)
	c.recvAvail.Store(int64(cfg.ConnWindow))
	c.spare.Store(cfg.growth())
	c.lastRead.Store(now.UnixNano())
	return c
}

// greeting is the first thing either end sends, without the client's preface.
func (c *conn) greeting(b []byte) []byte {
	settings := append(make([]h2wire.Setting, 0, 6),
		h2wire.Setting{ID: h2wire.SettingEnablePush, Value: 0},
		h2wire.Setting{ID: h2wire.SettingMaxConcurrentStreams, Value: uint32(c.cfg.MaxStreams)},
		h2wire.Setting{ID: h2wire.SettingInitialWindowSize, Value: uint32(c.cfg.StreamWindow)},
		h2wire.Setting{ID: h2wire.SettingMaxFrameSize, Value: ourMaxFrame},
		h2wire.Setting{ID: h2wire.SettingMaxHeaderListSize, Value: uint32(c.cfg.MaxHeaderBytes)},
	)
	if c.server && c.cfg.Protocol != "" {
		settings = append(settings, h2wire.Setting{ID: h2wire.SettingEnableConnectProtocol, Value: 1})
	}
	b = h2wire.AppendSettings(b, settings...)
	return h2wire.AppendWindowUpdate(b, 0, c.cfg.ConnWindow-h2wire.DefaultWindow)
}

// run reads until the connection has ended, its socket is closed, and applications
// have what streams brought that were complete by then. It returns why it ended;
// ErrClosed when that was intended.
func (c *conn) run(ctx context.Context, peer *tls.ConnectionState) error {
	if c.cfg.Watch != nil {
		defer c.cfg.Watch(peer.PeerCertificates, func(err error) { c.shutdown(err.Error()) })()
	}
	stop := context.AfterFunc(ctx, func() { c.shutdown("closing") })
	defer stop()
	late := time.AfterFunc(time.Until(c.born.Add(c.cfg.HandshakeTimeout)), c.checkGreeted)
	defer late.Stop()
	var wg sync.WaitGroup
	wg.Go(c.keepAlive)
	c.end(c.failure(c.readLoop()))
	<-c.hungUp
	b := takeBuffer()
	c.bye.Close(*b)
	giveBuffer(b)
	wg.Wait()
	<-c.emptied
	return c.reason()
}

// writeFailed ends the connection after a write did. The peer's reason may be
// waiting to be read, as an alert or a GOAWAY; it is a better one.
func (c *conn) writeFailed(err error) {
	var cerr *ConnError
	if errors.As(err, &cerr) {
		c.end(err)
		return
	}
	c.mu.Lock()
	c.draining, c.writeErr = true, err
	c.mu.Unlock()
	_ = c.under.SetReadDeadline(time.Now().Add(closeTimeout))
}

// failure says what it means that reading ended with err.
func (c *conn) failure(err error) error {
	var cerr *ConnError
	c.mu.Lock()
	werr := c.writeErr
	left, streams := c.leaving || c.draining, slices.Collect(maps.Values(c.streams))
	c.mu.Unlock()
	for _, s := range streams {
		left = left && s.complete()
	}
	switch {
	case errors.As(err, &cerr):
		return err
	case err == io.EOF && left:
		return ErrClosed
	case werr != nil && errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("tunnel connection: %w", werr)
	case err == io.EOF:
		err = fmt.Errorf("tunnel connection closed by peer: %w", io.ErrUnexpectedEOF)
	default:
		err = fmt.Errorf("tunnel connection: %w", err)
	}
	select {
	case <-c.settings:
		return err
	default:
		// A peer that refuses our certificate says so when for us the handshake of
		// TLS 1.3 is done already.
		return &HandshakeError{Err: err}
	}
}

// reason is why the connection ended.
func (c *conn) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// checkGreeted ends a connection whose peer has not said hello by now.
func (c *conn) checkGreeted() {
	select {
	case <-c.settings:
	default:
		c.end(connError(CodeSettingsTimeout, "no SETTINGS within %s", c.cfg.HandshakeTimeout))
	}
}

// keepAlive runs until the connection ends.
func (c *conn) keepAlive() {
	tick := time.NewTicker(c.cfg.PingInterval)
	defer tick.Stop()
	for {
		select {
		case <-c.done:
			return
		case now := <-tick.C:
			c.checkAlive(now)
		}
	}
}

// checkAlive pings, and ends the connection when the peer has been silent for too
// long or nothing used it.
func (c *conn) checkAlive(now time.Time) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	idle := c.cfg.IdleTimeout
	if c.server {
		idle *= 2
	}
	if !c.idleSince.IsZero() && now.Sub(c.idleSince) > idle {
		c.draining = true // who comes now goes elsewhere
		c.mu.Unlock()
		c.shutdown("idle")
		return
	}
	silent := !c.pingSent.IsZero() && time.Unix(0, c.lastRead.Load()).Before(c.pingSent)
	if silent && now.Sub(c.pingSent) >= c.cfg.PingTimeout {
		c.mu.Unlock()
		c.end(connError(CodeNo, "no answer to PING for %s", c.cfg.PingTimeout))
		return
	}
	if !silent {
		c.pingSent = now
	}
	c.mu.Unlock()
	c.post(h2wire.AppendPing(nil, 0, [8]byte{'a', 'm', 'b', 'i', 't'}))
}

// post sends control frames without ever waiting for the peer, as the read loop
// must: two ends that wait to write while neither reads would wait for ever.
func (c *conn) post(frames []byte) {
	if len(frames) > 0 {
		c.out.post(frames)
	}
}

// leaveTimeout is how long a peer has to see that it is to open no more streams.
const leaveTimeout = 3 * time.Second

// leavePing is the PING whose answer proves that the peer has seen our GOAWAY.
var leavePing = [8]byte{'l', 'e', 'a', 'v', 'e'}

// drain tells the peer to open no more streams here, and closes the connection
// when the last one has ended. A server goes on taking those that are under way
// until the peer must have heard of it, RFC 9113 section 6.8.
func (c *conn) drain() {
	c.mu.Lock()
	if c.draining || c.leaving {
		c.mu.Unlock()
		return
	}
	c.leaving = true
	c.mu.Unlock()
	if !c.server {
		c.lastCall()
		return
	}
	c.post(h2wire.AppendPing(h2wire.AppendGoAway(nil, h2wire.MaxWindow, CodeNo, "draining"), 0, leavePing))
	// Who is gone does not hold it up.
	time.AfterFunc(leaveTimeout, c.lastCall)
}

// lastCall ends the wait of drain.
func (c *conn) lastCall() {
	c.mu.Lock()
	if c.draining || !c.leaving {
		c.mu.Unlock()
		return
	}
	c.draining = true
	last, empty := c.processed, len(c.streams) == 0 && c.running == 0
	c.mu.Unlock()
	c.post(h2wire.AppendGoAway(nil, last, CodeNo, "draining"))
	if empty {
		c.endInPeace()
	}
}

// aloneStreams is up to how many streams a connection counts as quiet, see readFD.
const aloneStreams = 2

// registerLocked makes a stream known; the caller holds mu.
func (c *conn) registerLocked(s *Stream) {
	s.sendWindow = c.peerWindow
	c.streams[s.id] = s
	c.idleSince = time.Time{}
	c.under.alone.Store(len(c.streams) <= aloneStreams)
}

// forget removes an ended stream.
func (c *conn) forget(s *Stream) {
	c.mu.Lock()
	delete(c.streams, s.id)
	c.under.alone.Store(len(c.streams) <= aloneStreams)
	c.emptyLocked()
	last := c.leftLocked()
	c.mu.Unlock()
	if last {
		c.endInPeace()
	}
}

// emptyLocked notes whether the connection and all its streams have ended. The caller
// holds mu.
func (c *conn) emptyLocked() {
	if c.err == nil || len(c.streams) > 0 {
		return
	}
	select {
	case <-c.emptied:
	default:
		close(c.emptied)
	}
}

// leftLocked notes that something ended and reports whether the connection was
// only waiting for that.
func (c *conn) leftLocked() (last bool) {
	if len(c.streams) > 0 || c.running > 0 || c.err != nil {
		return false
	}
	c.idleSince = time.Now()
	return c.draining
}

// grow takes from spare what a stream's window is to grow by. One stream gets no more
// than half of what is left, so that something is left for the others.
func (c *conn) grow(n int) bool {
	for {
		spare := c.spare.Load()
		if int64(n) > spare/2 {
			return false
		}
		if c.spare.CompareAndSwap(spare, spare-int64(n)) {
			return true
		}
	}
}

// consumed gives n bytes of connection window back to the peer, in large steps.
func (c *conn) consumed(n int) {
	if freed := c.recvFreed.Add(int64(n)); freed >= int64(c.cfg.ConnWindow/4) {
		if freed = c.recvFreed.Swap(0); freed > 0 {
			c.recvAvail.Add(freed)
			c.post(h2wire.AppendWindowUpdate(nil, 0, int(freed)))
		}
	}
}

// underTLS prepares a socket to carry TLS for a conn.
func underTLS(sock net.Conn) (*rawConn, *coalescer) {
	under := newRawConn(sock)
	return under, &coalescer{Conn: under}
}
