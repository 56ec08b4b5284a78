package http2

import (
	"runtime"

	"github.com/ambit-mesh/ambit/internal/h2wire"
	"github.com/ambit-mesh/ambit/internal/message"
)

const (
	// maxPending is how much may wait behind the write that is under way before
	// those who send data wait too, in bytes.
	maxPending = 256 << 10
	// maxBacklog is where a connection ends whose peer asks for answers and takes
	// none. What does not wait, answers to PING and the like, stays far below it
	// with any other peer.
	maxBacklog = maxPending + 512<<10
	// maxPiece is how much is given to one Write: what the peer takes is seen to
	// that precision.
	maxPiece = 64 << 10
	// keptBuffer is the memory for writes that an idle connection keeps.
	keptBuffer = 16 << 10
	// ownRounds is how often a goroutine that had something to send also writes
	// what others left meanwhile, so that it does not work for them for ever.
	ownRounds = 4
)

// kickLocked writes what is pending, unless somebody else does. It waits for the
// peer, with mu released.
func (c *conn) kickLocked() {
	if !c.writing {
		c.writeLocked(ownRounds)
	}
}

// laterLocked has another goroutine write what is pending.
func (c *conn) laterLocked() {
	if c.writing || c.later || c.reading || len(c.pending) == 0 {
		return
	}
	c.later = true
	go c.flush()
}

// flush writes until nothing is left.
func (c *conn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.later = false
	if !c.writing {
		c.writeLocked(1 << 30)
	}
}

// writeLocked writes what is pending, up to a number of rounds, and leaves the rest
// to another goroutine. Nobody else writes meanwhile.
func (c *conn) writeLocked(rounds int) {
	c.writing = true
	for round := 0; len(c.pending) > 0 && !c.broken; round++ {
		if round == rounds {
			c.later = true
			c.writing = false
			go c.flush()
			return
		}
		if round == 0 && c.crowdedLocked() {
			// Others are about to have something to say. One write for all is
			// cheaper than one for each.
			c.mu.Unlock()
			runtime.Gosched()
			c.mu.Lock()
		}
		batch := c.pending
		c.pending, c.spare = c.spare[:0], nil
		c.batch++
		c.handed += int64(len(batch))
		c.room.Broadcast()
		c.mu.Unlock()
		err := c.write(batch)
		c.mu.Lock()
		if cap(batch) <= 2*maxPending {
			c.spare = batch[:0]
		}
		if err != nil {
			c.brokenLocked(err)
		}
	}
	c.writing = false
	c.room.Broadcast()
	if c.err != nil {
		c.hangUpLocked()
	}
}

// shrinkLocked lets go of what a burst needed, once that is over.
func (c *conn) shrinkLocked() {
	if cap(c.spare) > keptBuffer {
		c.spare = nil
	}
	if cap(c.pending) > keptBuffer && len(c.pending) == 0 {
		c.pending = nil
	}
}

// crowdedLocked reports whether more than one exchange is under way.
func (c *conn) crowdedLocked() bool {
	if c.server != nil {
		return c.server.running > 1
	}
	return len(c.streams) > 1
}

func (c *conn) write(b []byte) error {
	for len(b) > 0 {
		n, err := c.nc.Write(b[:min(len(b), maxPiece)])
		c.written.Add(1)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// zeros is room for a frame header that is written when its payload is there.
var zeros [h2wire.FrameHeaderLen]byte

// beginBlockLocked begins a HEADERS frame and gives where.
func (c *conn) beginBlockLocked() int {
	at := len(c.pending)
	c.pending = append(c.pending, zeros[:]...)
	c.pending = c.enc.Begin(c.pending)
	return at
}

func (c *conn) fieldLocked(name, value string) { c.pending = c.enc.Append(c.pending, name, value) }

func (c *conn) fieldsLocked(fields message.Fields) {
	for i := range fields {
		if f := &fields[i]; sendable(f) {
			c.pending = c.enc.Append(c.pending, f.Name, f.Value)
		}
	}
}

// endBlockLocked completes the HEADERS frame that begins at, in several frames if
// the block is larger than the peer takes, RFC 9113 section 4.3.
func (c *conn) endBlockLocked(at int, id uint32, end bool) {
	h := h2wire.FrameHeader{Length: len(c.pending) - at - h2wire.FrameHeaderLen, Type: h2wire.FrameHeaders, Flags: h2wire.FlagEndHeaders, Stream: id}
	if end {
		h.Flags |= h2wire.FlagEndStream
	}
	if h.Length <= c.peerMaxFrame {
		h2wire.PutFrameHeader(c.pending[at:], h)
		return
	}
	block := append([]byte(nil), c.pending[at+h2wire.FrameHeaderLen:]...)
	c.pending = c.pending[:at]
	h.Flags &^= h2wire.FlagEndHeaders
	for len(block) > 0 {
		h.Length = min(len(block), c.peerMaxFrame)
		if h.Length == len(block) {
			h.Flags |= h2wire.FlagEndHeaders
		}
		c.pending = append(h2wire.AppendFrameHeader(c.pending, h), block[:h.Length]...)
		block = block[h.Length:]
		h.Type, h.Flags = h2wire.FrameContinuation, 0
	}
}

// trailersFrameLocked ends a stream with fields.
func (s *stream) trailersFrameLocked(fields message.Fields) {
	at := s.c.beginBlockLocked()
	s.c.fieldsLocked(fields)
	s.c.endBlockLocked(at, s.id, true)
	s.sendEndLocked()
}

// maxData is the largest DATA frame that we send, so that streams take turns.
const maxData = 32 << 10

// dataLocked appends as much of p as the windows and the backlog have room for, and
// gives what is left.
func (s *stream) dataLocked(p []byte) []byte {
	c := s.c
	for len(p) > 0 && len(c.pending) < maxPending {
		n := min(int64(len(p)), s.sendWindow, c.sendWindow, int64(c.peerMaxFrame), maxData)
		if n <= 0 {
			break
		}
		s.sendWindow -= n
		c.sendWindow -= n
		c.earned += earnedByData
		s.lastAt, s.lastBatch = len(c.pending), c.batch
		c.pending = h2wire.AppendFrameHeader(c.pending, h2wire.FrameHeader{Length: int(n), Type: h2wire.FrameData, Stream: s.id})
		c.pending = append(c.pending, p[:n]...)
		p = p[n:]
	}
	return p
}

// endFrameLocked ends a stream: by a flag on its last DATA frame if that was not
// written yet, else by an empty one.
func (s *stream) endFrameLocked() {
	c := s.c
	if s.lastAt >= 0 && s.lastBatch == c.batch {
		c.pending[s.lastAt+4] |= h2wire.FlagEndStream
	} else {
		c.pending = h2wire.AppendFrameHeader(c.pending, h2wire.FrameHeader{Type: h2wire.FrameData, Flags: h2wire.FlagEndStream, Stream: s.id})
	}
	s.sendEndLocked()
}

// sendLocked sends all of p, waiting for room as long as the stream lives. It
// leaves the last part pending.
func (s *stream) sendLocked(p []byte) error {
	c := s.c
	for {
		if s.err != nil {
			return s.err
		}
		if p = s.dataLocked(p); len(p) == 0 {
			return nil
		}
		if s.sendWindow > 0 && c.sendWindow > 0 {
			if c.kickLocked(); len(c.pending) >= maxPending && s.err == nil {
				c.room.Wait()
			}
			continue
		}
		s.starved = true
		ch := waitChan(&s.sendWake)
		if c.kickLocked(); !s.starved {
			continue // window came while we wrote
		}
		c.mu.Unlock()
		<-ch
		c.mu.Lock()
	}
}
