package wds

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/identity"
)

// Route is where a connection goes.
type Route struct {
	// Tunnel says that it goes through HBONE. Otherwise it is connected as it is.
	Tunnel bool
	// Connect is the address to connect to: a tunnel port if Tunnel.
	Connect netip.AddrPort
	// Authority is the target of the CONNECT.
	Authority string
	// Peers are the identities of which the other end must prove one.
	Peers []identity.ID
	// Workload is what the connection reaches; nil when unknown. Service is what
	// was addressed; nil when it was a workload's own address.
	Workload *Workload
	Service  *Service
	// Waypoint says that Workload is the waypoint of Service, or of the workload
	// that was addressed.
	Waypoint bool
	// Target is the address of the application at Workload.
	Target netip.AddrPort
	// Host is a name outside of the mesh that has to be resolved; Connect and Target
	// have the port alone then.
	Host string
}

// Errors of Route. Each is wrapped with the name of what it is about.
var (
	// ErrNoEndpoint is a service that nobody serves.
	ErrNoEndpoint = errors.New("no healthy endpoint")
	// ErrNoPort is a port that a service does not have.
	ErrNoPort = errors.New("no such port")
	// ErrWaypoint is a waypoint that traffic must take and that cannot be reached.
	ErrWaypoint = errors.New("waypoint is not available")
	// ErrRegistryOnly is a destination that the mesh does not know, of a workload that
	// may reach nothing else.
	ErrRegistryOnly = errors.New("outbound mode is registry-only")
)

// tunnelPort is where workloads take HBONE.
const tunnelPort = 15008

// unknownTo refuses a destination to a workload that may reach only what is known.
func unknownTo(src *Workload, dst netip.AddrPort) error {
	return fmt.Errorf("%s is not known to the mesh: %w for namespace %s; make it known with an ExternalService", dst, ErrRegistryOnly, src.Namespace)
}

// Route decides about a connection of workload src to dst. A destination that
// nobody has told us of is connected to as it is. Endpoints in avoid have failed this
// connection already, and are taken only when there is no other.
func (s *Store) Route(src *Workload, dst netip.AddrPort, avoid ...*Workload) (Route, error) {
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	s.mu.RLock()
	defer s.mu.RUnlock()
	if w := s.byAddr[dst.Addr()]; w != nil {
		if w.Waypoint != nil && !s.isWaypoint(src, w.Waypoint) {
			if r, err := s.viaWaypoint(src, w.Waypoint, nil, dst, avoid); !w.Waypoint.goAround(err) {
				return r, err
			}
		}
		return toWorkload(w, nil, dst), nil
	}
	svc := s.serviceLocked(src.Namespace, dst.Addr())
	if svc == nil {
		if src.RegistryOnly {
			return Route{}, unknownTo(src, dst)
		}
		return Route{Connect: dst, Target: dst}, nil
	}
	return s.toService(src, svc, "", dst, avoid)
}

// RouteHost decides about a connection to a host that a service with a wildcard
// stands for; dst is what it was given as its address.
func (s *Store) RouteHost(src *Workload, key, host string, dst netip.AddrPort, avoid ...*Workload) (Route, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	svc := s.services[key]
	if svc == nil {
		return Route{}, fmt.Errorf("host %s at %s: service %s is gone: %w", host, dst, key, ErrNoEndpoint)
	}
	return s.toService(src, svc, host, dst, avoid)
}

// toService decides about a connection to a service. host is the name that is
// meant where the service has a wildcard.
func (s *Store) toService(src *Workload, svc *Service, host string, dst netip.AddrPort, avoid []*Workload) (Route, error) {
	if svc.External && host == "" && !svc.Wildcard() {
		host = svc.Hostname
	}
	if !svc.HasPort(dst.Port()) && (!svc.Passthrough || svc.External) {
		if src.RegistryOnly && svc.External {
			return Route{Service: svc}, fmt.Errorf("service %s port %d: %w: %w", svc.Key, dst.Port(), ErrNoPort, ErrRegistryOnly)
		}
		return Route{Service: svc}, fmt.Errorf("service %s port %d: %w", svc.Key, dst.Port(), ErrNoPort)
	}
	if svc.Waypoint != nil && !s.isWaypoint(src, svc.Waypoint) {
		r, err := s.viaWaypoint(src, svc.Waypoint, svc, dst, avoid)
		if !svc.Waypoint.goAround(err) {
			if svc.External && host != "" && err == nil && !svc.Passthrough {
				r.Authority = host + ":" + strconv.Itoa(int(dst.Port()))
			}
			return r, err
		}
	}
	if svc.Passthrough {
		return Route{Connect: dst, Target: dst, Service: svc}, nil
	}
	ep, target, err := s.pick(src, svc, dst.Port(), dst.Addr().Is4(), avoid)
	if err != nil {
		return Route{Service: svc}, err
	}
	r := toWorkload(ep, svc, target)
	if !target.Addr().IsValid() {
		r.Host, r.Connect, r.Target = ep.Hostname, netip.AddrPortFrom(netip.Addr{}, target.Port()), netip.AddrPort{}
		if strings.HasPrefix(r.Host, "*.") {
			r.Host = host
		}
		if r.Host == "" {
			return r, fmt.Errorf("service %s: which of its hosts is meant cannot be told from address %s: %w", svc.Key, dst, ErrNoEndpoint)
		}
	}
	return r, nil
}

func toWorkload(w *Workload, svc *Service, target netip.AddrPort) Route {
	r := Route{Connect: target, Target: target, Workload: w, Service: svc}
	if w.HBONE {
		r.Tunnel = true
		r.Connect = netip.AddrPortFrom(target.Addr(), tunnelPort)
		r.Authority = target.String()
		r.Peers = []identity.ID{w.Identity()}
		if svc != nil {
			r.Peers = append(r.Peers, svc.Identities...)
		}
	}
	return r
}

// serviceLocked prefers a service of the client's own namespace, then the canonical one.
func (s *Store) serviceLocked(namespace string, vip netip.Addr) *Service {
	list := s.byVIP[vip]
	if len(list) == 0 && s.blocks.Size() > 0 {
		list, _ = s.blocks.Lookup(vip)
	}
	for _, svc := range list {
		if svc.Namespace == namespace {
			return svc
		}
	}
	for _, svc := range list {
		if svc.Canonical {
			return svc
		}
	}
	if len(list) > 0 {
		return list[0]
	}
	return nil
}

// isWaypoint reports whether w itself is the gateway.
func (s *Store) isWaypoint(w *Workload, g *Gateway) bool {
	if g.Address.IsValid() {
		return slices.Contains(w.Addresses, g.Address)
	}
	return slices.ContainsFunc(w.Services, func(m Membership) bool { return m.Service == g.Service })
}

// SpeaksFor reports whether a peer is of the waypoint of a workload or of one of
// its services, or was a moment ago, or is going to be; it may say for whom it opens
// a connection. Who merely has the
// waypoint's address does not: it is its identity that counts.
func (s *Store) SpeaksFor(peer identity.ID, w *Workload) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.isOf(peer, w.Waypoint) || w.former.is(peer) {
		return true
	}
	for i := range w.Services {
		if svc := s.services[w.Services[i].Service]; svc != nil && (s.isOf(peer, svc.Waypoint) || s.isOf(peer, svc.Announced) || svc.former.is(peer)) {
			return true
		}
	}
	return false
}

// isOf reports whether a workload of the gateway has the identity.
func (s *Store) isOf(peer identity.ID, g *Gateway) bool {
	if g == nil || g.Refusal != "" || peer.IsZero() {
		return false
	}
	if !g.Address.IsValid() {
		return s.anyIs(peer, g.Service)
	}
	if w := s.byAddr[g.Address]; w != nil {
		return w.HBONE && w.Identity() == peer
	}
	return slices.ContainsFunc(s.byVIP[g.Address], func(svc *Service) bool { return s.anyIs(peer, svc.Key) })
}

func (s *Store) anyIs(peer identity.ID, service string) bool {
	for _, e := range s.endpoints[service] {
		if e.w.HBONE && e.w.Identity() == peer {
			return true
		}
	}
	return false
}

// same reports whether two are the same waypoint, or none.
func (g *Gateway) same(o *Gateway) bool {
	if g == nil || o == nil {
		return g == o
	}
	return g.Service == o.Service && g.Address == o.Address
}

// goAround says whether a connection that has not found the waypoint goes on
// without it. What the waypoint answers, once there is one, is never a reason.
func (g *Gateway) goAround(err error) bool { return err != nil && g.FailOpen }

// viaWaypoint never falls back to going around the waypoint.
func (s *Store) viaWaypoint(src *Workload, g *Gateway, svc *Service, dst netip.AddrPort, avoid []*Workload) (Route, error) {
	fail := func(err error) (Route, error) {
		return Route{Service: svc}, fmt.Errorf("waypoint %s of %s: %w: %w", g, dst, ErrWaypoint, err)
	}
	if g.Refusal != "" {
		return fail(errors.New(g.Refusal))
	}
	var w *Workload
	addr := g.Address
	switch {
	case addr.IsValid():
		if w = s.byAddr[addr]; w == nil {
			if wsvc := s.serviceLocked(src.Namespace, addr); wsvc != nil {
				ep, at, err := s.pick(src, wsvc, g.Port, addr.Is4(), avoid)
				if err != nil {
					return fail(err)
				}
				w, addr = ep, at.Addr()
			}
		}
	case g.Service != "":
		wsvc := s.services[g.Service]
		if wsvc == nil {
			return fail(errors.New("no such service"))
		}
		ep, at, err := s.pick(src, wsvc, g.Port, dst.Addr().Is4(), avoid)
		if err != nil {
			return fail(err)
		}
		w, addr = ep, at.Addr()
	}
	switch {
	case w == nil:
		return fail(errors.New("no such workload"))
	case !w.HBONE:
		// Whatever it is, it does not take tunnels.
		return fail(fmt.Errorf("workload %s/%s does not accept HBONE", w.Namespace, w.Name))
	}
	return Route{
		Tunnel: true, Connect: netip.AddrPortFrom(addr, g.Port), Authority: dst.String(),
		Peers: []identity.ID{w.Identity()}, Workload: w, Service: svc, Waypoint: true, Target: dst,
	}, nil
}

// tries is how often two endpoints are drawn before all of them are looked at.
const tries = 4

// pick chooses an endpoint: the less loaded of two drawn at random, by open
// connections and the time that it lately took to set one up. One of avoid is
// taken only when there is no other. Endpoints that do not answer are the least
// loaded, so that who tries again without saying so is likely to meet them again.
func (s *Store) pick(src *Workload, svc *Service, port uint16, v4 bool, avoid []*Workload) (*Workload, netip.AddrPort, error) {
	list := s.endpoints[svc.Key]
	var best *Workload
	var at netip.AddrPort
	if len(svc.Scopes) > 0 {
		best, at = nearest(src, svc, list, port, v4, avoid)
	} else {
		best, at = anywhere(svc, list, port, v4, avoid)
	}
	if best == nil && len(avoid) > 0 {
		return s.pick(src, svc, port, v4, nil)
	}
	if best == nil {
		return nil, netip.AddrPort{}, fmt.Errorf("service %s port %d: %w", svc.Key, port, ErrNoEndpoint)
	}
	return best, at, nil
}

// candidate is the best endpoint so far.
type candidate struct {
	w    *Workload
	at   netip.AddrPort
	cost float64
}

func (c *candidate) consider(w *Workload, at netip.AddrPort, now int64) {
	if cost := w.cost(now); c.w == nil || cost < c.cost {
		c.w, c.at, c.cost = w, at, cost
	}
}

// anywhere draws from all endpoints alike, and looks at all only when those drawn
// cannot be used.
func anywhere(svc *Service, list []endpoint, port uint16, v4 bool, avoid []*Workload) (*Workload, netip.AddrPort) {
	n := len(list)
	if n == 0 {
		return nil, netip.AddrPort{}
	}
	now := time.Now().UnixNano()
	var best candidate
	try := func(e *endpoint) {
		if at, ok := usable(svc, *e, port, v4); ok && !isOneOf(e.w, avoid) {
			best.consider(e.w, at, now)
		}
	}
	for t := 0; t < tries && best.w == nil; t++ {
		try(&list[rand.N(n)])
		try(&list[rand.N(n)])
	}
	for i, from := 0, rand.N(n); i < n && best.w == nil; i++ {
		try(&list[(from+i)%n])
	}
	return best.w, best.at
}

// nearest draws two of the endpoints that match the most scopes, in one pass over
// all of them. What has failed already is not the nearest.
func nearest(src *Workload, svc *Service, list []endpoint, port uint16, v4 bool, avoid []*Workload) (*Workload, netip.AddrPort) {
	level, seen := -1, 0
	var drawn [2]struct {
		w  *Workload
		at netip.AddrPort
	}
	for i := range list {
		e := &list[i]
		n := scopesOf(src, svc, e.w)
		if n < level || svc.Strict && n < len(svc.Scopes) {
			continue
		}
		at, ok := usable(svc, *e, port, v4)
		if !ok || isOneOf(e.w, avoid) {
			continue
		}
		if n > level {
			level, seen = n, 0
			drawn[0].w, drawn[1].w = nil, nil
		}
		seen++
		// A reservoir of one each: every endpoint of the level is as likely in both.
		for d := range drawn {
			if rand.N(seen) == 0 {
				drawn[d].w, drawn[d].at = e.w, at
			}
		}
	}
	now := time.Now().UnixNano()
	var best candidate
	for d := range drawn {
		if drawn[d].w != nil {
			best.consider(drawn[d].w, drawn[d].at, now)
		}
	}
	return best.w, best.at
}

// scopesOf counts the scopes, from the widest on, that a workload shares with src.
func scopesOf(src *Workload, svc *Service, w *Workload) int {
	n := 0
	for n < len(svc.Scopes) && sameScope(svc.Scopes[n], src, w) {
		n++
	}
	return n
}

// isOneOf compares by UID: an update of a workload makes another Workload of it.
func isOneOf(w *Workload, list []*Workload) bool {
	return slices.ContainsFunc(list, func(o *Workload) bool { return o.UID == w.UID })
}

// usable tells whether and where an endpoint takes the port.
func usable(svc *Service, e endpoint, port uint16, v4 bool) (netip.AddrPort, bool) {
	if !e.w.Healthy && !svc.AllowUnhealthy || e.w.Terminating || e.w.Capacity == 0 {
		return netip.AddrPort{}, false
	}
	target, ok := svc.Target(e.membership(), port)
	if !ok {
		return netip.AddrPort{}, false
	}
	// A service of one family may be in front of endpoints of the other.
	a, ok := e.w.address(v4)
	return netip.AddrPortFrom(a, target), ok || e.w.Hostname != ""
}

func sameScope(scope workloadpb.LoadBalancing_Scope, a, b *Workload) bool {
	switch scope {
	case workloadpb.LoadBalancing_REGION:
		return a.Region == b.Region
	case workloadpb.LoadBalancing_ZONE:
		return a.Region == b.Region && a.Zone == b.Zone
	case workloadpb.LoadBalancing_SUBZONE:
		return a.Region == b.Region && a.Zone == b.Zone && a.Subzone == b.Subzone
	case workloadpb.LoadBalancing_NODE:
		return a.Node == b.Node
	case workloadpb.LoadBalancing_CLUSTER:
		return a.Cluster == b.Cluster
	case workloadpb.LoadBalancing_NETWORK:
		return a.Network == b.Network
	}
	return false
}
