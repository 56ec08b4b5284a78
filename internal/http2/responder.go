package http2

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/internal/h2wire"
	"github.com/ambit-mesh/ambit/internal/message"
)

// serverStream is one request and its answer. Beyond the stream it is guarded by
// the connection's mu too.
type serverStream struct {
	stream
	req message.Request
	ctx streamContext

	continued bool // 100 was sent
	answered  bool // Respond was called
	headSent  bool
	bodiless  bool // what Write gets is not sent
	status    int
	fields    message.Fields
	length    int64 // as announced; -1 for nothing
	left      int64 // bytes of it still to be written; -1 when it is not known
}

var _ message.Responder = (*serverStream)(nil)

// inlineFields is how many fields a request's head has room for at once.
const inlineFields = 12

func (sc *ServerConn) newStream(id uint32) *serverStream {
	s := &serverStream{}
	s.id, s.server, s.lastAt = id, s, -1
	s.ctx.parent = sc.ctx
	s.req.Fields = make(message.Fields, 0, inlineFields)
	return s
}

// statusLocked begins a HEADERS frame with :status.
func (s *serverStream) statusLocked(status int) (at int) {
	at = s.c.beginBlockLocked()
	s.c.fieldLocked(":status", statusText(status))
	return at
}

func statusText(status int) string {
	switch status {
	case 200:
		return "200"
	case 404:
		return "404"
	case 503:
		return "503"
	}
	return strconv.Itoa(status)
}

// Inform implements message.Responder.
func (s *serverStream) Inform(status int, fields message.Fields) error {
	if status < 100 || status > 199 || status == 101 {
		return fmt.Errorf("status %d is not an interim one", status)
	}
	if err := checkFields(fields); err != nil {
		return err
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.roomLocked()
	switch {
	case s.answered:
		return errAnswered
	case s.err != nil:
		return s.err
	case status == 100 && s.continued:
		return nil
	}
	s.continued = s.continued || status == 100
	at := s.statusLocked(status)
	s.c.fieldsLocked(fields)
	s.c.endBlockLocked(at, s.id, false)
	s.c.kickLocked()
	return nil
}

// continueLocked sends 100 (Continue) if the client waits for it.
func (s *serverStream) continueLocked() {
	if !s.req.Continue || s.continued || s.answered || s.gone {
		return
	}
	s.continued = true
	s.c.endBlockLocked(s.statusLocked(100), s.id, false)
	s.c.laterLocked()
}

// Respond implements message.Responder. The head is held back: the fields must not
// change until Write, Flush or End has returned.
func (s *serverStream) Respond(resp *message.Response) error {
	status := resp.Status
	tunnel := s.req.Tunnel() && (status == 101 || status/100 == 2)
	if tunnel && status == 101 {
		status = 200 // RFC 8441 section 5
	}
	if status < 200 || status > 999 {
		return fmt.Errorf("status %d cannot be sent", resp.Status)
	}
	if err := checkFields(resp.Fields); err != nil {
		return err
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	switch {
	case s.answered:
		return errAnswered
	case s.err != nil:
		return s.err
	}
	s.answered = true
	s.status, s.fields, s.length, s.left = status, resp.Fields, resp.ContentLength, resp.ContentLength
	s.bodiless = bodiless(s.req.Method, status)
	switch {
	case tunnel:
		s.length, s.left, s.bodiless = -1, -1, false
	case status == 204:
		s.length = -1 // RFC 9110 section 8.6
	case s.length == 0 && strings.HasPrefix(resp.Fields.Get("content-type"), "application/grpc"):
		s.length = -1 // an answer of trailers alone has no length
	}
	return nil
}

// headLocked sends the head that was held back.
func (s *serverStream) headLocked(end bool) {
	at := s.statusLocked(s.status)
	if s.length >= 0 {
		s.c.fieldLocked("content-length", strconv.FormatInt(s.length, 10))
	}
	s.c.fieldsLocked(s.fields)
	s.c.endBlockLocked(at, s.id, end)
	s.headSent, s.fields = true, nil
	if end {
		s.sendEndLocked()
	}
}

// readyLocked says whether there may be content.
func (s *serverStream) readyLocked() error {
	switch {
	case s.err != nil:
		return s.err
	case !s.answered:
		return errUnanswered
	case s.sendEnd:
		return errEnded
	}
	return nil
}

// roomLocked waits until the connection has room for more to send: heads are not
// bounded by windows, and a client that asks and reads nothing must not fill our
// memory with them.
func (s *serverStream) roomLocked() {
	for s.err == nil && s.c.writing && len(s.c.pending) >= maxPending {
		s.c.room.Wait()
	}
}

// firstPiece is how large the first piece of a body may be to wait a moment for
// the end, in bytes.
const firstPiece = 16 << 10

// Write implements message.Responder. The first piece of a body is written by
// another goroutine unless Flush or End follow at once: then head, body and end
// leave together.
func (s *serverStream) Write(p []byte) (int, error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.roomLocked()
	if err := s.readyLocked(); err != nil {
		return 0, err
	}
	if s.bodiless || len(p) == 0 {
		return len(p), nil
	}
	if s.left >= 0 {
		if s.left -= int64(len(p)); s.left < 0 {
			s.resetLocked(h2wire.CodeInternal, errLength)
			return 0, errLength
		}
	}
	rest := p
	if !s.headSent {
		s.headLocked(false)
		if rest = s.dataLocked(p); len(rest) == 0 && len(p) <= firstPiece {
			c.laterLocked()
			return len(p), nil
		}
	}
	if err := s.sendLocked(rest); err != nil {
		return 0, err
	}
	c.kickLocked()
	return len(p), nil
}

// Flush implements message.Responder.
func (s *serverStream) Flush() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.roomLocked()
	if err := s.readyLocked(); err != nil {
		return err
	}
	if !s.headSent {
		s.headLocked(false)
	}
	s.c.kickLocked()
	return nil
}

// End implements message.Responder.
func (s *serverStream) End(trailers message.Fields) error {
	err := checkFields(trailers)
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.roomLocked()
	if rerr := s.readyLocked(); rerr != nil {
		return rerr
	}
	if err == nil && s.left > 0 && !s.bodiless {
		err = errLength
	}
	if err != nil {
		s.resetLocked(h2wire.CodeInternal, err)
		return err
	}
	if s.bodiless {
		trailers = nil
	}
	if !s.headSent {
		s.headLocked(len(trailers) == 0)
	}
	switch {
	case s.sendEnd:
	case len(trailers) > 0:
		s.trailersFrameLocked(trailers)
	default:
		s.endFrameLocked()
	}
	c.earned += earnedByExchange
	c.kickLocked()
	return nil
}

// Break implements message.Responder. A reset that the reason is goes on with its
// code.
func (s *serverStream) Break(reason error) {
	code := h2wire.CodeInternal
	var reset *ResetError
	if errors.As(reason, &reset) && reset.Code != h2wire.CodeNo {
		code = reset.Code
	}
	if reason == nil {
		reason = errUnanswered
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.resetLocked(code, reason)
}
