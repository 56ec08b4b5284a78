package http2

// Missing is how many bytes of the connection's receive window nobody accounts for
// when there is no stream.
func (cc *ClientConn) Missing() int { return cc.c.missing() }

// Missing is how many bytes of the connection's receive window nobody accounts for
// when there is no stream.
func (sc *ServerConn) Missing() int { return sc.c.missing() }

func (c *conn) missing() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cfg.ConnWindow - c.recvAvail - c.recvFreed + 1000*len(c.streams) + c.grown
}
