package hbone

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"
)

// maxPending is how much may wait behind the write that is under way before
// those who send data have to wait too. In bytes.
const maxPending = 256 << 10

// maxBacklog is where a connection ends whose peer asks for answers and takes
// none. What does not wait, answers to PING and the like, stays far below it with
// any other peer.
const maxBacklog = maxPending + 512<<10

// errSilent is what becomes of a frame of a stream that was reset.
var errSilent = errors.New("stream was reset")

// flushRounds is how often a sender writes what others left for it before a
// goroutine takes that over, so that no stream works for the others for ever.
const flushRounds = 4

// sender serialises frames onto the TLS connection. Whoever finds it free writes
// at once; whoever finds it busy leaves its frames to the one who is writing,
// who sends all that gathered in one go. Under load the frames of many streams
// thus share a TLS record and a system call, and without load nothing is handed
// from goroutine to goroutine.
type sender struct {
	conn   net.Conn // TLS over hold
	hold   *coalescer
	failed func(error) // called without mu when a write failed or the backlog is full

	mu      sync.Mutex
	room    sync.Cond  // pending shrank, or err was set
	turn    sync.Cond  // busy was given up, or err was set
	busy    bool       // somebody writes; guarded by mu
	latest  *Stream    // whose frame came last; guarded by mu
	pending []byte     // guarded by mu
	spare   []byte     // guarded by mu
	err     error      // what further sends return; guarded by mu
	broken  bool       // a write failed: nothing more is written; guarded by mu
	closing func(bool) // called once nobody writes any more, with broken; guarded by mu
}

func newSender(conn net.Conn, hold *coalescer, failed func(error)) *sender {
	s := &sender{conn: conn, hold: hold, failed: failed}
	s.room.L, s.turn.L = &s.mu, &s.mu
	return s
}

// ownTurn is the size from which a frame waits for its turn to be written from
// where it is: copying it, and the caches that this costs, is dearer than a wait.
const ownTurn = 16 << 10

// send writes a frame of a stream or leaves it to be written; frame may be used
// again as soon as it returns. It waits while the backlog is full, and with a
// large frame until nobody else writes.
func (s *sender) send(of *Stream, frame []byte) error {
	s.mu.Lock()
	for s.busy && s.err == nil && !of.silent {
		switch {
		case len(frame) >= ownTurn:
			s.turn.Wait()
			continue
		case len(s.pending)+len(frame) > maxPending:
			s.room.Wait()
			continue
		}
		break
	}
	if err := s.err; err != nil || of.silent {
		s.turn.Signal() // the turn is somebody else's, if it was this one's
		s.mu.Unlock()
		if err == nil {
			err = errSilent
		}
		return err
	}
	others := of != s.latest
	s.latest = of
	if s.busy {
		s.pending = append(s.pending, frame...)
		s.mu.Unlock()
		return nil
	}
	s.busy = true
	if others && len(frame) < ownTurn {
		// Several streams are talking. Those that are about to have something to
		// say leave it here meanwhile: one record and one system call for all.
		s.pending = append(s.pending, frame...)
		s.mu.Unlock()
		runtime.Gosched()
		return s.rounds()
	}
	s.mu.Unlock()
	s.wrote(s.write(frame))
	return s.rounds()
}

// open writes what build appends, or leaves it to be written. build runs under
// the lock, so that what it numbers goes out in the order of the numbers. With
// wait it waits while the backlog is full.
func (s *sender) open(wait bool, build func(b []byte) ([]byte, error)) error {
	s.mu.Lock()
	for wait && s.busy && s.err == nil && len(s.pending) > maxPending {
		s.room.Wait()
	}
	if err := s.err; err != nil {
		s.mu.Unlock()
		return fmt.Errorf("%w: %w", ErrDraining, err)
	}
	b, err := build(s.pending)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	s.pending = b
	if s.busy {
		s.mu.Unlock()
		return nil
	}
	s.busy = true
	s.mu.Unlock()
	return s.rounds()
}

// post leaves frames to be written by another goroutine and never waits.
func (s *sender) post(frames []byte) { s.leave(nil, frames) }

// last posts the last frames of a stream, if any: nothing that is sent for it
// afterwards goes out.
func (s *sender) last(of *Stream, frames []byte) { s.leave(of, frames) }

func (s *sender) leave(of *Stream, frames []byte) {
	s.mu.Lock()
	if of != nil {
		of.silent = true
		s.room.Broadcast()
		s.turn.Broadcast()
	}
	full := len(s.pending)+len(frames) > maxBacklog
	if len(frames) > 0 && s.err == nil && !full {
		s.pending = append(s.pending, frames...)
		if !s.busy {
			s.busy = true
			go s.flush()
		}
	}
	full = full && s.err == nil
	s.mu.Unlock()
	if full {
		s.failed(connError(CodeEnhanceYourCalm, "peer asks for answers and reads none"))
	}
}

// fail makes every further send return err. What was left before is still
// written if the peer takes it. Then closing is called, with whether writing
// failed.
func (s *sender) fail(err error, closing func(broken bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing != nil {
		return
	}
	if s.err == nil {
		s.err = err
	}
	s.closing = closing
	s.room.Broadcast()
	s.turn.Broadcast()
	if !s.busy {
		s.busy = true
		go s.flush()
	}
}

// rounds writes what others left, for a while. The caller owns busy.
func (s *sender) rounds() error {
	for range flushRounds {
		if !s.flushPending() {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.err
		}
	}
	go s.flush()
	return nil
}

// flush writes until nothing is pending. It owns busy.
func (s *sender) flush() {
	for s.flushPending() {
	}
}

// flushPending writes what gathered and reports true, or gives up busy and
// reports false if nothing did.
func (s *sender) flushPending() bool {
	s.mu.Lock()
	if s.broken || len(s.pending) == 0 {
		s.rest()
		return false
	}
	batch := s.pending
	s.pending, s.spare = s.spare[:0], nil
	s.room.Broadcast()
	s.mu.Unlock()
	s.wrote(s.write(batch))
	s.mu.Lock()
	if s.spare == nil {
		s.spare = batch[:0]
	}
	s.mu.Unlock()
	return true
}

// rest gives up busy. The caller holds mu, which is released.
func (s *sender) rest() {
	// A burst's backlog is not kept by an idle connection.
	if cap(s.spare) > bufSize {
		s.spare = nil
	}
	if cap(s.pending) > bufSize {
		s.pending = nil
	}
	if s.closing == nil {
		s.busy = false
		s.room.Broadcast()
		s.turn.Signal()
		s.mu.Unlock()
		return
	}
	// busy stays: nobody writes after the end.
	closing, broken := s.closing, s.broken
	s.pending, s.spare = nil, nil
	s.mu.Unlock()
	closing(broken)
}

// wrote notes the outcome of a write.
func (s *sender) wrote(err error) {
	if err == nil {
		return
	}
	s.mu.Lock()
	s.broken = true
	if s.err == nil {
		s.err = err
	}
	s.room.Broadcast()
	s.turn.Broadcast()
	s.mu.Unlock()
	s.failed(err)
}

func (s *sender) write(p []byte) error {
	s.hold.begin()
	_, err := s.conn.Write(p)
	if ferr := s.hold.end(); err == nil {
		err = ferr
	}
	return err
}

// coalescer sits under the TLS layer, which writes record by record, and turns
// the records of one send into one system call.
type coalescer struct {
	net.Conn

	mu      sync.Mutex
	holding bool    // guarded by mu
	buf     *[]byte // guarded by mu; nil when nothing is held
	n       int     // bytes held; guarded by mu
}

var records = sync.Pool{New: func() any { b := make([]byte, bufSize+4<<10); return &b }}

// SetWriteDeadline does nothing: conn sets deadlines below the TLS layer, which
// would set a longer one when it says goodbye.
func (c *coalescer) SetWriteDeadline(time.Time) error { return nil }

func (c *coalescer) begin() {
	c.mu.Lock()
	c.holding = true
	c.mu.Unlock()
}

// Write implements net.Conn.
func (c *coalescer) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.holding {
		return c.Conn.Write(p)
	}
	if c.buf == nil {
		c.buf = records.Get().(*[]byte)
	}
	if c.n+len(p) > len(*c.buf) {
		if err := c.flushLocked(); err != nil {
			return 0, err
		}
		if len(p) > len(*c.buf) {
			return c.Conn.Write(p)
		}
	}
	c.n += copy((*c.buf)[c.n:], p)
	return len(p), nil
}

func (c *coalescer) flushLocked() error {
	if c.n == 0 {
		return nil
	}
	_, err := c.Conn.Write((*c.buf)[:c.n])
	c.n = 0
	return err
}

// end writes what is held. It stays under the lock while it writes, so that an
// alert of the reading side cannot overtake records.
func (c *coalescer) end() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holding = false
	err := c.flushLocked()
	if c.buf != nil {
		records.Put(c.buf)
		c.buf = nil
	}
	return err
}
