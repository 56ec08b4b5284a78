package zds

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/relay/end"
)

// maxListeners is how many sockets of a pod are handed over at most: those that
// listen, are bound for UDP, or are the ends of relays.
const maxListeners = 24

// Handover is what a ztunnel is given to take a pod over from another one.
type Handover struct {
	// Listeners are descriptors of the sockets that listen in the pod, and of relays
	// to processes that did (package relay); the handler owns them whatever it returns.
	Listeners []int
	// Served says that another ztunnel accepts the pod's connections at this time.
	Served bool
}

// Successor is a Handler that takes listening sockets over and gives its own away,
// so that connections wait in their queues while no ztunnel is there, instead of
// being refused.
type Successor interface {
	Handler
	// Serving says that it accepts connections of pods already.
	Serving() bool
	// TakeOver is Add with what is there already. It gives descriptors of the
	// sockets that it listens on, which the caller closes.
	TakeOver(ctx context.Context, uid string, w Workload, ns *netns.Namespace, h Handover) (listeners []int, err error)
}

// listenersOf gives the descriptors, or none and closes all if one of them neither
// listens in the namespace nor is the end of a relay.
func listenersOf(ns *netns.Namespace, fds []int) ([]int, error) {
	if len(fds) > maxListeners {
		closeAll(fds)
		return nil, malformed("%d listening sockets, at most %d", len(fds), maxListeners)
	}
	for _, fd := range fds {
		if end.Is(fd) {
			continue
		}
		if _, _, err := netns.ListenerAddr(ns, fd); err != nil {
			closeAll(fds)
			return nil, err
		}
	}
	return fds, nil
}

// dupAll gives further descriptors of the same sockets.
func dupAll(fds []int) ([]int, error) {
	out := make([]int, 0, len(fds))
	for _, fd := range fds {
		d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			closeAll(out)
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// kept are the listening sockets of a pod, and the ztunnel that has handed them over.
type kept struct {
	fds  []int
	from *session
}

// keepLocked holds the listening sockets that a ztunnel has handed over, instead of
// those before; none if it has handed none. Server.mu is held.
func (s *Server) keepLocked(uid string, fds []int, from *session) {
	closeAll(s.listeners[uid].fds)
	if len(fds) == 0 {
		delete(s.listeners, uid)
		return
	}
	s.listeners[uid] = kept{fds, from}
}

// inheritLocked is told that a ztunnel has gone, and which one follows it. If that one
// has sockets of its own for a pod, those that the other has left would never be
// accepted from again, while the kernel still gave them their share of connections.
// Server.mu is held.
func (s *Server) inheritLocked(gone, heir *session) {
	for uid, k := range s.listeners {
		if id, ok := heir.acked[uid]; k.from == gone && ok && id == s.pods[uid].id() {
			s.keepLocked(uid, nil, nil)
			heir.enqueue(entry{uid: uid, op: opAdd}) // its answer has its sockets
		}
	}
}

// handoverLocked gives what a session is told beside an addition; nil for one that
// takes nothing over. The caller closes the descriptors. Server.mu is held.
func (s *Server) handoverLocked(to *session, uid string, p pod) *Handover {
	if !to.handsOver {
		return nil
	}
	h := &Handover{}
	for _, other := range s.sessions {
		if id, ok := other.acked[uid]; other != to && ok && id == p.id() {
			h.Served = true
		}
	}
	fds, err := dupAll(s.listeners[uid].fds)
	if err != nil {
		// For want of descriptors: the successor opens sockets of its own, beside.
		s.cfg.Logger.Warn("listening sockets are not handed over: " + err.Error())
		h.Served = false
	}
	h.Listeners = fds
	return h
}

// take stores the sockets that came with the answer to an addition, if they are of
// the pod as it is wanted now.
func (s *session) take(uid string, p pod, fds []int) {
	var err error
	if len(fds) > 0 && p.ns != nil && s.handsOver {
		fds, err = listenersOf(p.ns, fds)
	} else {
		closeAll(fds)
		fds = nil
	}
	if err != nil {
		s.server.cfg.Logger.Warn("listening sockets of a pod are not kept: " + err.Error())
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if now, ok := s.server.pods[uid]; !ok || now.id() != p.id() {
		closeAll(fds)
		return
	}
	s.server.keepLocked(uid, fds, s)
}
