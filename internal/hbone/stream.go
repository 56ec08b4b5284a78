package hbone

import (
	"os"
	"sync"
	"sync/atomic"

	"github.com/ambit-mesh/ambit/internal/h2wire"
)

// Stream is one tunnelled byte stream.
type Stream struct {
	c  *conn
	id uint32

	// Flow control towards the peer, guarded by c.mu. wake has room for one token.
	sendWindow int64
	wake       chan struct{}

	sent, received atomic.Int64 // bytes of payload
	response       chan *header // client: the answer to our HEADERS
	writeLimit     *deadline    // of a stream that is used as a connection; set before it is written to
	deaf           atomic.Bool  // the peer takes no more of our data
	silent         bool         // no more frames go out; guarded by the sender's mu

	mu       sync.Mutex
	out      *outlet   // where data goes; nil until spliced. Guarded by mu
	queue    []chunk   // what out has not taken; guarded by mu
	reader   *readWait // the stream is read as a connection; guarded by mu
	drainer  bool      // a goroutine empties queue; guarded by mu
	lagged   bool      // data was queued since the last window update; guarded by mu
	avail    int       // what the peer may still send; guarded by mu
	window   int       // what the peer may send at most; guarded by mu
	freed    int       // taken and not yet given back; guarded by mu
	accepted bool      // server: 200 was sent; guarded by mu
	peerDone bool      // END_STREAM came; guarded by mu
	outDone  bool      // and was passed on; guarded by mu
	weDone   bool      // we sent END_STREAM; guarded by mu
	ended    bool      // guarded by mu
	err      error     // why, nil for an orderly end; guarded by mu
	done     chan struct{}
}

func newStream(c *conn, id uint32) *Stream {
	return &Stream{c: c, id: id, wake: make(chan struct{}, 1), avail: c.cfg.StreamWindow, window: c.cfg.StreamWindow, done: make(chan struct{})}
}

// Transferred gives the payload bytes sent to and received from the peer.
func (s *Stream) Transferred() (sent, received int64) { return s.sent.Load(), s.received.Load() }

// Done is closed when the stream has ended.
func (s *Stream) Done() <-chan struct{} { return s.done }

// Err says why the stream ended; nil while it has not, and for an orderly end.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Reset ends the stream at both ends at once.
func (s *Stream) Reset(code ErrCode) { s.reset(code) }

func (s *Stream) reset(code ErrCode) { s.fail(&ResetError{Code: code}, code) }

// appFailed passes a failure of the application's connection on to the peer.
func (s *Stream) appFailed(err error) { s.fail(err, CodeCancel) }

// fail ends the stream because of err and tells the peer with code.
func (s *Stream) fail(err error, code ErrCode) {
	s.finishWith(err, h2wire.AppendRSTStream(nil, s.id, code))
}

// peerReset ends the stream at the peer's wish. A peer that has ended its
// direction and wants nothing of ours says NO_ERROR; what it sent is still
// delivered (RFC 9113 section 8.1).
func (s *Stream) peerReset(code ErrCode) {
	s.mu.Lock()
	kept := code == CodeNo && s.peerDone && !s.ended
	out := s.out
	if kept {
		s.deaf.Store(true)
	}
	s.mu.Unlock()
	s.c.out.last(s, nil)
	if !kept {
		s.finish(&ResetError{Code: code, Remote: true})
		return
	}
	if out != nil {
		out.stopReading()
	}
	s.notify()
	s.localEnd()
}

// finish ends the stream and reports whether it had not ended before. With an
// error the application's connection is reset.
func (s *Stream) finish(err error) bool { return s.finishWith(err, nil) }

// finishWith also sends the peer last frames: before the connection, which may have
// waited for the end of this stream only, hangs up.
func (s *Stream) finishWith(err error, last []byte) bool {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return false
	}
	s.ended, s.err = true, err
	out := s.out
	pending := s.dropLocked()
	s.reader.notify()
	s.mu.Unlock()
	if out != nil && err != nil {
		out.abort()
	}
	// Only now, because who waits for it closes the application's connection, and
	// that must not look like an orderly end.
	close(s.done)
	if len(last) > 0 {
		s.c.out.last(s, last)
	}
	s.c.consumed(pending)
	s.c.forget(s)
	return true
}

// dropLocked empties the queue and gives its size. A chunk that a drainer is
// writing is the drainer's.
func (s *Stream) dropLocked() (n int) {
	for i := range s.queue {
		n += len(s.queue[i].data)
		s.queue[i].release()
	}
	s.queue = nil
	return n
}

// complete reports whether both ends have sent all that they ever will.
func (s *Stream) complete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peerDone && s.weDone
}

// answered reports whether the stream has got beyond its opening.
func (s *Stream) answered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.c.server || s.accepted
}

// admit takes n bytes off the window, or says what the peer did wrong.
func (s *Stream) admit(n int) ErrCode {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.avail -= n
	switch {
	case s.peerDone:
		return CodeStreamClosed
	case s.avail < 0:
		return CodeFlowControl
	}
	return CodeNo
}

// accept notes the one positive answer of a server; an error means that there may
// be none.
func (s *Stream) accept() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended && s.err != nil:
		return s.err
	case s.ended:
		return ErrClosed
	case s.accepted:
		return errAnswered
	}
	s.accepted = true
	return nil
}

// deliver passes data on, or queues what the application does not take at once.
// Called by the read loop; it never waits. It appends window updates to frames.
func (s *Stream) deliver(p []byte, frames []byte) []byte {
	s.received.Add(int64(len(p)))
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		s.c.consumed(len(p))
		return frames
	}
	if r := s.reader; r != nil {
		s.handLocked(r, p)
		s.mu.Unlock()
		return frames
	}
	n := 0
	if s.out != nil && !s.drainer {
		// Nobody else writes while drainer is false: splice starts one when it
		// finds something queued, and only we start another.
		out := s.out
		s.mu.Unlock()
		var err error
		if n, err = out.tryWrite(p); err != nil {
			s.appFailed(appError(err))
			s.c.consumed(len(p))
			return frames
		}
		if n == len(p) {
			return s.took(n, true, frames)
		}
		s.mu.Lock()
	}
	rest := len(p) - n
	if s.ended {
		rest = 0
		n = len(p)
	} else {
		s.enqueueLocked(p[n:])
	}
	s.mu.Unlock()
	if n > 0 {
		frames = s.took(n, rest == 0, frames)
	}
	return frames
}

// handLocked gives data to the Read that waits, or queues it for the next one,
// which gives the window back.
func (s *Stream) handLocked(r *readWait, p []byte) {
	if r.buf != nil && r.n == 0 && len(s.queue) == 0 {
		r.n = copy(r.buf, p)
		p = p[r.n:]
	}
	if len(p) > 0 {
		s.enqueueLocked(p)
	}
	r.notify()
}

func (r *readWait) notify() {
	if r == nil {
		return
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (s *Stream) enqueueLocked(p []byte) {
	s.lagged = true
	if last := len(s.queue) - 1; last >= 0 {
		if b := s.queue[last].data; len(b)+len(p) <= cap(b) {
			s.queue[last].data = append(b, p...)
			p = nil
		}
	}
	if len(p) > 0 {
		last := 0
		if n := len(s.queue); n > 0 {
			last = cap(s.queue[n-1].data)
		}
		s.queue = append(s.queue, newChunk(p, 2*last))
	}
	if s.out != nil && !s.drainer {
		s.drainer = true
		go s.drain(s.out)
	}
}

// drain writes what is queued, waiting for the application, and ends when nothing
// is left.
func (s *Stream) drain(out *outlet) {
	for {
		s.mu.Lock()
		if s.ended || len(s.queue) == 0 {
			s.drainer = false
			end := !s.ended && s.peerDone && !s.outDone
			s.mu.Unlock()
			if end {
				s.passEnd(out)
			}
			return
		}
		c := s.queue[0]
		if s.queue = s.queue[1:]; len(s.queue) == 0 {
			s.queue = nil
		}
		s.mu.Unlock()
		n := len(c.data)
		err := out.write(c.data)
		c.release()
		if err != nil {
			s.c.consumed(n)
			s.appFailed(appError(err))
			continue
		}
		s.c.post(s.took(n, false, nil))
	}
}

// reading is what the window of a stream that is read at all may grow to, in bytes: who
// has to share a busy core falls behind for moments. Beyond it grows who keeps up.
const reading = 256 << 10

// took gives window back for n bytes that the application has taken. A reader that
// keeps up gets a window twice as large each time, so that a fast path is not
// limited by its round trip and a stuck reader holds little.
func (s *Stream) took(n int, direct bool, frames []byte) []byte {
	s.c.consumed(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.freed += n
	if s.freed < s.window/2 || s.peerDone || s.ended {
		return frames
	}
	grant := s.freed
	if keepsUp := direct && !s.lagged; s.window < s.c.cfg.MaxStreamWindow && (keepsUp || s.window < reading) {
		if more := min(2*s.window, s.c.cfg.MaxStreamWindow) - s.window; s.c.grow(more) {
			grant += more
			s.window += more
		}
	}
	s.avail += grant
	s.freed, s.lagged = 0, false
	return h2wire.AppendWindowUpdate(frames, s.id, grant)
}

// remoteEnd notes END_STREAM.
func (s *Stream) remoteEnd() {
	s.mu.Lock()
	if s.peerDone {
		s.mu.Unlock()
		s.reset(CodeStreamClosed)
		return
	}
	s.peerDone = true
	s.reader.notify()
	pass := s.out != nil && !s.drainer && len(s.queue) == 0 && !s.ended
	out := s.out
	s.mu.Unlock()
	if pass {
		s.passEnd(out)
	}
}

// passEnd closes the application's read side: everything was written.
func (s *Stream) passEnd(out *outlet) {
	if err := out.closeWrite(); err != nil {
		s.appFailed(appError(err))
		return
	}
	s.mu.Lock()
	s.outDone = true
	both := s.weDone
	s.mu.Unlock()
	if both {
		s.finish(nil)
	}
}

// localEnd notes that we sent END_STREAM.
func (s *Stream) localEnd() {
	s.mu.Lock()
	s.weDone = true
	both := s.outDone
	s.mu.Unlock()
	if both {
		s.finish(nil)
	}
}

// credit waits until something may be sent and gives how much, at most max. It
// reserves nothing; see reserve.
func (s *Stream) credit(max int) (int, error) {
	for {
		s.c.mu.Lock()
		n := min(s.sendWindow, s.c.sendWindow, int64(s.c.peerMaxFrame), int64(max))
		s.c.mu.Unlock()
		if n > 0 {
			return int(n), nil
		}
		if err := s.awaitCredit(); err != nil {
			return 0, err
		}
	}
}

// reserve takes up to n bytes of window, waiting until there are some.
func (s *Stream) reserve(n int) (int, error) {
	for {
		s.c.mu.Lock()
		got := min(s.sendWindow, s.c.sendWindow, int64(n))
		if got > 0 {
			s.sendWindow -= got
			s.c.sendWindow -= got
			s.c.mu.Unlock()
			return int(got), nil
		}
		s.c.mu.Unlock()
		if err := s.awaitCredit(); err != nil {
			return 0, err
		}
	}
}

func (s *Stream) awaitCredit() error {
	select {
	case <-s.wake:
		if s.deaf.Load() {
			return ErrClosed
		}
		return nil
	case <-s.writeLimit.expired():
		return os.ErrDeadlineExceeded
	case <-s.done:
		return s.endedErr()
	}
}

func (s *Stream) endedErr() error {
	if err := s.Err(); err != nil {
		return err
	}
	return ErrClosed
}

// notify wakes a waiting sender.
func (s *Stream) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
