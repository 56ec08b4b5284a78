package proxy

import (
	"net/netip"
	"sync"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
)

// limitSessions names the bound of sessions of datagrams in metrics and refusals.
const limitSessions = "udp_sessions"

// sessions counts the sessions of datagrams of each client, so that none takes what
// others need: each session is a stream, two goroutines and perhaps a socket.
type sessions struct {
	max int // of one client

	mu sync.Mutex
	of map[clientKey]int // under way; guarded by mu
}

// clientKey is who sessions are counted for: a workload with all its addresses, or
// an address that the mesh does not know. Not an identity: that is one of all the
// replicas of a Deployment, which are to have as much each as one that is alone.
type clientKey struct {
	uid  string
	addr netip.Addr
}

func (d *downstream) clientKey() clientKey {
	if d.source != nil {
		return clientKey{uid: d.source.UID}
	}
	return clientKey{addr: d.client.Address.Addr()}
}

// enter counts a session until leave is called, unless the client has all that it
// may have.
func (s *sessions) enter(k clientKey) (leave func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[k] >= s.max {
		return nil, false
	}
	if s.of == nil {
		s.of = make(map[clientKey]int)
	}
	s.of[k]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.of[k]--; s.of[k] <= 0 {
			delete(s.of, k)
		}
	}, true
}

// tooMany refuses a session of a client that has all that it may have, and counts it.
func (d *downstream) tooMany() *failure {
	f := failed(503, flagOverflow, "connection_limit_reached", "limit %s: %s has %d sessions of UDP at waypoint %s, and may have no more: it must end some, or the waypoint be given a larger --max-udp-sessions",
		limitSessions, d.client.ID, d.proxy.sessions.max, d.proxy.cfg.Gateway)
	f.verdict = flowpb.Verdict_VERDICT_LIMITED
	d.proxy.cfg.Metrics.rejected.WithLabelValues(limitSessions, statusLabel(sessionStatus(f))).Inc()
	return f
}
