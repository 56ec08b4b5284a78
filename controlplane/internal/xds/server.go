package xds

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/internal/nodes"
)

// trimEvery is how many tombstones a type gathers before it is worth asking
// who still needs them; maxAdmissions likewise for the memory of past nodes.
const (
	trimEvery     = 256
	maxAdmissions = 4096
)

// Server is the delta ADS service. Its methods may be called from any
// goroutine, Apply from one at a time.
type Server struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer

	cfg      Config
	metrics  *metrics
	store    *store
	building chan struct{} // held while a whole mesh is being gathered

	mu        sync.Mutex
	clients   map[*client]struct{} // guarded by mu
	admission map[string]*admitted // guarded by mu; by caller
	moves     chan struct{}        // guarded by mu; closed and replaced when a client has moved or left
}

// admitted is how a caller has used streams lately. Guarded by the server's mu.
type admitted struct {
	limiter *rate.Limiter
	streams []*client // open ones
	// left is when a stream with a subscription to a type ended last. Of nodes
	// only: a waypoint that is gone may be gone for good.
	left map[string]time.Time
}

// New gives a server that distributes nothing yet.
func New(cfg Config) (*Server, error) {
	cfg = cfg.complete()
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("xds: metrics: %w", err)
	}
	return &Server{
		cfg: cfg, metrics: m, store: newStore(cfg.MaxTombstones),
		building: make(chan struct{}, 2*runtime.GOMAXPROCS(0)),
		clients:  make(map[*client]struct{}), admission: make(map[string]*admitted), moves: make(chan struct{}),
	}, nil
}

// Apply makes a delta part of what is distributed, and gives the version that
// contains it. A resource that cannot be encoded is in the error and keeps its
// former state; the rest is applied.
func (s *Server) Apply(d compile.Delta) (uint64, error) {
	version, err := s.store.apply(d)
	for t, n := range s.store.counts() {
		s.metrics.resources.WithLabelValues(typeLabel(t)).Set(float64(n))
	}
	s.mu.Lock()
	for c := range s.clients {
		select {
		case c.wake <- struct{}{}:
		default: // It has a wake-up that it has not yet seen, which serves as well.
		}
	}
	s.mu.Unlock()
	s.trim(d.Removed)
	return version, err
}

// trim forgets removals that everybody has been told.
func (s *Server) trim(removed []compile.Key) {
	types := make(map[string]struct{})
	for _, k := range removed {
		types[k.Type] = struct{}{}
	}
	for t := range types {
		if s.store.tombstones(t) < trimEvery {
			continue
		}
		position := s.store.current()
		for _, c := range s.connected() {
			if at, ok := c.report.position(t); ok {
				position = min(position, at)
			}
		}
		s.store.trim(t, position)
	}
}

func (s *Server) connected() []*client {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*client, 0, len(s.clients))
	for c := range s.clients {
		list = append(list, c)
	}
	return list
}

// Version is what Apply gave last.
func (s *Server) Version() uint64 { return s.store.current() }

// Clients gives the open streams, by node and workload.
func (s *Server) Clients() []ClientStatus {
	var list []ClientStatus
	for _, c := range s.connected() {
		list = append(list, c.report.snapshot())
	}
	slices.SortFunc(list, func(a, b ClientStatus) int {
		return cmp.Or(strings.Compare(a.Node, b.Node), strings.Compare(a.Workload, b.Workload), a.Connected.Compare(b.Connected), strings.Compare(a.Peer, b.Peer))
	})
	return list
}

// Connected counts the open streams.
func (s *Server) Connected() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.clients)
}

// moved publishes how far a subscription has come.
func (s *Server) moved(c *client, sub *subscription) {
	if c.report.moved(sub) {
		s.mu.Lock()
		s.notify()
		s.mu.Unlock()
	}
}

// notify wakes AckedBy. Called with mu held.
func (s *Server) notify() {
	close(s.moves)
	s.moves = make(chan struct{})
}

func (s *Server) disconnected(reason string) { s.metrics.disconnects.WithLabelValues(reason).Inc() }

// DeltaAggregatedResources serves one client.
func (s *Server) DeltaAggregatedResources(stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	ctx := stream.Context()
	caller, ok := nodes.FromContext(ctx)
	if !ok {
		return status.Error(codes.Unauthenticated, "no node credential: send metadata authorization: Bearer <node token>")
	}
	c := &client{server: s, caller: caller, name: caller.Name(), viewer: viewer(caller), wake: make(chan struct{}, 1), report: &report{}}
	c.report.status = ClientStatus{Node: caller.Node, Connected: time.Now()}
	if w := caller.Workload; w != nil {
		c.report.status.Workload, c.report.status.Waypoint = w.Namespace+"/"+w.Pod, w.Namespace+"/"+w.Gateway
	}
	if p, ok := peer.FromContext(ctx); ok {
		c.report.status.Peer = p.Addr.String()
	}
	c.log = s.cfg.Log.With(zap.String("node", caller.Node), zap.String("peer", c.report.status.Peer))
	if caller.Workload != nil {
		c.log = c.log.With(zap.String("workload", c.report.status.Workload), zap.String("waypoint", c.report.status.Waypoint))
	}
	if err := s.admit(c); err != nil {
		return err
	}
	defer s.leave(c)
	c.log.Info("client connected")
	err := c.run(stream)
	c.log.Info("client disconnected", zap.Error(err))
	return err
}

// StreamAggregatedResources is the state-of-the-world variant, which would cost
// the whole mesh at every change.
func (s *Server) StreamAggregatedResources(discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return status.Error(codes.Unimplemented, "only delta xDS is served: call DeltaAggregatedResources")
}

// admit lets a stream in, unless its caller has too many or too often a new one.
func (s *Server) admit(c *client) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.admission[c.name]
	if !ok {
		if len(s.admission) >= maxAdmissions {
			s.forgetAdmissions()
		}
		a = &admitted{limiter: rate.NewLimiter(rate.Limit(s.cfg.StreamRate), s.cfg.StreamBurst), left: make(map[string]time.Time)}
		s.admission[c.name] = a
	}
	switch {
	case len(a.streams) >= s.cfg.StreamsPerNode:
		s.disconnected("too_many")
		return status.Errorf(codes.ResourceExhausted, "node %s has %d streams open, which is the limit", c.name, len(a.streams))
	case !a.limiter.Allow():
		s.disconnected("too_often")
		return status.Errorf(codes.ResourceExhausted, "node %s connects more than %v times a second; back off", c.name, s.cfg.StreamRate)
	}
	a.streams = append(a.streams, c)
	s.clients[c] = struct{}{}
	s.metrics.clients.Set(float64(len(s.clients)))
	return nil
}

// forgetAdmissions drops callers that could connect freely and that nobody waits
// for. Called with mu held.
func (s *Server) forgetAdmissions() {
	for name, a := range s.admission {
		if len(a.streams) == 0 && !a.missed(s.cfg.AbsentFor) && a.limiter.Tokens() >= float64(a.limiter.Burst()) {
			delete(s.admission, name)
		}
	}
}

func (s *Server) leave(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, c)
	s.admission[c.name].remove(c)
	s.metrics.clients.Set(float64(len(s.clients)))
	s.notify()
}
