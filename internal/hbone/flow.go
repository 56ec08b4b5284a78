package hbone

import "github.com/ambit-mesh/ambit/internal/h2wire"

// stream finds the stream of a frame: nil for one that has ended, an error for
// one that never was.
func (c *conn) stream(id uint32) (*Stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.streams[id]; s != nil {
		return s, nil
	}
	idle := id >= c.nextID
	if c.server {
		idle = id > c.lastPeerID
	}
	if id == 0 || idle || id%2 == 0 {
		return nil, connError(CodeProtocol, "frame on stream %d, which is not open", id)
	}
	return nil, nil
}

// grant adds to a send window.
func (c *conn) grant(id uint32, n int64) error {
	if id != 0 {
		s, err := c.stream(id)
		if s == nil || err != nil {
			return err
		}
		c.mu.Lock()
		s.sendWindow += n
		over := s.sendWindow > h2wire.MaxWindow
		c.mu.Unlock()
		if n == 0 {
			s.reset(CodeProtocol)
		} else if over {
			s.reset(CodeFlowControl)
		}
		s.notify()
		return nil
	}
	if n == 0 {
		return connError(CodeProtocol, "WINDOW_UPDATE of 0")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	starved := c.sendWindow <= 0
	if c.sendWindow += n; c.sendWindow > h2wire.MaxWindow {
		return connError(CodeFlowControl, "connection window above 2^31-1")
	}
	if starved {
		for _, s := range c.streams {
			s.notify()
		}
	}
	return nil
}

func (c *conn) applySetting(id uint16, v uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch id {
	case h2wire.SettingInitialWindowSize:
		if v > h2wire.MaxWindow {
			return connError(CodeFlowControl, "initial window %d", v)
		}
		diff := int64(v) - c.peerWindow
		c.peerWindow = int64(v)
		for _, s := range c.streams {
			if s.sendWindow += diff; s.sendWindow > h2wire.MaxWindow {
				return connError(CodeFlowControl, "initial window %d overflows a stream's window", v)
			}
			s.notify()
		}
	case h2wire.SettingMaxFrameSize:
		if v < h2wire.MinMaxFrame || v > h2wire.MaxMaxFrame {
			return connError(CodeProtocol, "max frame size %d", v)
		}
		c.peerMaxFrame = int(v)
	case h2wire.SettingMaxConcurrentStreams:
		c.peerStreams = min(c.cfg.MaxStreams, int(min(v, 1<<30)))
	case h2wire.SettingEnablePush:
		if v > 1 || !c.server && v == 1 {
			return connError(CodeProtocol, "enable push %d", v)
		}
	}
	return nil
}

// peerGoesAway stops new streams and ends those that the peer did not process, or
// all of them when it goes because of an error.
func (c *conn) peerGoesAway(last uint32, code ErrCode, debug string) {
	c.mu.Lock()
	c.draining = true
	var lost []*Stream
	if !c.server {
		for id, s := range c.streams {
			if id > last {
				lost = append(lost, s)
			}
		}
	}
	empty := len(c.streams) == 0 && c.running == 0
	c.mu.Unlock()
	for _, s := range lost {
		s.finish(&ResetError{Code: CodeRefusedStream, Remote: true})
	}
	if code != CodeNo {
		c.end(&GoAwayError{Code: code, Debug: clip(debug)})
	} else if empty {
		c.endInPeace()
	}
}
