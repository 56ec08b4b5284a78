package jwt

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// source is where the keys of providers come from. Those of a source without a URI
// are there from the beginning and stay.
type source struct {
	uri     string
	cfg     *Config
	metrics *Metrics
	// keys are the last good ones; nil until there are any.
	keys atomic.Pointer[keySet]
	// good is how long keys are good for, in nanoseconds.
	good atomic.Int64
	// kick asks run for a fetch.
	kick chan struct{}

	mu       sync.Mutex
	fetching bool          // guarded by mu
	last     time.Time     // when a fetch began; guarded by mu
	done     chan struct{} // closed when the next fetch has ended; guarded by mu
}

func newSource(uri string, cfg *Config, m *Metrics) *source {
	return &source{uri: uri, cfg: cfg, metrics: m, kick: make(chan struct{}, 1), done: make(chan struct{})}
}

func inline(set *keySet) *source {
	s := &source{}
	s.keys.Store(set)
	return s
}

// current gives the keys; if there have never been any it waits for them for as
// long as a fetch may take. nil means that there are none.
func (s *source) current(ctx context.Context) *keySet {
	if set := s.keys.Load(); set != nil {
		return set
	}
	s.refresh(ctx)
	return s.keys.Load()
}

// refresh has the keys fetched and waits for it, unless that was done just now. It
// reports whether it was worth waiting.
func (s *source) refresh(ctx context.Context) bool {
	if s.uri == "" {
		return false
	}
	s.mu.Lock()
	if !s.fetching {
		if !s.last.IsZero() && time.Since(s.last) < s.cfg.MinInterval {
			s.mu.Unlock()
			return false
		}
		select {
		case s.kick <- struct{}{}:
		default:
		}
	}
	done := s.done
	s.mu.Unlock()
	timeout := time.NewTimer(s.cfg.FetchTimeout)
	defer timeout.Stop()
	select {
	case <-done:
		return true
	case <-ctx.Done():
	case <-timeout.C:
	}
	return false
}

// Bounds of the time between two fetches.
const (
	minGood    = time.Second
	maxBackoff = time.Minute
)

// run fetches until ctx ends: before the keys are stale, soon again if that failed,
// and when somebody asks for it.
func (s *source) run(ctx context.Context) {
	backoff := time.Second
	for ctx.Err() == nil {
		good := max(time.Duration(s.good.Load()), minGood)
		wait := good * 4 / 5
		if err := s.fetch(ctx); err != nil {
			wait = min(backoff, good)
			backoff = min(2*backoff, maxBackoff)
		} else {
			backoff = time.Second
		}
		s.wait(ctx, wait)
	}
}

// wait ends when it is time, or somebody asks for a fetch that is not too early.
func (s *source) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-s.kick:
			// It may have been meant for the fetch that has just ended.
			s.mu.Lock()
			early := time.Since(s.last) < s.cfg.MinInterval
			s.mu.Unlock()
			if !early {
				return
			}
		}
	}
}

func (s *source) fetch(ctx context.Context) error {
	s.mu.Lock()
	s.fetching, s.last = true, time.Now()
	s.mu.Unlock()
	err := s.load(ctx)
	if ctx.Err() == nil {
		s.metrics.fetched(s.uri, err)
	}
	s.mu.Lock()
	s.fetching = false
	close(s.done)
	s.done = make(chan struct{})
	s.mu.Unlock()
	return err
}

func (s *source) load(ctx context.Context) error {
	log := s.cfg.Log.With(zap.String("jwks_uri", s.uri))
	ctx, cancel := context.WithTimeout(ctx, s.cfg.FetchTimeout)
	defer cancel()
	raw, err := s.cfg.Fetcher.Fetch(ctx, s.uri)
	var set *keySet
	if err == nil {
		set, err = parseKeys(raw)
	}
	if err != nil {
		log.Warn("keys cannot be fetched; the last good ones are used", zap.Bool("any", s.keys.Load() != nil), zap.Error(err))
		return err
	}
	s.metrics.loaded(s.uri, len(set.keys))
	// The same keys stay the same object.
	if old := s.keys.Load(); old != nil && old.sum == set.sum {
		return nil
	}
	s.keys.Store(set)
	if len(set.keys) == 0 {
		log.Warn("no key of the set can be used; no token is accepted", zap.Int("skipped", set.skipped))
		return nil
	}
	log.Info("keys have changed", zap.Int("keys", len(set.keys)), zap.Int("skipped", set.skipped))
	return nil
}
