package upstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// ErrOverloaded is a request beyond a circuit breaker.
var ErrOverloaded = errors.New("circuit breaker open")

// clusterKey is a port of a service.
type clusterKey struct {
	service string // <namespace>/<hostname>
	port    uint16
	udp     bool
}

// Cluster is a port of a service as requests are sent to it.
type Cluster struct {
	set *Set
	key clusterKey

	policy atomic.Pointer[waypoint.Backend] // never nil
	// originated is nil for requests that are sent as they are.
	originated atomic.Pointer[originated]
	snapshot   atomic.Pointer[snapshot]

	mu       sync.Mutex
	known    map[endpointKey]*Endpoint // guarded by mu
	ejecting sync.Mutex

	requests atomic.Int64 // under way
	retries  atomic.Int64 // under way
	room     room         // for HTTP connections
	used     atomic.Int64 // last, in nanoseconds
	budget   budget
}

func durationOr(d *durationpb.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.AsDuration()
}

// current gives the endpoints as the store has them now.
func (c *Cluster) current() *snapshot {
	generation, policy := c.set.store.Generation(), c.policy.Load()
	if s := c.snapshot.Load(); s != nil && s.generation == generation && s.policy == policy {
		return s
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.snapshot.Load()
	if old != nil && old.generation == generation && old.policy == policy {
		return old
	}
	s := c.listLocked(generation, policy, old)
	c.snapshot.Store(s)
	return s
}

// listLocked makes a snapshot, taking over the endpoints that stay.
func (c *Cluster) listLocked(generation uint64, policy *waypoint.Backend, old *snapshot) *snapshot {
	s := &snapshot{generation: generation, policy: policy}
	now := time.Now()
	find := c.set.store.Endpoints
	if c.key.udp {
		find = c.set.store.EndpointsUDP
	}
	svc, list, err := find(c.set.self(), c.key.service, c.key.port)
	s.svc, s.err = svc, err
	kept := make(map[endpointKey]*Endpoint, len(list))
	for _, e := range list {
		key := endpointKey{e.Workload.UID, e.Port}
		ep := c.known[key]
		if ep == nil {
			ep = newEndpoint(c, key, e, now)
			if len(c.known) == 0 {
				ep.born = time.Time{} // there is nobody who could do more of the work
			}
		} else {
			e := e
			ep.current.Store(&e)
		}
		kept[key] = ep
		s.endpoints = append(s.endpoints, ep)
	}
	for key, ep := range c.known {
		if kept[key] == nil {
			ep.conns.retire()
		}
	}
	c.known = kept
	s.tiers = tiersOf(s, list, old)
	return s
}

// tiersOf puts endpoints that are as near as each other together, the nearest
// first. What has not changed is taken over from old.
func tiersOf(s *snapshot, list []wds.Endpoint, old *snapshot) (tiers []*tier) {
	algorithm := s.policy.GetLoadBalancing().GetAlgorithm()
	for from, to := 0, 0; from < len(list); from = to {
		for to = from; to < len(list) && list[to].Scopes == list[from].Scopes; to++ {
		}
		endpoints, n := s.endpoints[from:to], len(tiers)
		if old != nil && old.policy == s.policy && n < len(old.tiers) && slices.Equal(old.tiers[n].endpoints, endpoints) {
			tiers = append(tiers, old.tiers[n])
			continue
		}
		tiers = append(tiers, newTier(endpoints, algorithm))
	}
	return tiers
}

// Pick says what endpoint is wanted.
type Pick struct {
	// Hash chooses where the policy balances by hash; Hashed says that there is one.
	Hash   uint64
	Hashed bool
	// Pinned is the Hash of an endpoint that a session is assigned to; 0 is none.
	Pinned uint64
	// Avoid are endpoints that have been tried; they are used again only when
	// there is no other.
	Avoid []*Endpoint
}

// Choose gives an endpoint. The error is of wds.
func (c *Cluster) Choose(p Pick) (*Endpoint, error) {
	s := c.current()
	if s.err != nil {
		return nil, s.err
	}
	if p.Pinned != 0 {
		for _, e := range s.endpoints {
			if e.Hash == p.Pinned && !e.health.out(time.Now()) && !contains(p.Avoid, e) {
				return e, nil
			}
		}
	}
	slow := s.policy.GetLoadBalancing().GetSlowStart().AsDuration()
	var avoid func(*Endpoint) bool
	if len(p.Avoid) > 0 {
		avoid = func(e *Endpoint) bool { return contains(p.Avoid, e) }
	}
	if e := s.choose(p.Hash, p.Hashed, slow, avoid); e != nil {
		return e, nil
	}
	if e := s.choose(p.Hash, p.Hashed, slow, nil); e != nil {
		return e, nil
	}
	return nil, fmt.Errorf("service %s port %d: %w", c.key.service, c.key.port, wds.ErrNoEndpoint)
}

func contains(list []*Endpoint, e *Endpoint) bool {
	for _, o := range list {
		if o == e {
			return true
		}
	}
	return false
}

// Policy of the backend; never nil.
func (c *Cluster) Policy() *waypoint.Backend { return c.policy.Load() }

// Service of the cluster as <namespace>/<hostname>.
func (c *Cluster) Service() string { return c.key.service }

// Defaults of circuit breakers: what no service should reach in good health, and
// what bounds the memory of a waypoint.
const (
	defaultMaxRequests    = 16384
	defaultMaxConnections = 16384
	defaultMaxPending     = 16384
	defaultMaxRetries     = 1024
)

// Enter counts a request in, until leave is called; ErrOverloaded when there are
// too many.
func (c *Cluster) Enter() (leave func(), err error) {
	limit := int64(c.policy.Load().GetCircuitBreaker().GetMaxRequests())
	if limit == 0 {
		limit = defaultMaxRequests
	}
	if n := c.requests.Add(1); n > limit {
		c.requests.Add(-1)
		c.set.metrics.overflow.WithLabelValues(c.key.service, "requests").Inc()
		return nil, fmt.Errorf("service %s: %d requests are under way, max is %d: %w", c.key.service, n-1, limit, ErrOverloaded)
	}
	c.used.Store(time.Now().UnixNano())
	c.budget.request(time.Now())
	return c.leave, nil
}

func (c *Cluster) leave() { c.requests.Add(-1) }

// MayRetry counts a retry in, until leave is called, if the budget has room.
func (c *Cluster) MayRetry() (leave func(), err error) {
	policy := c.policy.Load()
	limit := int64(policy.GetCircuitBreaker().GetMaxRetries())
	if limit == 0 {
		limit = defaultMaxRetries
	}
	if c.retries.Add(1) > limit {
		c.retries.Add(-1)
		c.set.metrics.overflow.WithLabelValues(c.key.service, "retries").Inc()
		return nil, fmt.Errorf("service %s: more than %d retries under way: %w", c.key.service, limit, ErrOverloaded)
	}
	if b := policy.GetRetryBudget(); b != nil && !c.budget.retry(b, time.Now()) {
		c.retries.Add(-1)
		c.set.metrics.overflow.WithLabelValues(c.key.service, "retry_budget").Inc()
		return nil, fmt.Errorf("service %s: retry budget of %d %% is used up: %w", c.key.service, b.GetPercent(), ErrOverloaded)
	}
	return func() { c.retries.Add(-1) }, nil
}

// ConnectUDP opens a session of datagrams to an endpoint; see Dialer.ConnectUDP.
func (c *Cluster) ConnectUDP(ctx context.Context, e *Endpoint, client *Client, timeout time.Duration) (Packets, trace.Context, error) {
	ep := *e.current.Load()
	return c.set.dialer.ConnectUDP(ctx, c.current().svc, ep, client, timeout)
}

// Connect opens a connection to an endpoint; see Dialer.Connect.
func (c *Cluster) Connect(ctx context.Context, e *Endpoint, client *Client, timeout time.Duration) (Conn, trace.Context, error) {
	ep := *e.current.Load()
	return c.set.dialer.Connect(ctx, c.current().svc, ep, client, timeout)
}
