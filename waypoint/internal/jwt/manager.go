package jwt

import (
	"context"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/apis/waypoint"
)

// Manager fetches keys and remembers verified tokens, for the frontends of a
// waypoint.
type Manager struct {
	cfg     Config
	metrics *Metrics
	cache   *cache
	// changed tells Run to look at sources.
	changed chan struct{}

	mu        sync.Mutex
	frontends map[string]map[string]time.Duration // how long keys are good for, by URI; guarded by mu
	sources   map[string]*source                  // by URI; guarded by mu
}

// New makes a Manager. Nothing is fetched until Run is called.
func New(cfg Config) *Manager {
	m := &Manager{
		cfg: cfg.withDefaults(), metrics: NewMetrics(cfg.Registerer), changed: make(chan struct{}, 1),
		frontends: make(map[string]map[string]time.Duration), sources: make(map[string]*source),
	}
	m.cache = newCache(m.cfg.CacheBytes, m.metrics)
	return m
}

// Set takes the providers of a frontend in the place of those that it had. Keys
// that are known stay so. A provider that cannot be used is an error, and makes the
// Verifier refuse every request: one that were left out would let tokens in that
// it is there to refuse. Without providers there is no Verifier.
func (m *Manager) Set(frontend string, providers []*waypoint.JWTProvider) (*Verifier, []error) {
	if len(providers) == 0 {
		m.Delete(frontend)
		return nil, nil
	}
	v, uris, errs := m.compile(providers)
	m.mu.Lock()
	m.frontends[frontend] = uris
	for _, p := range v.providers {
		if p.uri != "" {
			p.source = m.sourceLocked(p.uri)
		}
	}
	m.settleLocked()
	m.mu.Unlock()
	return v, errs
}

// Delete forgets a frontend, and the keys that no other has.
func (m *Manager) Delete(frontend string) {
	m.mu.Lock()
	delete(m.frontends, frontend)
	m.settleLocked()
	m.mu.Unlock()
}

func (m *Manager) sourceLocked(uri string) *source {
	s := m.sources[uri]
	if s == nil {
		s = newSource(uri, &m.cfg, m.metrics)
		m.sources[uri] = s
	}
	return s
}

// settleLocked makes sources those of the frontends and tells Run.
func (m *Manager) settleLocked() {
	wanted := make(map[string]time.Duration)
	for _, uris := range m.frontends {
		for uri, good := range uris {
			if old, ok := wanted[uri]; !ok || good < old {
				wanted[uri] = good
			}
		}
	}
	for uri, s := range m.sources {
		if good, ok := wanted[uri]; ok {
			s.good.Store(int64(good))
		} else {
			delete(m.sources, uri)
			m.metrics.forget(uri)
		}
	}
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// Run fetches keys until ctx ends. All goroutines are its own, one for each URI.
func (m *Manager) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	running := make(map[*source]context.CancelFunc)
	for {
		wanted := m.list()
		for s, cancel := range running {
			if !wanted[s] {
				cancel()
				delete(running, s)
			}
		}
		for s := range wanted {
			if running[s] == nil {
				own, cancel := context.WithCancel(ctx)
				running[s] = cancel
				wg.Go(func() {
					defer cancel()
					s.run(own)
				})
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.changed:
		}
	}
}

func (m *Manager) list() map[*source]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[*source]bool, len(m.sources))
	for _, s := range m.sources {
		out[s] = true
	}
	return out
}
