package http1

import (
	"net"
	"time"
)

// sink is the sending side of a connection. It is used by one goroutine at a time.
type sink struct {
	conn    net.Conn
	timeout time.Duration
	until   time.Time // the deadline for writing that conn has
}

// write sends all of p. A peer may be as slow as it likes, as long as it takes
// something within the timeout, or up to a quarter more.
func (k *sink) write(p []byte) (int, error) {
	done := 0
	for {
		soonest := time.Now().Add(k.timeout)
		if k.until.Before(soonest) {
			k.until = soonest.Add(k.timeout / 4)
			_ = k.conn.SetWriteDeadline(k.until) // a connection that cannot is not bounded
		}
		n, err := k.conn.Write(p[done:])
		done += n
		switch {
		case err == nil:
			return done, nil
		case !isTimeout(err):
			return done, err
		case n == 0:
			return done, &timeout{limit: "write_timeout", reason: "peer takes nothing", err: err}
		}
		k.until = time.Time{}
	}
}

// end says that nothing more will be sent. It reports whether the connection can
// do that.
func (k *sink) end() (bool, error) {
	c, ok := k.conn.(interface{ CloseWrite() error })
	if !ok {
		return false, nil
	}
	return true, c.CloseWrite()
}

// reset closes conn so that the peer does not take what it got for complete.
func reset(conn net.Conn) {
	switch c := conn.(type) {
	case interface{ Reset() error }:
		_ = c.Reset() // closed below whatever happens
	case interface{ SetLinger(sec int) error }:
		_ = c.SetLinger(0)
	}
	_ = conn.Close()
}
