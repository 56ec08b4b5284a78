package http2

import (
	"github.com/ambit-mesh/ambit/internal/h2wire"
)

// consumedLocked gives n bytes of connection window back to the peer, in large
// steps.
func (c *conn) consumedLocked(n int) {
	if c.recvFreed += n; c.recvFreed < c.cfg.ConnWindow/4 || c.err != nil {
		return
	}
	c.pending = h2wire.AppendWindowUpdate(c.pending, 0, c.recvFreed)
	c.recvAvail += c.recvFreed
	c.recvFreed = 0
	c.laterLocked()
}

// tookLocked gives window back for n bytes that the stream's reader has taken. A
// reader that took all there is keeps up, and gets a window twice as large as long
// as the connection's has room for it: a fast path is not limited by its round
// trip and a stuck reader holds little.
func (s *stream) tookLocked(n int) {
	c := s.c
	if s.gone {
		return
	}
	c.consumedLocked(n)
	s.freed += n
	if s.recvEnd || s.freed < s.window/2 {
		return
	}
	grant := s.freed
	if s.queue.size == 0 {
		grant += s.growLocked(s.window)
		c.usual = min(s.window, ahead*c.cfg.StreamWindow)
	} else {
		c.usual = max(c.cfg.StreamWindow, c.usual/2)
	}
	s.avail += grant
	s.freed = 0
	c.pending = h2wire.AppendWindowUpdate(c.pending, s.id, grant)
	c.laterLocked()
}

// growLocked makes a stream's window larger, by as much as it may become and the
// connection's has room for, and says by how much.
func (s *stream) growLocked(by int) int {
	c := s.c
	room := c.cfg.ConnWindow - c.cfg.MaxStreams*c.cfg.StreamWindow - c.grown
	more := max(0, min(by, c.cfg.MaxStreamWindow-s.window, room))
	s.window += more
	c.grown += more
	return more
}

// ahead is how many times its window a stream may begin with, where those before it
// needed so much.
const ahead = 4

// beginWindowLocked gives an answer at once the window that answers on the connection
// have grown to lately. Each of them would wait for it otherwise, once for every
// doubling, and while other work is before it at both ends.
func (s *stream) beginWindowLocked() {
	c := s.c
	if more := s.growLocked(c.usual - s.window); more > 0 {
		s.avail += more
		c.pending = h2wire.AppendWindowUpdate(c.pending, s.id, more)
	}
}

// grantLocked adds to a send window: the connection's when id is 0.
func (c *conn) grantLocked(id uint32, n int64) error {
	if id != 0 {
		s, err := c.findLocked(id)
		if s == nil || err != nil {
			return err
		}
		s.sendWindow += n
		switch {
		case n == 0:
			return s.violatedLocked(h2wire.CodeProtocol, "WINDOW_UPDATE of 0")
		case s.sendWindow > h2wire.MaxWindow:
			return s.violatedLocked(h2wire.CodeFlowControl, "window above 2^31-1")
		}
		s.wakeSenderLocked()
		return nil
	}
	if n == 0 {
		return connError(h2wire.CodeProtocol, "WINDOW_UPDATE of 0")
	}
	starved := c.sendWindow <= 0
	if c.sendWindow += n; c.sendWindow > h2wire.MaxWindow {
		return connError(h2wire.CodeFlowControl, "connection window above 2^31-1")
	}
	if starved {
		for _, s := range c.streams {
			s.wakeSenderLocked()
		}
	}
	return nil
}

func (s *stream) wakeSenderLocked() {
	if s.starved {
		s.starved = false
		wake(s.sendWake)
	}
}

// findLocked finds the stream of a frame: nil for one that has ended, an error for
// one that never was.
func (c *conn) findLocked(id uint32) (*stream, error) {
	if s := c.streams[id]; s != nil {
		return s, nil
	}
	idle := id >= c.nextID
	if c.server != nil {
		idle = id > c.lastPeerID
	}
	if id == 0 || idle || id%2 == 0 {
		return nil, connError(h2wire.CodeProtocol, "frame on stream %d, which is not open", id)
	}
	return nil, nil
}

// settingLocked applies one of the peer's settings, RFC 9113 section 6.5.2.
func (c *conn) settingLocked(id uint16, v uint32) error {
	switch id {
	case h2wire.SettingHeaderTableSize:
		c.enc.SetPeerTable(v)
	case h2wire.SettingInitialWindowSize:
		if v > h2wire.MaxWindow {
			return connError(h2wire.CodeFlowControl, "initial window %d", v)
		}
		diff := int64(v) - c.peerWindow
		c.peerWindow = int64(v)
		for _, s := range c.streams {
			if s.sendWindow += diff; s.sendWindow > h2wire.MaxWindow {
				return connError(h2wire.CodeFlowControl, "initial window %d overflows a stream's window", v)
			}
			s.wakeSenderLocked()
		}
	case h2wire.SettingMaxFrameSize:
		if v < h2wire.MinMaxFrame || v > h2wire.MaxMaxFrame {
			return connError(h2wire.CodeProtocol, "max frame size %d", v)
		}
		c.peerMaxFrame = int(v)
	case h2wire.SettingMaxConcurrentStreams:
		c.peerStreams = min(c.cfg.MaxStreams, int(min(v, 1<<30)))
	case h2wire.SettingEnablePush:
		if v > 1 || c.server == nil && v == 1 {
			return connError(h2wire.CodeProtocol, "enable push %d", v)
		}
	case h2wire.SettingEnableConnectProtocol:
		if v > 1 || v == 0 && c.peerConnect { // RFC 8441 section 3
			return connError(h2wire.CodeProtocol, "enable connect protocol %d", v)
		}
		c.peerConnect = v == 1
	}
	return nil
}
