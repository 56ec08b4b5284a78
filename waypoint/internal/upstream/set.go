package upstream

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/http1"
	"github.com/ambit-mesh/ambit/internal/http2"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// Config of a Set.
type Config struct {
	Store  *wds.Store
	Dialer *Dialer
	HTTP1  http1.Config
	HTTP2  http2.Config
	// Self gives the waypoint's own workload, for locality; nil while it is not
	// known.
	Self func() *wds.Workload
	// IdleTimeout is how long an HTTP connection is kept for another request; 60 s.
	IdleTimeout time.Duration
	Log         *zap.Logger
	Registerer  prometheus.Registerer
}

// Set is all clusters of a waypoint.
type Set struct {
	store   *wds.Store
	dialer  *Dialer
	cfg     Config
	self    func() *wds.Workload
	metrics metrics

	// ctx is that of what outlives the request that began it.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// news wakes Run when there is something new to probe.
	news chan struct{}

	mu       sync.RWMutex
	clusters map[clusterKey]*Cluster      // guarded by mu
	policies map[string]*waypoint.Backend // by service; guarded by mu
	// originated is the TLS of services by port; guarded by mu.
	originated map[string]map[uint16]*originated
}

type metrics struct {
	ejections *prometheus.CounterVec
	overflow  *prometheus.CounterVec
	probes    *prometheus.CounterVec
}

// NewSet makes an empty set. Run has to be called next.
func NewSet(cfg Config) *Set {
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = 60 * time.Second
	}
	if cfg.Self == nil {
		cfg.Self = func() *wds.Workload { return nil }
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	s := &Set{
		store: cfg.Store, dialer: cfg.Dialer, cfg: cfg, self: cfg.Self,
		news: make(chan struct{}, 1), clusters: make(map[clusterKey]*Cluster), policies: make(map[string]*waypoint.Backend),
		originated: make(map[string]map[uint16]*originated),
		metrics: metrics{
			ejections: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ambit_upstream_ejections_total", Help: "Endpoints that were taken out because of how they answered."}, []string{"service"}),
			overflow:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ambit_upstream_overflow_total", Help: "Requests and retries that were refused because a limit of the service was reached."}, []string{"service", "limit"}),
			probes:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ambit_upstream_probes_total", Help: "Active health checks by outcome."}, []string{"service", "outcome"}),
		},
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(s.metrics.ejections, s.metrics.overflow, s.metrics.probes)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// noPolicy is how services without a policy are treated.
var noPolicy = new(waypoint.Backend)

// Cluster gives the port of a service, known or not.
func (s *Set) Cluster(service string, port uint16) *Cluster {
	return s.cluster(clusterKey{service: service, port: port})
}

// ClusterUDP gives the UDP port of a service, known or not.
func (s *Set) ClusterUDP(service string, port uint16) *Cluster {
	return s.cluster(clusterKey{service: service, port: port, udp: true})
}

func (s *Set) cluster(key clusterKey) *Cluster {
	s.mu.RLock()
	c := s.clusters[key]
	s.mu.RUnlock()
	if c != nil {
		return c
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c = s.clusters[key]; c != nil {
		return c
	}
	c = &Cluster{set: s, key: key, known: make(map[endpointKey]*Endpoint)}
	c.used.Store(time.Now().UnixNano())
	c.policy.Store(s.policyLocked(key.service))
	if !key.udp {
		c.originated.Store(s.originated[key.service][key.port])
	}
	s.clusters[key] = c
	if c.policy.Load().GetHealthCheck() != nil {
		s.tell()
	}
	return c
}

func (s *Set) tell() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

func (s *Set) policyLocked(service string) *waypoint.Backend {
	if p := s.policies[service]; p != nil {
		return p
	}
	return noPolicy
}

// SetPolicy says how a service is to be treated; nil: as others.
func (s *Set) SetPolicy(service string, p *waypoint.Backend) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sameTLS := slices.EqualFunc(p.GetTls(), s.policies[service].GetTls(), func(a, b *waypoint.BackendTLS) bool { return proto.Equal(a, b) })
	if p == nil {
		delete(s.policies, service)
	} else {
		s.policies[service] = p
	}
	if !sameTLS {
		if s.originated[service] = originate(p); s.originated[service] == nil {
			delete(s.originated, service)
		}
	}
	for key, c := range s.clusters {
		if key.service != service {
			continue
		}
		c.policy.Store(s.policyLocked(service))
		if key.udp {
			s.tell()
			continue
		}
		if present := s.originated[service][key.port]; c.originated.Swap(present) != present {
			for _, e := range c.snapshotEndpoints() {
				e.conns.leave(present)
			}
		}
		s.tell()
	}
}

// PolicyOf gives how a service is treated; never nil.
func (s *Set) PolicyOf(service string) *waypoint.Backend {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.policyLocked(service)
}

// unusedFor is when a cluster that nothing was sent to is forgotten.
const unusedFor = 10 * time.Minute

// Run probes and tidies until ctx ends.
func (s *Set) Run(ctx context.Context) error {
	tidy := time.NewTicker(10 * time.Second)
	defer tidy.Stop()
	probes := newProber(s)
	defer probes.stop()
	for {
		changed := s.store.Changed()
		probes.reconcile(ctx)
		s.dialer.Retire(s.store.Reachable)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			// Endpoints that are gone lose their connections even if nothing is sent.
			for _, c := range s.list() {
				c.current()
			}
		case <-s.news:
		case now := <-tidy.C:
			s.tidy(now)
		}
	}
}

func (s *Set) list() []*Cluster {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]*Cluster, 0, len(s.clusters))
	for _, c := range s.clusters {
		out = append(out, c)
	}
	return out
}

func (s *Set) tidy(now time.Time) {
	for _, c := range s.list() {
		for _, e := range c.current().endpoints {
			e.conns.expire(now.Add(-s.cfg.IdleTimeout))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, c := range s.clusters {
		if now.UnixNano()-c.used.Load() > int64(unusedFor) && c.requests.Load() == 0 {
			for _, e := range c.snapshotEndpoints() {
				e.conns.retire()
			}
			delete(s.clusters, key)
		}
	}
}

func (c *Cluster) snapshotEndpoints() []*Endpoint {
	if s := c.snapshot.Load(); s != nil {
		return s.endpoints
	}
	return nil
}

// Close ends all connections when their requests are done, or ctx is.
func (s *Set) Close(ctx context.Context) {
	for _, c := range s.list() {
		for _, e := range c.snapshotEndpoints() {
			e.conns.retire()
		}
	}
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	s.cancel()
	<-done
}
