package hbone3

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"
	"golang.org/x/time/rate"
)

// Turned is why a handshake was not gone on with.
type Turned string

// Reasons. Who is asked to prove its address may come again at once, with the proof.
const (
	TurnedFull       Turned = "limit"
	TurnedSource     Turned = "source_limit"
	TurnedUnproved   Turned = "address_unproved"
	TurnedUnfinished Turned = "unfinished"
)

// Of the handshakes that a server has at a time, those with peers that have not
// proved that they receive at their address, and those of one address, have this
// part at most.
const share = 4

// admission bounds the handshakes of a server that are under way. Addresses that are
// not proved may be forged: they have a part of the room and no more, and never count
// for the address that they name, so that nobody is locked out in another's name.
type admission struct {
	cfg      Config
	unproved *rate.Limiter
	closed   atomic.Bool // nobody is let in any more

	mu   sync.Mutex
	n    int                // under way; guarded by mu
	from map[netip.Addr]int // those of proved addresses; guarded by mu
}

func newAdmission(cfg Config) *admission {
	return &admission{cfg: cfg, unproved: rate.NewLimiter(rate.Limit(cfg.Handshakes), cfg.Handshakes), from: make(map[netip.Addr]int)}
}

// prove reports whether a peer is asked to prove its address first (RFC 9000 section
// 8.1.2), which costs us no memory.
func (a *admission) prove(net.Addr) bool {
	a.mu.Lock()
	busy := a.n >= max(a.cfg.MaxHandshakes/share, 1)
	a.mu.Unlock()
	if !busy && a.unproved.Allow() {
		return false
	}
	a.turned(TurnedUnproved)
	return true
}

var (
	errNoRoom  = errors.New("too many handshakes at a time")
	errLeaving = errors.New("the server takes no connections any more")
)

// begin makes room for a handshake, which ends with the context or by done of its
// shake. The library answers an error with CONNECTION_REFUSED.
func (a *admission) begin(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	if a.closed.Load() {
		return nil, errLeaving
	}
	s := &shake{a: a, from: info.RemoteAddr}
	if info.AddrVerified {
		s.addr = addrOf(info.RemoteAddr)
	}
	if reason := a.enter(s.addr); reason != "" {
		a.turned(reason)
		return nil, errNoRoom
	}
	context.AfterFunc(ctx, func() { s.failed(context.Cause(ctx)) })
	return context.WithValue(ctx, shakeKey{}, s), nil
}

func (a *admission) enter(addr netip.Addr) Turned {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.n >= a.cfg.MaxHandshakes:
		return TurnedFull
	case addr.IsValid() && a.from[addr] >= max(a.cfg.MaxHandshakes/share, 1):
		return TurnedSource
	}
	a.n++
	if addr.IsValid() {
		a.from[addr]++
	}
	return ""
}

func (a *admission) leave(addr netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n--
	if !addr.IsValid() {
		return
	}
	if a.from[addr]--; a.from[addr] == 0 {
		delete(a.from, addr)
	}
}

func (a *admission) turned(why Turned) {
	if a.cfg.OnTurned != nil {
		a.cfg.OnTurned(why)
	}
}

type shakeKey struct{}

// shake is a handshake under way.
type shake struct {
	a    *admission
	from net.Addr
	addr netip.Addr // if proved
	once sync.Once
}

// done notes that it has succeeded.
func (s *shake) done() { s.once.Do(func() { s.a.leave(s.addr) }) }

// failed notes the end of the connection: that of the handshake, unless done was
// called before.
func (s *shake) failed(err error) {
	s.once.Do(func() {
		s.a.leave(s.addr)
		var late *quic.HandshakeTimeoutError
		var idle *quic.IdleTimeoutError
		if errors.As(err, &late) || errors.As(err, &idle) {
			// The address may be forged, and there may be any number of these.
			s.a.turned(TurnedUnfinished)
			return
		}
		if s.a.cfg.OnFailed != nil {
			s.a.cfg.OnFailed(s.from, mapped(err))
		}
	})
}

func addrOf(a net.Addr) netip.Addr {
	udp, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.Addr{}
	}
	return udp.AddrPort().Addr().Unmap()
}
