package hbone

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// closeTimeout bounds saying goodbye to a peer that takes nothing.
const closeTimeout = 100 * time.Millisecond

// conn is what both ends of a tunnel connection have in common.
type conn struct {
	cfg    Config
	tls    *tls.Conn
	under  *rawConn // below the TLS layer
	out    *sender
	server bool
	// headers handles a complete header block. Called by the read loop.
	headers func(stream uint32, h *header, endStream bool) error

	// Written by the read loop, read elsewhere too.
	lastRead  atomic.Int64 // unix nanoseconds of the last frame
	recvAvail atomic.Int64 // bytes that the peer may still send on the connection
	recvFreed atomic.Int64 // bytes taken by readers and not yet given back to the peer

	mu            sync.Mutex
	streams       map[uint32]*Stream // guarded by mu
	sendWindow    int64              // guarded by mu
	peerWindow    int64              // initial window of new streams; guarded by mu
	peerMaxFrame  int                // guarded by mu
	peerStreams   int                // peer's limit of our streams; guarded by mu
	lastPeerID    uint32             // highest stream the peer opened; guarded by mu
	nextID        uint32             // next stream that we open; guarded by mu
	running       int                // server: handlers that have not returned; guarded by mu
	draining      bool               // no new streams; guarded by mu
	idleSince     time.Time          // zero while there are streams; guarded by mu
	err           error              // why it ended; guarded by mu
	done          chan struct{}      // closed with err
	settings      chan struct{}      // closed by the first SETTINGS
	settingsOnce  sync.Once
	pingSent      time.Time    // guarded by mu
	flooded       atomic.Int32 // streams beyond the limit
	onIdleOrEnded func()       // called without mu when a stream left; may be nil
}

func newConn(t *tls.Conn, under *rawConn, hold *coalescer, cfg Config, server bool) *conn {
	c := &conn{
		cfg: cfg, tls: t, under: under, out: newSender(t, hold), server: server,
		streams: make(map[uint32]*Stream), sendWindow: defaultWindow, peerWindow: defaultWindow,
		peerMaxFrame: minMaxFrame, peerStreams: cfg.MaxStreams, nextID: 1, idleSince: time.Now(),
		done: make(chan struct{}), settings: make(chan struct{}),
	}
	c.recvAvail.Store(int64(cfg.ConnWindow))
	c.lastRead.Store(time.Now().UnixNano())
	return c
}

// greeting is the first thing either end sends, without the client's preface.
func (c *conn) greeting(b []byte) []byte {
	b = appendSettings(b,
		setting{settingEnablePush, 0},
		setting{settingMaxConcurrentStreams, uint32(c.cfg.MaxStreams)},
		setting{settingInitialWindowSize, uint32(c.cfg.StreamWindow)},
		setting{settingMaxFrameSize, ourMaxFrame},
		setting{settingMaxHeaderListSize, uint32(c.cfg.MaxHeaderBytes)},
	)
	return appendWindowUpdate(b, 0, c.cfg.ConnWindow-defaultWindow)
}

// run reads until the connection ends and cleans up. It returns why it ended;
// ErrClosed when that was intended.
func (c *conn) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.end(ErrClosed) })
	defer stop()
	go c.keepAlive()
	c.end(c.readLoop())
	return c.reason()
}

// reason is why the connection ended.
func (c *conn) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
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
		c.mu.Unlock()
		c.shutdown(CodeNo, "idle")
		return
	}
	last := time.Unix(0, c.lastRead.Load())
	if !c.pingSent.IsZero() && last.Before(c.pingSent) && now.Sub(c.pingSent) >= c.cfg.PingTimeout {
		c.mu.Unlock()
		c.end(connError(CodeNo, "no answer to PING for %s", c.cfg.PingTimeout))
		return
	}
	if c.pingSent.IsZero() || last.After(c.pingSent) {
		c.pingSent = now
	}
	c.mu.Unlock()
	c.post(appendPing(nil, 0, [8]byte{'a', 'm', 'b', 'i', 't'}))
}

// post sends control frames without ever waiting for the peer, as the read loop
// must: two ends that wait to write while neither reads would wait for ever.
func (c *conn) post(frames []byte) {
	if len(frames) > 0 {
		c.out.post(frames)
	}
}

// shutdown says goodbye and ends the connection, as intended by us.
func (c *conn) shutdown(code ErrCode, debug string) {
	c.mu.Lock()
	last := c.lastPeerID
	c.mu.Unlock()
	c.post(appendGoAway(nil, last, code, debug))
	c.end(ErrClosed)
}

// end fails every stream and closes the socket. The first reason counts.
func (c *conn) end(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	c.draining = true
	streams, last := c.streams, c.lastPeerID
	c.streams = nil
	close(c.done)
	c.mu.Unlock()

	var cerr *ConnError
	if errors.As(err, &cerr) && cerr.Code != CodeNo {
		c.out.post(appendGoAway(nil, last, cerr.Code, cerr.Reason))
	}
	// A peer that reads nothing does not hold up the end.
	_ = c.under.SetWriteDeadline(time.Now().Add(closeTimeout))
	c.out.fail(err, func(broken bool) {
		if broken {
			_ = c.under.Close()
		} else {
			_ = c.tls.Close()
		}
	})
	for _, s := range streams {
		s.finish(err)
	}
	if c.onIdleOrEnded != nil {
		c.onIdleOrEnded()
	}
}

// drain tells the peer to open no more streams here, and closes the connection
// when the last one has ended.
func (c *conn) drain() {
	c.mu.Lock()
	if c.draining {
		c.mu.Unlock()
		return
	}
	c.draining = true
	last, empty := c.lastPeerID, len(c.streams) == 0 && c.running == 0
	c.mu.Unlock()
	c.post(appendGoAway(nil, last, CodeNo, "draining"))
	if empty {
		c.end(ErrClosed)
	}
}

// register makes a stream known; the caller holds mu.
func (c *conn) registerLocked(s *Stream) {
	s.sendWindow = c.peerWindow
	c.streams[s.id] = s
	c.idleSince = time.Time{}
}

// forget removes an ended stream.
func (c *conn) forget(s *Stream) {
	c.mu.Lock()
	delete(c.streams, s.id)
	last := c.leftLocked()
	c.mu.Unlock()
	if last {
		c.end(ErrClosed)
	} else if c.onIdleOrEnded != nil {
		c.onIdleOrEnded()
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

// consumed gives n bytes of connection window back to the peer, in large steps.
func (c *conn) consumed(n int) {
	if freed := c.recvFreed.Add(int64(n)); freed >= int64(c.cfg.ConnWindow/4) {
		if freed = c.recvFreed.Swap(0); freed > 0 {
			c.recvAvail.Add(freed)
			c.post(appendWindowUpdate(nil, 0, int(freed)))
		}
	}
}

// underTLS prepares a socket to carry TLS for a conn.
func underTLS(sock net.Conn) (*rawConn, *coalescer) {
	under := newRawConn(sock)
	return under, &coalescer{Conn: under}
}
