package hbone

import (
	"errors"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/internal/h2wire"
)

// closeTimeout bounds saying goodbye to a peer that takes nothing, and
// lingerTimeout the wait for the peer to close too, where there is no reason to be
// patient, see conn.patience.
const (
	closeTimeout  = 2 * time.Second
	lingerTimeout = 2 * time.Second
)

// lingers is how many times its patience a connection waits for a peer that goes on
// sending.
const lingers = 3

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
	c.impatientLocked()
	c.mu.Unlock()
	for _, s := range streams {
		s.finish(ErrClosed)
	}
}

// end hangs up and fails every stream but those for which both ends have said all: they
// need no connection to be delivered. The first reason counts.
func (c *conn) end(err error) { c.endWith(err, closeTimeout, lingerTimeout) }

// endInPeace ends a connection whose streams have all ended. What they sent may still be
// on its way: the peer gets the time to take it that it has for an answer to PING, counted
// from when it was heard of last.
func (c *conn) endInPeace() {
	silent := time.Since(time.Unix(0, c.lastRead.Load()))
	c.mu.Lock()
	idle := time.Since(c.idleSince)
	c.mu.Unlock()
	patience := c.cfg.PingTimeout - silent
	if idle > lingerTimeout { // nothing is on its way any more
		patience = 0
	}
	patience = max(lingerTimeout, patience)
	c.endWith(ErrClosed, patience, patience)
}

// endWith gives the peer that long to take what is still to be written, and to close its
// end, counted from the last that was heard of it.
func (c *conn) endWith(err error, write, patience time.Duration) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err, c.patience = err, patience
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
	_ = c.under.SetWriteDeadline(time.Now().Add(write))
	c.out.fail(err, c.hangUp)
	for _, s := range streams {
		if !s.complete() {
			s.finish(err)
		}
	}
}

// impatientLocked shortens what is left of an end in peace. The caller holds mu.
func (c *conn) impatientLocked() {
	if c.patience <= lingerTimeout {
		return
	}
	c.patience = lingerTimeout
	_ = c.under.SetWriteDeadline(time.Now().Add(closeTimeout))
	_ = c.under.SetReadDeadline(time.Now().Add(lingerTimeout))
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

// linger closes the socket after the peer has, or has been silent for a while.
// Closing with bytes unread, or before the peer has sent its last, would reset the
// connection, and a reset discards what the peer has not got or read yet: the alert
// or GOAWAY that says why, and the rest of what streams brought.
func (c *conn) linger() {
	c.mu.Lock()
	last := time.Now().Add(c.patience)
	_ = c.under.SetReadDeadline(last)
	if c.patience > lingerTimeout {
		last = last.Add((lingers - 1) * c.patience)
	}
	c.mu.Unlock()
	lingering(c.under.Conn, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if until := time.Now().Add(c.patience); c.patience > lingerTimeout && until.Before(last) {
			_ = c.under.SetReadDeadline(until)
		}
	})
}

// linger does the same for a socket whose handshake failed.
func linger(sock net.Conn) {
	_ = sock.SetReadDeadline(time.Now().Add(lingerTimeout))
	lingering(sock, func() {})
}

// lingering calls extend before each read.
func lingering(sock net.Conn, extend func()) {
	b := takeBuffer()
	defer giveBuffer(b)
	for {
		extend()
		if _, err := sock.Read(*b); err != nil {
			_ = sock.Close()
			return
		}
	}
}
