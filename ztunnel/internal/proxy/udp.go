package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/netns"
)

const (
	// udpIdle ends a session that nothing has moved in for so long: what Linux
	// gives flows with answers (nf_conntrack_udp_timeout_stream).
	udpIdle = 2 * time.Minute
	// udpShort is that for one question and its answer, of which a resolver asks
	// many, each from a port of its own.
	udpShort, fewDatagrams = 10 * time.Second, 4
	// udpRefused is how long what was refused, or came to nothing, is remembered:
	// until then its datagrams are dropped without another look or log line.
	udpRefused = 3 * time.Second
	// maxSessions bounds the sessions of a pod in each direction, maxOfSource those
	// of one address, the pod's own or one that reaches it. Who has that many loses
	// the one that has been quiet the longest of a few, if for a second at least.
	maxSessions, maxOfSource = 8192, 4096
	evictAmong, evictAfter   = 16, time.Second
	// maxPending is how many datagrams wait while a session is set up.
	maxPending = 64
	// udpBuffer is asked for the sockets of sessions, in bytes.
	udpBuffer = 1 << 20
)

// plainMark is on datagrams that are handed on as they came; see package capture.
const plainMark = 0x53a

// Why datagrams were dropped.
const (
	dropLimit     = "session_limit"
	dropPending   = "setup_queue_full"
	dropRefused   = "refused"
	dropTooLarge  = "too_large"
	dropDelivered = "not_delivered"
	dropQueue     = "receive_queue_full"
)

// flowKey is what a flow of datagrams is told apart by.
type flowKey struct{ from, to netip.AddrPort }

// session is a flow of datagrams that came to one of the pod's sockets.
type session struct {
	key  flowKey
	c    *connection
	last atomic.Int64 // when something moved, Unix nanoseconds
	n    atomic.Int64 // how often

	mu      sync.Mutex
	pending [][]byte             // until ready; guarded by mu
	take    func(p []byte) error // set when ready; guarded by mu
	over    bool                 // guarded by mu
	served  bool                 // it was ready once; guarded by mu
	stop    []func()             // what ends it; guarded by mu
}

func newSession(key flowKey, c *connection) *session {
	s := &session{key: key, c: c}
	s.touch()
	return s
}

func (s *session) touch() {
	s.last.Store(time.Now().UnixNano())
	s.n.Add(1)
}

// moved is touch for datagrams of which others follow at once: one look at the clock
// for all of them.
func (s *session) moved(more bool) {
	if more {
		s.n.Add(1)
		return
	}
	s.touch()
}

// quiet is for how long nothing has moved.
func (s *session) quiet(now time.Time) time.Duration { return now.Sub(time.Unix(0, s.last.Load())) }

// patience is for how long nothing may move.
func (s *session) patience() time.Duration {
	if s.n.Load() <= fewDatagrams {
		return udpShort
	}
	return udpIdle
}

// offer hands a datagram to the session; the reason if it does not take it.
func (s *session) offer(p []byte) (drop string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over:
		return dropRefused
	case s.take != nil:
		s.touch()
		return dropReason(s.take(p))
	case len(s.pending) >= maxPending:
		return dropPending
	}
	s.pending = append(s.pending, append([]byte(nil), p...))
	return ""
}

// ready has take called for what has waited and for what comes.
func (s *session) ready(take func(p []byte) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pending {
		_ = take(p)
	}
	s.pending, s.take, s.served = nil, take, true
}

// replaceable reports whether what follows is a new session: of one that has ended
// and came to nothing it is not, for udpRefused.
func (s *session) replaceable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over && s.served
}

// onEnd has f called when the session ends, or at once if it has.
func (s *session) onEnd(f func()) {
	s.mu.Lock()
	over := s.over
	if !over {
		s.stop = append(s.stop, f)
	}
	s.mu.Unlock()
	if over {
		f()
	}
}

// end ends the session. One that was never ready stays known for udpRefused.
func (s *session) end() {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return
	}
	s.over, s.pending, s.take = true, nil, nil
	stop := s.stop
	s.stop = nil
	s.mu.Unlock()
	for _, f := range stop {
		f()
	}
}

// sessions are those that came to one socket.
type sessions struct {
	mu   sync.Mutex
	all  map[flowKey]*session // guarded by mu
	from map[netip.Addr]int   // how many of each source; guarded by mu
}

func newSessions() *sessions {
	return &sessions{all: make(map[flowKey]*session), from: make(map[netip.Addr]int)}
}

// get gives the session of a key, made if it is new and there is room; nil if not.
func (t *sessions) get(key flowKey, perSource int, make func() *session) (s *session, isNew bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.all[key]; s != nil {
		if !s.replaceable() {
			return s, false
		}
		t.forgetLocked(key)
	}
	if (len(t.all) >= maxSessions || t.from[key.from.Addr()] >= perSource) && !t.evictLocked(key.from.Addr()) {
		return nil, false
	}
	s = make()
	t.all[key] = s
	t.from[key.from.Addr()]++
	return s, true
}

// evictLocked ends a session of an address, and reports whether there was one that
// could be.
func (t *sessions) evictLocked(of netip.Addr) bool {
	var oldest *session
	now, looked := time.Now(), 0
	for key, s := range t.all { // in no order, which is what a sample wants
		if looked++; looked > evictAmong {
			break
		}
		if key.from.Addr() == of && s.quiet(now) > evictAfter && (oldest == nil || s.last.Load() < oldest.last.Load()) {
			oldest = s
		}
	}
	if oldest == nil {
		return false
	}
	t.forgetLocked(oldest.key)
	go oldest.end() // calls what may take a moment
	return true
}

func (t *sessions) forgetLocked(key flowKey) {
	delete(t.all, key)
	if t.from[key.from.Addr()]--; t.from[key.from.Addr()] == 0 {
		delete(t.from, key.from.Addr())
	}
}

// sweep ends what is idle and forgets what is over.
func (t *sessions) sweep(now time.Time) {
	var idle []*session
	t.mu.Lock()
	for key, s := range t.all {
		age := s.quiet(now)
		s.mu.Lock()
		over, served := s.over, s.served
		s.mu.Unlock()
		switch {
		case over && (served || age >= udpRefused):
			t.forgetLocked(key)
		case !over && age >= s.patience():
			idle = append(idle, s)
		}
	}
	t.mu.Unlock()
	for _, s := range idle {
		s.end()
	}
}

func (t *sessions) endAll() {
	t.mu.Lock()
	all := make([]*session, 0, len(t.all))
	for _, s := range t.all {
		all = append(all, s)
	}
	t.mu.Unlock()
	for _, s := range all {
		s.end()
	}
}

// dropReason is why a datagram was not taken, "" if it was.
func dropReason(err error) string {
	var large *hbone3.TooLargeError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &large), errors.Is(err, syscall.EMSGSIZE):
		return dropTooLarge
	}
	return dropDelivered
}

// openUDP opens the pod's sockets for datagrams.
func (p *Pod) openUDP(given *inherited) error {
	for _, l := range []struct {
		dst  **net.UDPConn
		port uint16
	}{{&p.udpOutbound, PortOutbound}, {&p.udpPlaintext, PortPlaintext}} {
		var err error
		*l.dst, err = given.datagrams(p.ns, netip.AddrPortFrom(netip.IPv6Unspecified(), l.port), netns.UDPOptions{
			Mark: Mark, Transparent: true, OriginalDst: true, Shared: true, ReceiveBuffer: udpBuffer,
		})
		if err != nil {
			return err
		}
	}
	return p.openQUIC(given)
}

// udpGrace is for how long sessions go on when the pod was released: a question that
// was asked a moment ago gets its answer.
const udpGrace = time.Second

// runUDP serves datagrams until the sockets are closed, which wait waits for. end
// ends the sessions.
func (p *Pod) runUDP(ctx context.Context) (wait, end func()) {
	var wg sync.WaitGroup
	out, in := newSessions(), newSessions()
	wg.Go(func() {
		p.receiveUDP(p.udpOutbound, out, maxOfSource, func(s *session) { p.outboundSession(ctx, s) }, Outbound)
	})
	wg.Go(func() {
		p.receiveUDP(p.udpPlaintext, in, maxOfSource, func(s *session) { p.plaintextSession(ctx, s) }, Inbound)
	})
	return wg.Wait, func() {
		out.endAll()
		in.endAll()
	}
}

// sweepEvery is how often sessions are looked at.
const sweepEvery = time.Second

// receiveUDP sorts the datagrams of one socket into sessions.
func (p *Pod) receiveUDP(l *net.UDPConn, t *sessions, perSource int, serve func(*session), dir Direction) {
	buf, oob := make([]byte, maxDatagram), make([]byte, netns.OriginalDstSpace)
	swept := time.Now()
	for {
		// Also woken when nothing comes, so that idle sessions end.
		_ = l.SetReadDeadline(time.Now().Add(sweepEvery))
		n, on, _, from, err := l.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if now := time.Now(); now.Sub(swept) >= sweepEvery {
			swept = now
			t.sweep(now)
		}
		if err != nil {
			if !isTimeout(err) {
				p.log.Warn("receive datagrams", zap.Error(err))
			}
			continue
		}
		key := flowKey{netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), netns.OriginalDstOf(oob[:on])}
		if !key.to.IsValid() {
			continue // sent to the port itself, which is nobody's
		}
		s, isNew := t.get(key, perSource, func() *session {
			return newSession(key, &connection{udp: true, direction: dir, start: time.Now(), srcAddr: key.from, dstAddr: key.to})
		})
		if s == nil {
			p.cfg.Metrics.dropped(dir, dropLimit)
			continue
		}
		if drop := s.offer(buf[:n]); drop != "" {
			p.cfg.Metrics.dropped(dir, drop)
		}
		if isNew {
			p.wg.Add(1)
			go func() {
				defer p.wg.Done()
				serve(s)
				s.end()
				s.touch()
			}()
		}
	}
}

// sender sends from an address that may be anybody's.
type sender interface {
	Write(p []byte) (int, error)
	Close() error
}

// impersonate opens a way to send datagrams from one address to another: with a
// connected socket, or, where a program of the pod has the port on all addresses,
// without one.
func (p *Pod) impersonate(from, to netip.AddrPort, mark uint32) (sender, *net.UDPConn, error) {
	opts := netns.UDPOptions{Mark: mark, Transparent: true, Shared: true, ReceiveBuffer: udpBuffer}
	c, err := netns.DialUDP(p.ns, from, to, opts)
	if err == nil {
		return c, c, nil
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return nil, nil, err
	}
	raw, err := netns.OpenRawUDP(p.ns, from, to, opts)
	if err != nil {
		return nil, nil, err
	}
	return raw, nil, nil
}
