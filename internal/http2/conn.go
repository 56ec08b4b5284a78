package http2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/internal/h2wire"
	"github.com/ambit-mesh/ambit/internal/http2/hpack"
	"github.com/ambit-mesh/ambit/internal/linger"
)

// closeTimeout bounds saying goodbye to a peer that takes nothing, and then the wait for
// it to close too, where there is no reason to be patient.
const closeTimeout = 500 * time.Millisecond

// initialStreams is how many streams are opened before the peer has said how many
// it takes; RFC 9113 section 6.5.2 asks for no less.
const initialStreams = 100

// conn is what both ends have in common.
type conn struct {
	cfg     Config
	nc      net.Conn
	bye     *linger.Linger // closes nc
	server  *ServerConn    // nil in a client
	greeted chan struct{}  // closed by the first SETTINGS
	done    chan struct{}  // closed with err
	hungUp  chan struct{}  // closed when nothing more will be written
	read    atomic.Uint64  // reads that gave something
	written atomic.Uint64  // writes that ended

	budget h2wire.Budget // used by the read loop, with mu held

	mu           sync.Mutex // guards everything below
	streams      map[uint32]*stream
	past         past
	sendWindow   int64
	recvAvail    int // bytes that the peer may still send
	recvFreed    int // bytes that were taken and not yet given back
	grown        int // what the windows of streams have grown by, together
	usual        int // the window of the stream that was last seen to need a larger one, or less since readers lag
	peerWindow   int64
	peerMaxFrame int
	peerStreams  int     // how many streams we may open
	peerConnect  bool    // RFC 8441
	nextID       uint32  // the next stream that we open
	lastPeerID   uint32  // the highest stream that the peer has opened
	processed    uint32  // the highest of these that a handler got
	earned       float64 // what honest work has put into the budget since it was last looked at
	leaving      bool    // the peer was asked to open no more streams
	draining     bool    // no new streams
	goAway       error   // the peer's GOAWAY with an error
	writeErr     error
	err          error

	// Sending.
	enc           *hpack.Encoder
	pending       []byte
	spare         []byte
	batch         uint64 // counts what pending held
	handed        int64  // bytes that Write has been given
	room          sync.Cond
	writing       bool // somebody writes
	later         bool // a goroutine is about to
	reading       bool // the read loop is, when its batch is done
	broken, ended bool // nothing is written any more; hangUp was called

	// Kept by tick.
	idleTicks, silentTicks, stuckTicks, leaveTicks int
	lastRead, lastWritten                          uint64
	pinged                                         bool
}

func (c *conn) init(nc net.Conn, cfg Config) {
	c.cfg, c.nc, c.bye = cfg, nc, linger.New(nc, closeTimeout)
	c.greeted, c.done, c.hungUp = make(chan struct{}), make(chan struct{}), make(chan struct{})
	c.budget = h2wire.NewBudget()
	c.streams = make(map[uint32]*stream)
	c.sendWindow, c.peerWindow, c.recvAvail = h2wire.DefaultWindow, h2wire.DefaultWindow, cfg.ConnWindow
	c.peerMaxFrame, c.peerStreams = h2wire.MinMaxFrame, min(cfg.MaxStreams, initialStreams)
	c.nextID = 1
	c.enc = hpack.NewEncoder()
	c.room.L = &c.mu
}

// greeting is the first thing either end sends, RFC 9113 section 3.4.
func (c *conn) greeting() []byte {
	settings := []h2wire.Setting{
		{ID: h2wire.SettingMaxConcurrentStreams, Value: uint32(c.cfg.MaxStreams)},
		{ID: h2wire.SettingInitialWindowSize, Value: uint32(c.cfg.StreamWindow)},
		{ID: h2wire.SettingMaxFrameSize, Value: uint32(c.cfg.MaxFrame)},
		{ID: h2wire.SettingMaxHeaderListSize, Value: uint32(c.cfg.MaxHeaderBytes)},
	}
	var b []byte
	if c.server != nil {
		settings = append(settings, h2wire.Setting{ID: h2wire.SettingEnableConnectProtocol, Value: 1})
	} else {
		b = append(b, h2wire.Preface...)
		settings[0] = h2wire.Setting{ID: h2wire.SettingEnablePush, Value: 0}
	}
	b = h2wire.AppendSettings(b, settings...)
	if c.cfg.ConnWindow > h2wire.DefaultWindow {
		b = h2wire.AppendWindowUpdate(b, 0, c.cfg.ConnWindow-h2wire.DefaultWindow)
	}
	return b
}

// run reads until the connection has ended and its socket is closed. It returns
// why it ended; ErrClosed when that was intended.
func (c *conn) run(ctx context.Context, r *reader) error {
	stop := context.AfterFunc(ctx, c.shutdown)
	defer stop()
	late := time.AfterFunc(c.cfg.HandshakeTimeout, c.checkGreeted)
	defer late.Stop()
	c.mu.Lock()
	c.laterLocked()
	c.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(c.lookAfter)
	c.end(c.failure(r.loop()))
	<-c.hungUp
	c.bye.Close(make([]byte, 4<<10))
	wg.Wait()
	return c.reason()
}

// reason is why the connection ended.
func (c *conn) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// failure says what it means that reading ended with err.
func (c *conn) failure(err error) error {
	var cerr *ConnError
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case errors.As(err, &cerr):
		return err
	case c.goAway != nil:
		return c.goAway
	case err == io.EOF && len(c.streams) == 0 && isClosed(c.greeted):
		return ErrClosed
	case c.writeErr != nil && errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("http2: %w", c.writeErr)
	case err == io.EOF:
		return fmt.Errorf("http2: connection closed by peer: %w", io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("http2: %w", err)
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// checkGreeted ends a connection whose peer has not said hello by now.
func (c *conn) checkGreeted() {
	if !isClosed(c.greeted) {
		c.end(connError(h2wire.CodeSettingsTimeout, "no SETTINGS within %s", c.cfg.HandshakeTimeout))
	}
}

// shutdown ends the connection and its streams at once, as intended by us, and one that
// ends in peace soon.
func (c *conn) shutdown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(ErrClosed)
	_ = c.nc.SetWriteDeadline(time.Now().Add(closeTimeout))
	c.bye.Hurry()
}

// end fails every stream and hangs up. The first reason counts.
func (c *conn) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(err)
}

func (c *conn) endLocked(err error) { c.endWithinLocked(err, closeTimeout) }

// endWithinLocked gives the peer that long to take what is still to be written, and then
// to close its end.
func (c *conn) endWithinLocked(err error, limit time.Duration) {
	if c.err != nil {
		return
	}
	c.err = err
	c.bye.Patient(limit)
	c.draining = true
	close(c.done)
	cerr := &ConnError{Code: h2wire.CodeNo}
	if err == ErrClosed || errors.As(err, &cerr) {
		c.pending = h2wire.AppendGoAway(c.pending, c.processed, cerr.Code, cerr.Reason)
	}
	for _, s := range c.streams {
		s.failLocked(err, true)
	}
	if c.server != nil {
		c.server.releaseLocked()
	}
	// A peer that reads nothing does not hold up the end.
	_ = c.nc.SetWriteDeadline(time.Now().Add(limit))
	if !c.writing && !c.later {
		c.later = true
		go c.flush()
	}
}

// brokenLocked notes that writing has failed. The peer's reason may be waiting to
// be read, as a GOAWAY; it is a better one.
func (c *conn) brokenLocked(err error) {
	c.broken, c.draining = true, true
	c.pending = nil
	if c.writeErr == nil {
		c.writeErr = err
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(closeTimeout))
}

// hangUpLocked says that nothing more will come and makes the read loop end. It is
// called when the last frame was written, or could not be.
func (c *conn) hangUpLocked() {
	if c.ended {
		return
	}
	c.ended, c.broken = true, true
	failed := c.writeErr != nil
	c.mu.Unlock()
	defer c.mu.Lock()
	defer close(c.hungUp)
	cw, ok := c.nc.(interface{ CloseWrite() error })
	if failed || !ok {
		_ = c.nc.Close()
		return
	}
	_ = cw.CloseWrite()
	_ = c.nc.SetReadDeadline(time.Now())
}

// leavePing is the PING whose answer proves that the peer has seen our GOAWAY.
var leavePing = [8]byte{'l', 'e', 'a', 'v', 'e'}

// drain tells the peer to open no more streams here, and closes the connection
// when the last one has ended. A server goes on taking those that are under way
// until the peer must have heard of it, RFC 9113 section 6.8.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining || c.leaving {
		return
	}
	c.leaving = true
	if c.server == nil {
		c.lastCallLocked()
		return
	}
	c.pending = h2wire.AppendGoAway(c.pending, h2wire.MaxWindow, h2wire.CodeNo, "draining")
	c.pending = h2wire.AppendPing(c.pending, 0, leavePing)
	c.laterLocked()
}

// lastCallLocked ends the wait of drain.
func (c *conn) lastCallLocked() {
	if c.draining || !c.leaving {
		return
	}
	c.draining = true
	if !c.idleLocked() {
		c.pending = h2wire.AppendGoAway(c.pending, c.processed, h2wire.CodeNo, "draining")
		c.laterLocked()
	}
}

// idleLocked ends the connection if it was only waiting for its last exchange. What
// that sent may still be on its way: the peer gets the time to take it that it has for
// an answer to PING, if it was heard of within such a time, and the exchange has only
// just ended.
func (c *conn) idleLocked() bool {
	if !c.draining || len(c.streams) > 0 || c.server != nil && c.server.running > 0 {
		return false
	}
	err := c.goAway
	if err == nil {
		err = ErrClosed
	}
	if heard := time.Duration(c.silentTicks+1)*c.cfg.tick() < c.cfg.PingTimeout; heard && c.idleTicks < 2 {
		c.endWithinLocked(err, c.cfg.PingTimeout)
	} else {
		c.endLocked(err)
	}
	return true
}

// lookAfter keeps the timeouts until the connection ends.
func (c *conn) lookAfter() {
	t := time.NewTicker(c.cfg.tick())
	defer t.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-t.C:
			c.tick()
		}
	}
}

// tick counts for how long nothing has happened. The byte path keeps no clock.
func (c *conn) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	past := func(ticks int, limit time.Duration) bool { return time.Duration(ticks)*c.cfg.tick() >= limit }
	if r := c.read.Load(); r != c.lastRead {
		c.lastRead, c.silentTicks, c.pinged = r, 0, false
	} else {
		c.silentTicks++
	}
	if w := c.written.Load(); w != c.lastWritten || !c.writing {
		c.lastWritten, c.stuckTicks = w, 0
	} else {
		c.stuckTicks++
	}
	if c.idleTicks++; len(c.streams) > 0 || c.server != nil && c.server.running > 0 {
		c.idleTicks = 0
	}
	if c.leaving {
		if c.leaveTicks++; past(c.leaveTicks, c.cfg.PingTimeout) {
			c.lastCallLocked() // the peer does not answer the PING
		}
	}
	switch {
	case past(c.stuckTicks, c.cfg.WriteTimeout):
		c.endLocked(connError(h2wire.CodeNo, "peer took no byte for %s", c.cfg.WriteTimeout))
	case past(c.idleTicks, c.cfg.IdleTimeout):
		c.endLocked(ErrClosed)
	case c.pinged && past(c.silentTicks, c.cfg.PingTimeout):
		c.endLocked(connError(h2wire.CodeNo, "no answer to PING for %s", c.cfg.PingTimeout))
	case !c.pinged && len(c.streams) > 0 && past(c.silentTicks, c.cfg.PingInterval):
		c.pinged, c.silentTicks = true, 0
		c.pending = h2wire.AppendPing(c.pending, 0, [8]byte{'a', 'm', 'b', 'i', 't'})
		c.laterLocked()
	}
	if c.server != nil {
		c.server.restLocked()
	}
	if c.idleTicks > 0 && !c.writing {
		c.shrinkLocked()
	}
}
