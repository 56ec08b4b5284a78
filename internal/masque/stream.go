package masque

import "io"

// Stream carries datagrams in capsules through a stream of bytes, where QUIC does not
// get through. Send and Receive are each for one goroutine at a time.
type Stream struct {
	rw  io.ReadWriter
	buf []byte // capsules that wait for those that follow
}

// NewStream uses rw, which stays the caller's to close.
func NewStream(rw io.ReadWriter) *Stream { return &Stream{rw: rw} }

// maxWaiting is how many bytes of capsules wait for others.
const maxWaiting = 16 << 10

// Send takes a datagram; more says that others follow at once. nil is none, and
// sends what has waited.
func (s *Stream) Send(p []byte, more bool) error {
	if p != nil {
		s.buf = AppendCapsule(s.buf, AppendUDP(make([]byte, 0, len(p)+1), p))
	}
	if len(s.buf) == 0 || more && len(s.buf) < maxWaiting {
		return nil
	}
	_, err := s.rw.Write(s.buf)
	s.buf = s.buf[:0]
	return err
}

// Receive calls f for each datagram until the stream ends; nil when the peer ended it
// between two capsules. p is valid until f returns; it is nil where there is nothing
// but that no other follows, after all.
func (s *Stream) Receive(f func(p []byte, more bool)) error {
	r := NewCapsuleReader(s.rw)
	for {
		payload, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := EachMore(payload, r.Buffered(), f); err != nil {
			return err
		}
	}
}

// EachMore is Each, and tells the last datagram of a payload, behind which no other
// payload follows at once, from those before it: p is as in Stream.Receive.
func EachMore(payload []byte, follows bool, f func(p []byte, more bool)) error {
	var held []byte
	have := false // a datagram may be empty, and is not nil then
	err := Each(payload, func(p []byte) {
		if have {
			f(held, true)
		}
		held, have = p, true
	})
	if have || !follows {
		f(held, follows)
	}
	return err
}
