package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/internal/authz"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// errDenied is wrapped by what a policy refused.
var errDenied = errors.New("denied by policy")

// connection is what is known of one connection of a pod. Its fields are set by
// the goroutine that serves it before it is registered, unless guarded.
type connection struct {
	direction Direction
	start     time.Time
	tunnel    bool   // encrypted
	udp       bool   // a session of datagrams
	transport string // of the tunnel: h2 or h3; "" without one
	srcAddr   netip.AddrPort
	dstAddr   netip.AddrPort // as addressed
	authority string         // of the CONNECT
	host      string         // outside of the mesh, where its name was resolved
	src, dst  *wds.Workload
	srcID     identity.ID
	// peerID holds the tunnel: the source, or a waypoint that speaks for it, whose
	// address is peerAddr then. Inbound only.
	peerID   identity.ID
	peerAddr netip.AddrPort
	dstID    identity.ID
	service  *wds.Service
	target   netip.AddrPort // of the application; outbound only
	waypoint bool           // dst is a waypoint; outbound only

	established bool
	denial      *authz.Decision
	audits      []authz.AuditMatch
	traceparent string

	toDst, toSrc atomic.Int64                // payload bytes, unless moved is set
	moved        func() (toDst, toSrc int64) // counts kept elsewhere
	reported     [2]int64                    // what metrics have of these; guarded by registry.mu
	series       *series                     // set once established

	// For policy that changes while the connection lives. Inbound only.
	facts authz.Connection
	mu    sync.Mutex
	close func(error) // ends the connection at once; guarded by mu
	cut   error       // why it was ended; guarded by mu
}

func (c *connection) transferred() (toDst, toSrc int64) {
	if c.moved != nil {
		return c.moved()
	}
	return c.toDst.Load(), c.toSrc.Load()
}

// onCut says how to end the connection. If it was to end already, that happens now.
func (c *connection) onCut(f func(error)) {
	c.mu.Lock()
	cut := c.cut
	c.close = f
	c.mu.Unlock()
	if cut != nil {
		f(cut)
	}
}

// end cuts the connection.
func (c *connection) end(err error) {
	c.mu.Lock()
	if c.cut != nil {
		c.mu.Unlock()
		return
	}
	c.cut = err
	f := c.close
	c.mu.Unlock()
	if f != nil {
		f(err)
	}
}

// cutReason is why the connection was cut, nil if it was not.
func (c *connection) cutReason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}

// ruleName names the rule of a decision.
func ruleName(d *authz.Decision) string {
	switch {
	case d.RuleName != "":
		return d.RuleName
	case d.Rule == authz.NoRule:
		return "no rule allowed it"
	}
	return strconv.Itoa(d.Rule)
}

// deniedError is a denial.
type deniedError struct{ decision *authz.Decision }

func (e *deniedError) Error() string { return errDenied.Error() + ": " + e.decision.Reason }
func (e *deniedError) Unwrap() error { return errDenied }

// deniedBy is the error of a denial.
func deniedBy(d *authz.Decision) error { return &deniedError{d} }

// registry holds the open connections of one pod.
type registry struct {
	mu        sync.Mutex
	conns     map[*connection]struct{} // guarded by mu
	evaluator *authz.Evaluator         // of the last check; guarded by mu
}

func newRegistry() *registry { return &registry{conns: make(map[*connection]struct{})} }

func (r *registry) add(c *connection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[c] = struct{}{}
}

// recheck ends the inbound connections that ev denies. It does nothing when ev is
// what the last check was made with.
func (r *registry) recheck(ev *authz.Evaluator) {
	r.mu.Lock()
	if ev == r.evaluator {
		r.mu.Unlock()
		return
	}
	r.evaluator = ev
	var inbound []*connection
	for c := range r.conns {
		if c.direction == Inbound {
			inbound = append(inbound, c)
		}
	}
	r.mu.Unlock()
	for _, c := range inbound {
		if d := ev.Decide(c.facts); !d.Allowed {
			c.end(fmt.Errorf("closed because the policy changed: %w", deniedBy(&d)))
		}
	}
}

// report adds to the byte counters what has moved since the last report.
func (r *registry) report() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		r.reportLocked(c)
	}
}

func (r *registry) reportLocked(c *connection) {
	if c.series == nil {
		return
	}
	toDst, toSrc := c.transferred()
	// Names are from the point of view of who was connected to.
	c.series.received.Add(float64(toDst - c.reported[0]))
	c.series.sent.Add(float64(toSrc - c.reported[1]))
	c.reported = [2]int64{toDst, toSrc}
}

// established notes that the connection works from now on.
func (r *registry) established(c *connection, s *series) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.established, c.series = true, s
	s.opened.Inc()
}

// closed makes the last report of a connection and forgets it.
func (r *registry) closed(c *connection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reportLocked(c)
	if c.series != nil {
		c.series.closed.Inc()
	}
	delete(r.conns, c)
}

// endAll cuts every connection.
func (r *registry) endAll(err error) {
	r.mu.Lock()
	all := make([]*connection, 0, len(r.conns))
	for c := range r.conns {
		all = append(all, c)
	}
	r.mu.Unlock()
	for _, c := range all {
		c.end(err)
	}
}

func (r *registry) snapshot() []ConnectionInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]ConnectionInfo, 0, len(r.conns))
	for c := range r.conns {
		toDst, toSrc := c.transferred()
		info := ConnectionInfo{Direction: c.direction, Src: c.srcAddr.String(), OriginalDst: addrString(c.dstAddr), ActualDst: c.authority, Protocol: "TCP", SourceIdentity: c.srcID.String(), Since: c.start, BytesToDestination: toDst, BytesToSource: toSrc}
		switch {
		case c.udp && c.tunnel:
			info.Protocol = "HBONE-UDP"
		case c.udp:
			info.Protocol = "UDP"
		case c.tunnel:
			info.Protocol = "HBONE"
		}
		out = append(out, info)
	}
	return out
}

// ConnectionInfo is a connection in a dump.
type ConnectionInfo struct {
	Direction          Direction `json:"direction"`
	Src                string    `json:"src"`
	OriginalDst        string    `json:"originalDst,omitempty"`
	ActualDst          string    `json:"actualDst,omitempty"`
	Protocol           string    `json:"protocol"`
	SourceIdentity     string    `json:"sourceIdentity,omitempty"`
	Since              time.Time `json:"since"`
	BytesToDestination int64     `json:"bytesToDestination"`
	BytesToSource      int64     `json:"bytesToSource"`
}
