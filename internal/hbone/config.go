package hbone

import (
	"crypto/x509"
	"fmt"
	"time"

	"github.com/ambit-mesh/ambit/internal/h2wire"
)

// Config bounds what a tunnel connection may hold. The zero value of a field
// means its default.
type Config struct {
	// StreamWindow is the receive window that a stream starts with, in bytes;
	// 64 KiB. MaxStreamWindow is what it may grow to; 4 MiB.
	StreamWindow, MaxStreamWindow int
	// ConnWindow bounds the bytes of all streams of a connection that their
	// readers have not taken; 96 MiB. Streams' windows grow only as far as three
	// quarters of it hold all of them, so that readers that take nothing never hold
	// up others; for that, it must have room for MaxStreams that have not grown. Room
	// for all of them as they are while they are read (256 KiB) keeps new streams as
	// fast as those that came first and have become idle.
	ConnWindow int
	// MaxStreams is how many streams a peer may have open on a connection, and
	// how many we open on one; 256.
	MaxStreams int
	// MaxHeaderBytes bounds a header block, encoded and decoded; 16 KiB.
	MaxHeaderBytes int
	// Protocol is the one protocol of extended CONNECTs (RFC 8441) that a server
	// takes; "" for none.
	Protocol string
	// HandshakeTimeout bounds TLS, preface and first SETTINGS together; 10 s.
	HandshakeTimeout time.Duration
	// PingInterval and PingTimeout find dead peers; 10 s and 20 s.
	PingInterval, PingTimeout time.Duration
	// IdleTimeout closes a connection that has had no stream for so long; 5 min.
	// A server waits twice as long, so that it is the client that closes.
	IdleTimeout time.Duration
	// Watch is told of each connection that runs, with the peer's chain, and how to cut
	// it; it gives what is called when the connection has ended. May be nil.
	Watch func(peer []*x509.Certificate, cut func(error)) (release func())
}

func (c Config) withDefaults() Config {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	defd := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.StreamWindow, 64<<10)
	def(&c.MaxStreamWindow, 4<<20)
	def(&c.ConnWindow, 96<<20)
	def(&c.MaxStreams, 256)
	def(&c.MaxHeaderBytes, 16<<10)
	defd(&c.HandshakeTimeout, 10*time.Second)
	defd(&c.PingInterval, 10*time.Second)
	defd(&c.PingTimeout, 20*time.Second)
	defd(&c.IdleTimeout, 5*time.Minute)
	return c
}

// growth is what the windows of all streams together may grow by. A quarter of the
// connection's window is what consumed may owe the peer.
func (c Config) growth() int64 {
	return max(0, int64(c.ConnWindow/4*3)-int64(c.MaxStreams)*int64(c.StreamWindow))
}

// Validate names the first field that cannot be used.
func (c Config) Validate() error {
	c = c.withDefaults()
	switch {
	case c.StreamWindow < 64<<10 || c.StreamWindow > c.MaxStreamWindow:
		return fmt.Errorf("hbone: stream window %d: want 64 KiB to the maximum of %d", c.StreamWindow, c.MaxStreamWindow)
	case c.MaxStreamWindow > c.ConnWindow:
		return fmt.Errorf("hbone: maximum stream window %d: exceeds the connection window %d", c.MaxStreamWindow, c.ConnWindow)
	case c.ConnWindow > h2wire.MaxWindow:
		return fmt.Errorf("hbone: connection window %d: exceeds %d", c.ConnWindow, h2wire.MaxWindow)
	case c.MaxStreams < 1 || c.MaxStreams > 1<<20:
		return fmt.Errorf("hbone: max streams %d: want 1 to %d", c.MaxStreams, 1<<20)
	case c.MaxHeaderBytes < 1<<10:
		return fmt.Errorf("hbone: max header bytes %d: want at least 1024", c.MaxHeaderBytes)
	case c.HandshakeTimeout < 0 || c.PingInterval < 0 || c.PingTimeout < 0 || c.IdleTimeout < 0:
		return fmt.Errorf("hbone: a timeout is negative")
	}
	return nil
}
