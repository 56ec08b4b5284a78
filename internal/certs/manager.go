package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/identity"
)

const (
	// parallel is how many certificates are asked for at a time.
	parallel = 8
	// issueTimeout bounds one request to the authority.
	issueTimeout = 10 * time.Second
	retryMin     = 500 * time.Millisecond
	retryMax     = 150 * time.Second
)

// ErrUnavailable says that an identity has no valid certificate.
var ErrUnavailable = errors.New("no valid certificate")

// Manager holds the certificates. Use gives them to who needs them.
type Manager struct {
	authority Authority
	log       *zap.Logger
	metrics   *Metrics
	slots     chan struct{}
	check     func(chain []*x509.Certificate) error // of peers; nil for none

	mu      sync.Mutex
	ctx     context.Context // of Run; nil before. Guarded by mu
	entries map[identity.ID]*entry
	wg      sync.WaitGroup
}

// entry is one identity. It lives while somebody uses it.
type entry struct {
	id     identity.ID
	users  int           // guarded by Manager.mu
	cancel func()        // ends its renewal; nil before Run. Guarded by Manager.mu
	first  chan struct{} // closed when cert is set for the first time

	mu    sync.Mutex
	cert  *identity.Certificate // guarded by mu
	since time.Time             // when cert came; guarded by mu
	err   error                 // of the last attempt; guarded by mu
}

// NewManager makes a manager; metrics may be nil. Nothing is fetched before Run.
func NewManager(a Authority, log *zap.Logger, metrics *Metrics) *Manager {
	m := &Manager{authority: a, log: log, metrics: metrics, slots: make(chan struct{}, parallel), entries: make(map[identity.ID]*entry)}
	metrics.of(m)
	return m
}

// Guard has the holders of certificates check the chains of their peers further, after
// they were verified. It is called before Run.
func (m *Manager) Guard(check func(chain []*x509.Certificate) error) { m.check = check }

// Run fetches and renews until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	m.mu.Lock()
	m.ctx = ctx
	for _, e := range m.entries {
		m.startLocked(e)
	}
	m.mu.Unlock()
	<-ctx.Done()
	m.wg.Wait()
	return nil
}

func (m *Manager) startLocked(e *entry) {
	if m.ctx == nil || m.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(m.ctx)
	e.cancel = cancel
	m.wg.Add(1)
	go func() {
		defer m.wg.Done()
		m.renew(ctx, e)
	}()
}

// Use begins to keep a certificate for id. It is forgotten after release has been
// called by everybody who uses it.
func (m *Manager) Use(id identity.ID) (s *Source, release func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[id]
	if e == nil {
		e = &entry{id: id, first: make(chan struct{})}
		m.entries[id] = e
		m.startLocked(e)
	}
	e.users++
	return &Source{e}, sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if e.users--; e.users > 0 {
			return
		}
		delete(m.entries, id)
		if e.cancel != nil {
			e.cancel()
		}
	})
}

// renew keeps one certificate until ctx ends.
func (m *Manager) renew(ctx context.Context, e *entry) {
	retry := retryMin
	for {
		wait := m.issue(ctx, e)
		if ctx.Err() != nil {
			return
		}
		if wait < 0 {
			wait = time.Duration(float64(retry) * (0.8 + 0.4*rand.Float64()))
			retry = min(2*retry, retryMax)
			// A certificate of seconds must not be lost to a wait of minutes.
			if c := e.current(); c != nil {
				if left := time.Until(c.Leaf().NotAfter); left > 0 {
					wait = min(wait, max(left/8, retryMin/10))
				}
			}
		} else {
			retry = retryMin
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// issue asks once and gives the time until the next renewal, negative after a failure.
func (m *Manager) issue(ctx context.Context, e *entry) time.Duration {
	select {
	case m.slots <- struct{}{}:
	case <-ctx.Done():
		return -1
	}
	defer func() { <-m.slots }()
	ctx, cancel := context.WithTimeout(ctx, issueTimeout)
	defer cancel()
	start := time.Now()
	cert, err := m.authority.Issue(ctx, e.id)
	m.metrics.issued(time.Since(start), err)
	if err == nil {
		cert = cert.Guarded(m.check)
	}
	e.set(cert, err)
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			m.log.Warn("certificate not issued", zap.Stringer("identity", e.id), zap.Error(err))
		}
		return -1
	}
	m.log.Debug("certificate issued", zap.Stringer("identity", e.id), zap.Time("notAfter", cert.Leaf().NotAfter))
	// Half life, a little earlier or later so that a node's renewals spread out.
	life := cert.Leaf().NotAfter.Sub(cert.Leaf().NotBefore)
	jitter := time.Duration((rand.Float64() - 0.5) * 0.1 * float64(life))
	return max(time.Until(cert.RenewAt())+jitter, life/20, 10*time.Millisecond)
}

func (e *entry) current() *identity.Certificate {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cert
}

func (e *entry) set(cert *identity.Certificate, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = err
	if err != nil {
		return
	}
	if e.cert == nil {
		close(e.first)
	}
	e.cert, e.since = cert, time.Now()
}

// Source gives the certificate of one identity.
type Source struct{ e *entry }

// ID is the identity.
func (s *Source) ID() identity.ID { return s.e.id }

// Get gives the present certificate, waiting for the first one until ctx ends.
func (s *Source) Get(ctx context.Context) (*identity.Certificate, error) {
	select {
	case <-s.e.first:
	default:
		select {
		case <-s.e.first:
		case <-ctx.Done():
		}
	}
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	switch {
	case s.e.cert != nil && time.Now().Before(s.e.cert.Leaf().NotAfter):
		return s.e.cert, nil
	case s.e.err != nil:
		return nil, fmt.Errorf("%s: %w: %w", s.e.id, ErrUnavailable, s.e.err)
	case s.e.cert != nil:
		return nil, fmt.Errorf("%s: %w: expired at %s", s.e.id, ErrUnavailable, s.e.cert.Leaf().NotAfter)
	}
	return nil, fmt.Errorf("%s: %w: the authority has not answered yet", s.e.id, ErrUnavailable)
}

// Status is what is held for one identity.
type Status struct {
	ID    identity.ID
	Cert  *identity.Certificate // nil when there is none yet
	Since time.Time             // when Cert came
	Err   error                 // of the last attempt
}

// Snapshot gives what is held, sorted by identity.
func (m *Manager) Snapshot() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Status, 0, len(m.entries))
	for id, e := range m.entries {
		e.mu.Lock()
		out = append(out, Status{ID: id, Cert: e.cert, Since: e.since, Err: e.err})
		e.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.ID.Principal(), b.ID.Principal()) })
	return out
}
