package zds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/internal/netns"
)

type op int

const (
	opAdd op = iota // or Keep, as the pod is when its turn comes
	opDel
	opSnapshotSent
)

// entry is one request in line. What it says about the pod is looked up when its
// turn comes, so that a queue never holds stale state.
type entry struct {
	uid     string
	op      op
	attempt int // of an addition, from 0
	due     time.Time
}

// session is one connected ztunnel. run owns it but for what Server.mu guards.
type session struct {
	server *Server
	conn   *conn
	wake   chan struct{} // capacity 1
	// handsOver says that the ztunnel takes listening sockets over.
	handsOver bool
	// waits says that it is given pods only when it is its turn (order).
	waits bool
	// told is called when it was told of all pods, or has gone.
	told func()

	queue []entry             // guarded by Server.mu
	acked map[string]netns.ID // guarded by Server.mu

	retries []entry // owned by run
}

func newSession(s *Server, c *conn, handsOver bool) *session {
	return &session{server: s, conn: c, handsOver: handsOver, wake: make(chan struct{}, 1), told: func() {}, acked: make(map[string]netns.ID)}
}

// enqueue appends a request; Server.mu is held.
func (s *session) enqueue(e entry) {
	s.queue = append(s.queue, e)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

type answer struct {
	text string
	fds  []int // listening sockets; whoever takes the answer owns them
	err  error // the connection is at its end
}

// run sends what is in line and waits for each answer, until the connection or
// ctx ends.
func (s *session) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	answers := make(chan answer)
	readerDone := make(chan struct{})
	go func() {
		defer close(readerDone)
		s.read(ctx, answers)
	}()
	defer func() {
		cancel()
		s.conn.close()
		<-readerDone
		s.told()
	}()
	if s.waits {
		if err := s.server.order.await(ctx, answers); err != nil {
			return err
		}
	}
	for {
		e, err := s.next(ctx, answers)
		if err != nil {
			return err
		}
		if err := s.exchange(ctx, e, answers); err != nil {
			return err
		}
	}
}

// read hands on each answer until the connection ends.
func (s *session) read(ctx context.Context, answers chan<- answer) {
	for {
		var a answer
		packet, fds, err := s.conn.receive()
		if err == nil {
			if a.text, err = decodeAck(packet, len(fds)); err != nil {
				closeAll(fds)
			} else {
				a.fds = fds
			}
		}
		a.err = err
		select {
		case answers <- a:
		case <-ctx.Done():
			closeAll(a.fds)
			return
		}
		if err != nil {
			return
		}
	}
}

// next waits for a request to send: those in line first, then retries as they
// fall due.
func (s *session) next(ctx context.Context, answers <-chan answer) (entry, error) {
	for {
		if e, ok := s.pop(); ok {
			return e, nil
		}
		var due <-chan time.Time
		var timer *time.Timer
		if i := s.earliest(); i >= 0 {
			timer = time.NewTimer(time.Until(s.retries[i].due))
			due = timer.C
		}
		select {
		case <-ctx.Done():
			return entry{}, ctx.Err()
		case a := <-answers:
			if a.err == nil {
				closeAll(a.fds)
				a.err = malformed("an answer to no request")
			}
			return entry{}, a.err
		case <-s.wake:
		case <-due:
			i := s.earliest()
			e := s.retries[i]
			s.retries = append(s.retries[:i], s.retries[i+1:]...)
			return e, nil
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

func (s *session) pop() (entry, bool) {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if len(s.queue) == 0 {
		return entry{}, false
	}
	e := s.queue[0]
	s.queue = s.queue[1:]
	return e, true
}

// earliest is the index of the retry that is due first, -1 if there is none.
func (s *session) earliest() int {
	found := -1
	for i, e := range s.retries {
		if found < 0 || e.due.Before(s.retries[found].due) {
			found = i
		}
	}
	return found
}

// exchange sends one request and takes its answer.
func (s *session) exchange(ctx context.Context, e entry, answers <-chan answer) error {
	msg, p, listeners, ok := s.request(e)
	if !ok {
		return nil
	}
	err := s.conn.send(msg, p.ns, listeners...)
	closeAll(listeners)
	if err != nil {
		if errors.Is(err, os.ErrClosed) && p.ns != nil && ctx.Err() == nil {
			return s.closedMeanwhile(e, p, err)
		}
		return fmt.Errorf("send ZDS request: %w", err)
	}
	timer := time.NewTimer(Timeout)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("ztunnel did not answer within %s", Timeout)
	case a := <-answers:
		if a.err != nil {
			return a.err
		}
		s.answered(e, p, a)
		return nil
	}
}

// closedMeanwhile handles a namespace that its owner closed while its turn
// came: the pod is gone, or soon replaced. A connection that was closed gives the
// same error.
func (s *session) closedMeanwhile(e entry, p pod, err error) error {
	if p.ns.WithFD(func(int) error { return nil }) == nil {
		return fmt.Errorf("send ZDS request: %w", io.EOF)
	}
	s.server.cfg.Logger.Debug("pod was released before its turn", zap.String("uid", e.uid), zap.Error(err))
	return nil
}

// request builds the message for an entry; ok is false if it has become moot. The
// caller closes the listeners that go with it.
func (s *session) request(e entry) (msg proto.Message, p pod, listeners []int, ok bool) {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	p, wanted := s.server.pods[e.uid]
	switch e.op {
	case opSnapshotSent:
		return snapshotSent(), pod{}, nil, true
	case opDel:
		if wanted { // removed and set again meanwhile; the addition is in line
			return nil, pod{}, nil, false
		}
		delete(s.acked, e.uid)
		return delRequest(e.uid), pod{}, nil, true
	}
	if !wanted {
		return nil, pod{}, nil, false
	}
	if p.ns == nil {
		return keepRequest(e.uid), p, nil, true
	}
	h := s.server.handoverLocked(s, e.uid, p)
	if h != nil {
		listeners = h.Listeners
	}
	return addRequest(e.uid, p.info, h), p, listeners, true
}

// answered records the answer to an entry; its text is empty for success.
func (s *session) answered(e entry, p pod, a answer) {
	var err error
	if a.text != "" {
		err = fmt.Errorf("ztunnel: %s", a.text)
	}
	if e.op == opAdd && err == nil && p.ns != nil {
		s.take(e.uid, p, a.fds)
	} else {
		closeAll(a.fds)
	}
	s.server.metrics.ack(err)
	log := s.server.cfg.Logger.With(zap.String("uid", e.uid))
	if e.op == opSnapshotSent {
		s.told()
	}
	switch {
	case e.op != opAdd:
		if err != nil {
			log.Warn("ztunnel refused a removal or the end of the snapshot", zap.Error(err))
		}
		return
	case err == nil:
		s.server.mu.Lock()
		s.acked[e.uid] = p.id()
		s.server.mu.Unlock()
	default:
		wait := s.server.cfg.RetryMin << min(e.attempt, 10)
		wait = min(wait, s.server.cfg.RetryMax)
		log.Warn("ztunnel could not take over a pod", zap.Duration("retry_in", wait), zap.Error(err))
		s.retries = append(s.retries, entry{uid: e.uid, op: opAdd, attempt: e.attempt + 1, due: time.Now().Add(wait)})
	}
	s.server.cfg.OnResult(Result{UID: e.uid, Namespace: p.id(), Err: err})
}
