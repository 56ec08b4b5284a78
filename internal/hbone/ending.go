package hbone

import (
	"errors"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/internal/h2wire"
	"github.com/ambit-mesh/ambit/internal/linger"
)

// closeTimeout bounds saying goodbye to a peer that takes nothing, and then the wait for
// it to close too, where there is no reason to be patient.
const closeTimeout = 2 * time.Second

// shutdown says goodbye and ends the connection and all its streams at once, as
// intended by us.
func (c *conn) shutdown(debug string) {
	c.mu.Lock()
	last := c.processed
	c.mu.Unlock()
	c.post(h2wire.AppendGoAway(nil, last, CodeNo, debug))
	c.end(ErrClosed)
	c.mu.Lock()
	streams := slices.Collect(maps.Values(c.streams))
	c.mu.Unlock()
	_ = c.under.SetWriteDeadline(time.Now().Add(closeTimeout))
	c.bye.Hurry()
	for _, s := range streams {
		s.finish(ErrClosed)
	}
}

// end hangs up and fails every stream but those for which both ends have said all: they
// need no connection to be delivered. The first reason counts.
func (c *conn) end(err error) { c.endWithin(err, closeTimeout) }

// endInPeace ends a connection whose streams have all ended. What they sent may still be
// on its way: the peer gets the time to take it that it has for an answer to PING, counted
// from when it was heard of last.
func (c *conn) endInPeace() {
	c.mu.Lock()
	idle := time.Since(c.idleSince)
	c.mu.Unlock()
	if idle > closeTimeout { // nothing is on its way any more
		c.end(ErrClosed)
		return
	}
	patience := c.cfg.PingTimeout - time.Since(time.Unix(0, c.lastRead.Load()))
	c.endWithin(ErrClosed, max(closeTimeout, patience))
}

// endWithin gives the peer that long to take what is still to be written, and then to
// close its end.
func (c *conn) endWithin(err error, limit time.Duration) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	c.bye.Patient(limit)
	c.draining = true
	streams, last := slices.Collect(maps.Values(c.streams)), c.processed
	c.emptyLocked()
	close(c.done)
	c.mu.Unlock()

	var cerr *ConnError
	if errors.As(err, &cerr) && cerr.Code != CodeNo {
		c.out.post(h2wire.AppendGoAway(nil, last, cerr.Code, cerr.Reason))
	}
	// A peer that reads nothing does not hold up the end.
	_ = c.under.SetWriteDeadline(time.Now().Add(limit))
	c.out.fail(err, c.hangUp)
	for _, s := range streams {
		if !s.complete() {
			s.finish(err)
		}
	}
}

// hangUp says that nothing more will come and makes the read loop end. It is
// called when the last frame was written, or could not be.
func (c *conn) hangUp(broken bool) {
	defer close(c.hungUp)
	if broken {
		_ = c.under.Close()
		return
	}
	_ = c.tls.CloseWrite()
	closeWrite(c.under.Conn)
	_ = c.under.SetReadDeadline(time.Now())
}

func closeWrite(sock net.Conn) {
	if cw, ok := sock.(interface{ CloseWrite() error }); ok {
		_ = cw.CloseWrite()
	}
}

// refused closes a socket whose handshake has failed, and lets the peer read why.
func refused(sock net.Conn) {
	closeWrite(sock)
	b := takeBuffer()
	defer giveBuffer(b)
	linger.New(sock, closeTimeout).Close(*b)
}
