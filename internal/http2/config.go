package http2

import (
	"fmt"
	"time"

	"github.com/ambit-mesh/ambit/internal/h2wire"
	"github.com/ambit-mesh/ambit/internal/message"
)

// Config bounds what a connection may hold. The zero value of a field means its
// default.
type Config struct {
	// MaxStreams is how many streams a client may have open on a connection that
	// we serve, and how many we open on one as a client; 100.
	MaxStreams int
	// MaxHeaderBytes and MaxFields bound a header block, decoded; 64 KiB and 128.
	// Requests beyond are answered with 431.
	MaxHeaderBytes, MaxFields int
	// MaxFrame is the largest DATA frame that we take, in bytes; 64 KiB.
	MaxFrame int
	// StreamWindow is the receive window that a stream starts with, in bytes;
	// 64 KiB. MaxStreamWindow is what it may grow to; 1 MiB.
	StreamWindow, MaxStreamWindow int
	// ConnWindow bounds the windows of all streams of a connection together, and
	// so what their readers have not taken; 16 MiB. It has room for MaxStreams
	// times StreamWindow; what is left is what windows may grow by.
	ConnWindow int
	// HandshakeTimeout bounds the wait for preface and SETTINGS; 10 s.
	HandshakeTimeout time.Duration
	// PingInterval is how long the peer may be silent while streams are open
	// before it gets a PING, and PingTimeout how long it may take to answer; 20 s.
	// PingInterval is 30 s in a server, and 6 min in a client: servers of gRPC
	// take more than one PING in 5 min for abuse, and below us the tunnel looks
	// for dead peers too.
	PingInterval, PingTimeout time.Duration
	// IdleTimeout closes a connection that has had no stream for so long; 5 min.
	// A server waits twice as long, so that it is the client that closes.
	IdleTimeout time.Duration
	// WriteTimeout ends a connection whose peer takes no byte; 30 s.
	WriteTimeout time.Duration
	// Rejected is told of requests that were answered or ended without a handler.
	// It is called by the read loop and must not wait. May be nil.
	Rejected func(message.Rejection)
}

func (c Config) withDefaults(server bool) Config {
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
	def(&c.MaxStreams, 100)
	def(&c.MaxHeaderBytes, 64<<10)
	def(&c.MaxFields, 128)
	def(&c.MaxFrame, 64<<10)
	def(&c.StreamWindow, 64<<10)
	def(&c.MaxStreamWindow, 1<<20)
	def(&c.ConnWindow, 16<<20)
	defd(&c.HandshakeTimeout, 10*time.Second)
	defd(&c.PingTimeout, 20*time.Second)
	defd(&c.IdleTimeout, 5*time.Minute)
	defd(&c.WriteTimeout, 30*time.Second)
	if server {
		defd(&c.PingInterval, 30*time.Second)
		c.IdleTimeout *= 2
	} else {
		defd(&c.PingInterval, 6*time.Minute)
	}
	if c.Rejected == nil {
		c.Rejected = func(message.Rejection) {}
	}
	return c
}

// Validate names the first field that cannot be used.
func (c Config) Validate() error {
	c = c.withDefaults(true)
	switch {
	case c.MaxStreams < 1 || c.MaxStreams > 1<<16:
		return fmt.Errorf("http2: max streams %d: want 1 to %d", c.MaxStreams, 1<<16)
	case c.MaxHeaderBytes < 1<<10 || c.MaxHeaderBytes > 1<<20:
		return fmt.Errorf("http2: max header bytes %d: want 1 KiB to 1 MiB", c.MaxHeaderBytes)
	case c.MaxFields < 8:
		return fmt.Errorf("http2: max fields %d: want at least 8", c.MaxFields)
	case c.MaxFrame < h2wire.MinMaxFrame || c.MaxFrame > 1<<20:
		return fmt.Errorf("http2: max frame %d: want 16 KiB to 1 MiB", c.MaxFrame)
	case c.StreamWindow < h2wire.DefaultWindow || c.StreamWindow > c.MaxStreamWindow:
		// Less would be exceeded by a peer that has not read our SETTINGS yet.
		return fmt.Errorf("http2: stream window %d: want 64 KiB to the maximum of %d", c.StreamWindow, c.MaxStreamWindow)
	case c.ConnWindow > h2wire.MaxWindow || c.ConnWindow < h2wire.DefaultWindow:
		return fmt.Errorf("http2: connection window %d: want %d to %d", c.ConnWindow, h2wire.DefaultWindow, h2wire.MaxWindow)
	case c.MaxStreams*c.StreamWindow > c.ConnWindow:
		return fmt.Errorf("http2: connection window %d: has no room for %d streams of %d", c.ConnWindow, c.MaxStreams, c.StreamWindow)
	case c.HandshakeTimeout < 0 || c.PingInterval < 0 || c.PingTimeout < 0 || c.IdleTimeout < 0 || c.WriteTimeout < 0:
		return fmt.Errorf("http2: a timeout is negative")
	}
	return nil
}

// tick is how often a connection looks after its timeouts. They are kept to this
// precision.
func (c Config) tick() time.Duration {
	return max(time.Millisecond, min(c.PingInterval, c.PingTimeout, c.IdleTimeout, c.WriteTimeout)/4)
}
