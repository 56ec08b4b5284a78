package spans

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/trace/otlp"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// Max is how many collectors are sent to at a time.
const Max = 64

// Config is what a Set works with.
type Config struct {
	// Own is how the waypoint's own spans are sent: to where, in which batches, as whose.
	Own     trace.Config
	Metrics *otlp.Metrics
	// Linger is for how long a collector runs that no service refers to any more.
	Linger time.Duration
	Log    *zap.Logger
}

// Set is the collectors that services have of their own. A nil Set has none.
type Set struct {
	cfg    Config
	caller Caller

	mu         sync.Mutex
	collectors map[string]*Collector // by id; guarded by mu
	of         map[string]*Collector // by service; guarded by mu
	running    int                   // of collectors; guarded by mu
	ctx        context.Context       // Run's; nil before it; guarded by mu
	over       bool                  // guarded by mu
	wg         sync.WaitGroup        // of what Run waits for
}

// New makes a set; Run sends the spans.
func New(cfg Config) *Set {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Set{cfg: cfg, collectors: make(map[string]*Collector), of: make(map[string]*Collector)}
}

// SetCaller gives the set what calls collectors. It is called before the first Use.
func (s *Set) SetCaller(c Caller) { s.caller = c }

// Run sends spans until ctx ends, and then what waits, for a moment.
func (s *Set) Run(ctx context.Context) error {
	s.mu.Lock()
	s.ctx = ctx
	for _, c := range s.collectors {
		s.start(c)
	}
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	s.over = true
	for _, c := range s.collectors {
		if c.idle != nil {
			c.idle.Stop()
		}
	}
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}

// Use says what a service says of spans, nil for nothing or when the service is gone,
// and gives where its spans go; nil is the waypoint's own collector.
func (s *Set) Use(service string, t *route.Telemetry) *Collector {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := idOf(t)
	if id != "" && t.Collector == nil && s.cfg.Own.Endpoint == "" {
		id = "" // as whoever it is: there is nobody to send to
	}
	last := s.of[service]
	if last != nil && last.id == id {
		return last
	}
	delete(s.of, service)
	var c *Collector
	if id != "" {
		c = s.take(service, id, t)
	}
	if last != nil {
		s.leave(last)
	}
	return c
}

// take makes a service a user of a collector.
func (s *Set) take(service, id string, t *route.Telemetry) *Collector {
	c := s.collectors[id]
	if c == nil {
		c = &Collector{id: id, telemetry: t}
		s.collectors[id] = c
	}
	if c.idle != nil {
		c.idle.Stop()
		c.idle = nil
	}
	c.users++
	s.of[service] = c
	if c.tracer.Load() == nil && !s.over {
		s.enter(service, c)
	}
	return c
}

// leave is the end of a use. The last one leaves the collector idle.
func (s *Set) leave(c *Collector) {
	if c.users--; c.users > 0 || s.over {
		return
	}
	if c.tracer.Load() == nil {
		delete(s.collectors, c.id)
		return
	}
	var idle *time.Timer
	idle = time.AfterFunc(s.cfg.Linger, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if c.idle == idle && !s.over { // not used again in the meantime
			s.stop(c)
			s.fill()
		}
	})
	c.idle = idle
}

// enter makes a collector run, if there is room or one that is idle can make some.
func (s *Set) enter(service string, c *Collector) {
	if s.running >= Max {
		for _, other := range s.collectors {
			if other.idle != nil {
				other.idle.Stop()
				s.stop(other)
				break
			}
		}
	}
	if s.running >= Max {
		if c.users == 1 {
			s.cfg.Log.Warn(fmt.Sprintf("services have more than %d different collectors of spans: no spans are made of the requests of this one; have services share a collector", Max),
				zap.String("service", service), zap.String("collector", c.name()))
		}
		return
	}
	if err := s.open(c); err != nil {
		s.cfg.Log.Warn("no spans are made of the requests of this service", zap.String("service", service), zap.String("collector", c.name()), zap.Error(err))
		return
	}
	s.running++
	s.start(c)
}

// fill makes those run that had no room.
func (s *Set) fill() {
	for service, c := range s.of {
		if s.running >= Max {
			return
		}
		if c.tracer.Load() == nil {
			s.enter(service, c)
		}
	}
}

// start sends the spans of a collector, once there is a Run to wait for it.
func (s *Set) start(c *Collector) {
	t := c.tracer.Load()
	if s.ctx == nil || t == nil {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	c.cancel = cancel
	s.wg.Go(func() {
		defer cancel()
		if err := t.Run(ctx); err != nil {
			s.cfg.Log.Warn("spans are not sent any more", zap.String("collector", c.name()), zap.Error(err))
		}
	})
}

// stop ends an idle collector. What waits is sent.
func (s *Set) stop(c *Collector) {
	c.idle = nil
	c.tracer.Store(nil)
	if c.cancel != nil {
		c.cancel()
	}
	s.running--
	delete(s.collectors, c.id)
}
