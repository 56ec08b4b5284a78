package http2

import (
	"github.com/ambit-mesh/ambit/internal/h2wire"
	"github.com/ambit-mesh/ambit/internal/http2/hpack"
	"github.com/ambit-mesh/ambit/internal/message"
)

// stream is one exchange. All of it is guarded by the connection's mu.
type stream struct {
	c      *conn
	id     uint32
	server *serverStream // what serves it; nil in a client
	client *clientStream // what asks for it; nil in a server

	// What comes. The body is complete when recvEnd is set, and never will be when
	// err is set without it.
	body     body
	queue    queue
	avail    int   // what the peer may still send, in bytes
	window   int   // what it may send at most
	freed    int   // read and not yet given back
	expect   int64 // bytes that Content-Length promises for the rest; -1 for no promise
	recvEnd  bool
	tunnel   bool // no trailers: RFC 9113 section 8.5
	deaf     bool // nobody wants the rest of the body
	listed   bool // among those that the read loop wakes when the batch is done
	trailers message.Fields
	readWake chan struct{} // takes one token; nil until somebody waits

	// What goes.
	sendWindow int64
	sendEnd    bool
	starved    bool // somebody waits for sendWindow
	sendWake   chan struct{}
	lastAt     int    // where in c.pending the last DATA frame of the stream begins
	lastBatch  uint64 // in which of them

	gone bool  // not in the table any more: over, in one way or another
	err  error // why it was over before it was complete
}

// wake gives a token.
func wake(ch chan struct{}) {
	if ch == nil {
		return
	}
	select {
	case ch <- struct{}{}:
	default:
	}
}

// waitChan gives the channel on which the reader, or the sender, waits.
func waitChan(ch *chan struct{}) chan struct{} {
	if *ch == nil {
		*ch = make(chan struct{}, 1)
	}
	return *ch
}

// addLocked makes a stream known. Its windows are the connection's to give.
func (c *conn) addLocked(s *stream) {
	s.c = c
	s.body.s = s
	s.avail, s.window = c.cfg.StreamWindow, c.cfg.StreamWindow
	s.sendWindow = c.peerWindow
	c.streams[s.id] = s
	c.idleTicks = 0
}

// leaveLocked takes a stream out of the table. What its reader has not taken does
// not weigh on the connection any more: no stream comes after it in its place
// before its exchange is over.
func (s *stream) leaveLocked(byUs bool) {
	c := s.c
	s.gone = true
	delete(c.streams, s.id)
	c.past.add(s.id, byUs)
	c.grown -= s.window - c.cfg.StreamWindow
	c.consumedLocked(s.queue.size)
	if s.client != nil {
		s.client.leftLocked()
		c.idleLocked()
	}
}

// failLocked ends a stream before it is complete. Whoever waits for it wakes up.
func (s *stream) failLocked(err error, byUs bool) {
	if s.gone {
		return
	}
	s.err = err
	s.leaveLocked(byUs)
	if !s.recvEnd {
		s.queue.drop()
	}
	wake(s.readWake)
	wake(s.sendWake)
	s.c.room.Broadcast()
	if s.server != nil {
		s.server.ctx.end()
	}
}

// resetLocked ends a stream at both ends.
func (s *stream) resetLocked(code ErrCode, err error) {
	if s.gone {
		return
	}
	s.c.pending = h2wire.AppendRSTStream(s.c.pending, s.id, code)
	s.failLocked(err, true)
	s.c.laterLocked()
}

// recvEndLocked notes END_STREAM. It may be that the content is not what its
// length said.
func (s *stream) recvEndLocked() {
	if s.expect > 0 {
		s.resetLocked(h2wire.CodeProtocol, malformed("%d bytes less than content-length", s.expect))
		return
	}
	s.recvEnd = true
	if s.client != nil {
		wake(s.sendWake)
	}
	s.doneLocked()
}

// sendEndLocked notes that END_STREAM was sent.
func (s *stream) sendEndLocked() {
	s.sendEnd = true
	s.doneLocked()
}

func (s *stream) doneLocked() {
	if s.recvEnd && s.sendEnd && !s.gone {
		s.leaveLocked(false)
	}
}

// trailersLocked takes the fields behind a body.
func (s *stream) trailersLocked(fields []hpack.Field, excess hpack.Excess, end bool) {
	trailers, reason := parseTrailers(fields)
	switch {
	case s.recvEnd:
		s.resetLocked(h2wire.CodeStreamClosed, malformed("HEADERS behind the end of the stream"))
	case s.tunnel:
		s.resetLocked(h2wire.CodeProtocol, malformed("HEADERS in a tunnel"))
	case !end:
		s.resetLocked(h2wire.CodeProtocol, malformed("trailers that do not end the stream"))
	case excess != hpack.Within:
		s.resetLocked(h2wire.CodeProtocol, malformed("trailers too large"))
	case reason != "":
		s.resetLocked(h2wire.CodeProtocol, malformed("%s", reason))
	default:
		s.trailers = trailers
		s.recvEndLocked()
	}
}

// past remembers how the last streams ended, so that what comes late for them can
// be told from what must not come. RFC 9113 section 5.1.
type past struct {
	ring [128]uint32 // stream numbers; the top bit is for those that we reset
	n    int
}

// Ways in which a stream has ended.
type ending uint8

const (
	endedUnknown ending = iota // too long ago to say, or never opened
	endedByUs
	endedByPeer // END_STREAM or RST_STREAM
)

const byUsBit = 1 << 31

func (p *past) add(id uint32, byUs bool) {
	if byUs {
		id |= byUsBit
	}
	p.ring[p.n%len(p.ring)] = id
	p.n++
}

// find says how a stream ended; sure is false when the ring does not reach back to
// the first one.
func (p *past) find(id uint32) (e ending, sure bool) {
	for i := range p.ring[:min(p.n, len(p.ring))] {
		switch p.ring[i] {
		case id:
			return endedByPeer, true
		case id | byUsBit:
			return endedByUs, true
		}
	}
	return endedUnknown, p.n <= len(p.ring)
}
