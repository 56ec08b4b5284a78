package http1

import (
	"fmt"
	"time"

	"github.com/ambit-mesh/ambit/internal/message"
)

// Config bounds what a connection may hold and how long it may take. The zero
// value of a field means its default.
type Config struct {
	// MaxHeaderBytes bounds a head, first line included, and the trailers of a
	// body; 64 KiB. Limit header_bytes, status 431.
	MaxHeaderBytes int
	// MaxFields bounds the field lines of a head and of trailers; 128. Limit
	// fields, status 431.
	MaxFields int
	// MaxTargetBytes bounds the target of a request; 16 KiB. Limit target_bytes,
	// status 414.
	MaxTargetBytes int
	// HeaderTimeout bounds the time from the first byte of a head to its last;
	// 10 s. Limit header_timeout, status 408.
	HeaderTimeout time.Duration
	// IdleTimeout ends a server connection without a request for so long; 1 h. A
	// server that closes an idle connection races with the client's next request,
	// which fails if it may not be sent twice. So it is the client's part to close
	// first, and since an idle connection holds no buffer we can wait for longer
	// than clients do. Limit idle_timeout, without a status.
	IdleTimeout time.Duration
	// BodyTimeout ends the reading of a body of which no byte comes for so long;
	// 0 is off. Tunnels are not bodies. Limit body_timeout, status 408.
	BodyTimeout time.Duration
	// MaxRequestsPerConn closes a server connection after so many requests; 0 is
	// without a limit.
	MaxRequestsPerConn int
	// WriteTimeout ends a connection whose peer takes no byte for so long while
	// there is something to send; 5 min.
	WriteTimeout time.Duration
	// Rejected is told of each request that was answered without the handler. It
	// may be nil. It is called by the goroutine of the connection.
	Rejected func(message.Rejection)
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
	def(&c.MaxHeaderBytes, 64<<10)
	def(&c.MaxFields, 128)
	def(&c.MaxTargetBytes, min(16<<10, c.MaxHeaderBytes/2))
	defd(&c.HeaderTimeout, 10*time.Second)
	defd(&c.IdleTimeout, time.Hour)
	defd(&c.WriteTimeout, 5*time.Minute)
	return c
}

// Validate names the first field that cannot be used.
func (c Config) Validate() error {
	c = c.withDefaults()
	switch {
	case c.MaxHeaderBytes < 1<<10 || c.MaxHeaderBytes > 16<<20:
		return fmt.Errorf("http1: max header bytes %d: want 1 KiB to 16 MiB", c.MaxHeaderBytes)
	case c.MaxFields < 1 || c.MaxFields > 1<<16:
		return fmt.Errorf("http1: max fields %d: want 1 to %d", c.MaxFields, 1<<16)
	case c.MaxTargetBytes < 1 || c.MaxTargetBytes > c.MaxHeaderBytes:
		return fmt.Errorf("http1: max target bytes %d: want 1 to the maximum of a head, %d", c.MaxTargetBytes, c.MaxHeaderBytes)
	case c.MaxRequestsPerConn < 0:
		return fmt.Errorf("http1: max requests per connection %d: is negative", c.MaxRequestsPerConn)
	case c.HeaderTimeout < 0 || c.IdleTimeout < 0 || c.BodyTimeout < 0 || c.WriteTimeout < 0:
		return fmt.Errorf("http1: a timeout is negative")
	}
	return nil
}
