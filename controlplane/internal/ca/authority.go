package ca

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/controlplane/internal/statefile"
)

const (
	// checkInterval bounds how late a clock that jumps is noticed.
	checkInterval = time.Minute
	// pollInterval is how often plugged-in files are looked at.
	pollInterval  = 5 * time.Second
	retryInterval = 10 * time.Second
	// maxConflicts is how often others may be first to store something.
	maxConflicts = 20
)

// ErrRotation is wrapped by the errors of Rotate that say that a rotation
// cannot start now.
var ErrRotation = errors.New("cannot rotate the root")

// Authority issues certificates. Its methods may be called from any goroutine.
type Authority struct {
	cfg     Config
	metrics *metrics
	current atomic.Pointer[trust]
	serving serving
	wake    chan struct{} // capacity 1: Rotate tells Run that due has changed

	mu  sync.Mutex
	own *state // guarded by mu; nil with plugged-in files
	// store of own, what was in it last, and when that was known to be so. Guarded by mu.
	store  Store
	record string
	looked time.Time
	stamp  string // guarded by mu; what the plugged-in files looked like
}

// Status is what an authority is doing, for the admin port.
type Status struct {
	PluggedIn     bool      `json:"pluggedIn"`
	Phase         string    `json:"phase"`
	PhaseEnds     time.Time `json:"phaseEnds,omitzero"`
	IssuerSerial  string    `json:"issuerSerial"`
	IssuerExpires time.Time `json:"issuerExpires"`
	Roots         []Root    `json:"roots"`
}

// Root is one published root.
type Root struct {
	Subject string    `json:"subject"`
	Serial  string    `json:"serial"`
	Expires time.Time `json:"expires"`
}

// New loads the authority from its files or makes it, and publishes the bundle.
func New(cfg Config) (*Authority, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	a := &Authority{cfg: cfg, wake: make(chan struct{}, 1), looked: cfg.Now()}
	if a.metrics, err = newMetrics(a, cfg.Metrics); err != nil {
		return nil, fmt.Errorf("ca: metrics: %w", err)
	}
	if cfg.PluggedIn.enabled() {
		a.stamp = cfg.PluggedIn.stamp()
		t, err := cfg.PluggedIn.load(cfg.TrustDomain, cfg.Now())
		if err != nil {
			return nil, fmt.Errorf("ca: plugged-in CA: %w", err)
		}
		return a, a.publish(t, steady)
	}
	if a.store = cfg.Store; a.store == nil {
		if a.store, err = newFileStore(cfg.Dir); err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
	}
	s, err := a.loadOrMint(context.Background())
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	return a, a.adopt(s)
}

// loadOrMint gives the state that is stored, made if there is none, with its
// issuing generation good for the configured TTL. Of replicas that begin at once
// one makes it, and the others read what that one made.
func (a *Authority) loadOrMint(ctx context.Context) (*state, error) {
	for range maxConflicts {
		s, err := a.load(ctx)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			g, err := mintGeneration(&a.cfg, a.cfg.Now())
			if err != nil {
				return nil, err
			}
			s = &state{phase: steady, issuing: g}
			if err := a.save(ctx, s); errors.Is(err, ErrConflict) {
				continue
			} else if err != nil {
				return nil, err
			}
			a.cfg.Log.Info("made a new root", zap.String("store", a.store.Name()), zap.Time("expires", g.root.NotAfter))
			return s, nil
		case err != nil:
			return nil, err
		case s.issuing.longestTTL >= a.cfg.TTL:
			return s, nil
		}
		g := *s.issuing
		g.longestTTL = a.cfg.TTL
		next := *s
		next.issuing = &g
		if err := a.save(ctx, &next); errors.Is(err, ErrConflict) {
			continue
		} else if err != nil {
			return nil, err
		}
		return &next, nil
	}
	return nil, fmt.Errorf("%s: %w, %d times", a.store.Name(), ErrConflict, maxConflicts)
}

// load reads the store. A record that does not exist is fs.ErrNotExist; any other
// problem names what to do.
func (a *Authority) load(ctx context.Context) (*state, error) {
	data, err := a.store.Load(ctx)
	if err != nil {
		return nil, err
	}
	s, err := decodeState(data)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; %s", a.store.Name(), err, a.store.Remedy())
	}
	if td := s.issuing.root.Subject.Organization; a.cfg.Store != nil && (len(td) != 1 || td[0] != a.cfg.TrustDomain) {
		return nil, fmt.Errorf("%s: its root is of trust domain %q, this mesh is %q; %s", a.store.Name(), td, a.cfg.TrustDomain, a.store.Remedy())
	}
	if now := a.cfg.Now(); !now.Before(s.issuing.root.NotAfter) {
		return nil, fmt.Errorf("%s: the root expired at %s; %s", a.store.Name(), s.issuing.root.NotAfter.Format(time.RFC3339), a.store.Remedy())
	}
	a.record = string(data)
	return s, nil
}

func (a *Authority) save(ctx context.Context, s *state) error {
	data, err := encodeState(s)
	if err != nil {
		return err
	}
	if err := a.store.Save(ctx, data); err != nil {
		return err
	}
	a.record = string(data)
	return nil
}

// follow takes what another replica has stored, but no other authority: certificates of the two would not trust each other.
// A rotation publishes the new root for RotationOverlap before the old one goes, so that who has looked within that time knows
// one of the roots. Called with mu held.
func (a *Authority) follow(ctx context.Context) error {
	before := a.record
	s, err := a.load(ctx)
	if err != nil {
		return err
	}
	away := a.cfg.Now().Sub(a.looked)
	a.looked = a.cfg.Now()
	if a.record == before {
		return nil
	}
	if away < a.cfg.RotationOverlap && !a.own.shares(s) {
		a.record = before
		return fmt.Errorf("%s: holds another authority, of root %x, while root %x is in use; restore what was there from a backup, or restart the control plane to begin with that root: all workloads then get new certificates",
			a.store.Name(), s.issuing.root.SerialNumber, a.own.issuing.root.SerialNumber)
	}
	a.cfg.Log.Info("taking over what another replica has stored", zap.String("store", a.store.Name()), zap.String("phase", string(s.phase)))
	return a.adopt(s)
}

// adopt makes s, which is on disk, the current state. Called with mu held, or
// before anybody else has the authority.
func (a *Authority) adopt(s *state) error {
	if err := a.publish(s.trust(), s.phase); err != nil {
		return err
	}
	a.own = s
	return nil
}

// publish writes the bundle first: nobody may meet a certificate whose root was
// not there to be read.
func (a *Authority) publish(t *trust, p phase) error {
	if a.cfg.BundleFile != "" {
		if err := statefile.Write(a.cfg.BundleFile, []byte(t.bundle), 0o644); err != nil {
			return fmt.Errorf("ca: root bundle: %w", err)
		}
	}
	former := a.current.Swap(t)
	if a.cfg.Revoked != nil && (former == nil || !slices.EqualFunc(former.revoked, t.revoked, bytes.Equal)) {
		a.cfg.Revoked(t.revoked)
	}
	a.metrics.setPhase(p)
	return nil
}

// Run renews and rotates what is due, until ctx ends.
func (a *Authority) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
		case <-timer.C:
		}
		timer.Reset(a.maintain(ctx))
	}
}

// maintain does what is due and says when to come again.
func (a *Authority) maintain(ctx context.Context) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.own == nil {
		a.reload()
		return pollInterval
	}
	longest := checkInterval
	if a.cfg.Store != nil {
		longest = pollInterval
		if err := a.follow(ctx); err != nil {
			return a.failed(err)
		}
		if !a.cfg.Leads() {
			return pollInterval
		}
	}
	for {
		next, event, err := a.own.step(&a.cfg, a.cfg.Now())
		if err == nil && event != "" {
			err = a.advance(ctx, next)
		}
		if err != nil {
			return a.failed(err)
		}
		if event == "" {
			return min(longest, max(0, a.own.due().Sub(a.cfg.Now())))
		}
		a.cfg.Log.Info(event, zap.String("phase", string(next.phase)), zap.Time("until", next.until), zap.Time("issuerExpires", next.issuing.cert.NotAfter))
	}
}

func (a *Authority) failed(err error) time.Duration {
	a.metrics.failures.Inc()
	a.cfg.Log.Error("CA maintenance failed; going on with what there is", zap.Duration("retryIn", retryInterval), zap.Error(err))
	return retryInterval
}

// advance stores s, then puts it in use. Called with mu held.
func (a *Authority) advance(ctx context.Context, s *state) error {
	if err := a.save(ctx, s); err != nil {
		return err
	}
	return a.adopt(s)
}

// reload takes plugged-in files that have changed. Files that are not good
// leave what is in use. Called with mu held.
func (a *Authority) reload() {
	stamp := a.cfg.PluggedIn.stamp()
	if stamp == a.stamp {
		return
	}
	a.stamp = stamp
	t, err := a.cfg.PluggedIn.load(a.cfg.TrustDomain, a.cfg.Now())
	if err == nil {
		err = a.publish(t, steady)
	}
	if err != nil {
		a.metrics.failures.Inc()
		a.cfg.Log.Error("plugged-in CA files changed but are not usable; going on with the former ones", zap.Error(err))
		return
	}
	a.cfg.Log.Info("plugged-in CA files reloaded", zap.Time("issuerExpires", t.issuer.cert.NotAfter))
}

// Rotate publishes a new root and starts the move to it.
func (a *Authority) Rotate() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.own == nil {
		return fmt.Errorf("%w: it is plugged in; put the new root beside the old one in %s, wait for the certificates' life (%s), then replace the issuing certificate and key", ErrRotation, a.cfg.PluggedIn.Root, a.cfg.TTL)
	}
	if a.cfg.Store != nil {
		if err := a.follow(context.Background()); err != nil {
			return err
		}
	}
	if a.own.phase != steady {
		return fmt.Errorf("%w: a rotation is under way (%s until %s)", ErrRotation, a.own.phase, a.own.until.Format(time.RFC3339))
	}
	next, err := a.own.introduce(&a.cfg, a.cfg.Now())
	if err != nil {
		return err
	}
	if err := a.advance(context.Background(), next); err != nil {
		return err
	}
	a.cfg.Log.Info("rotation asked for: new root published", zap.Time("until", next.until))
	select {
	case a.wake <- struct{}{}:
	default: // Run has not yet taken the former wake-up, which serves as well.
	}
	return nil
}

// Bundle gives the published roots, PEM.
func (a *Authority) Bundle() string { return a.current.Load().bundle }

// Status says what the authority is doing.
func (a *Authority) Status() Status {
	a.mu.Lock()
	own := a.own
	a.mu.Unlock()
	t := a.current.Load()
	s := Status{
		PluggedIn: own == nil, Phase: string(steady),
		IssuerSerial: t.issuer.cert.SerialNumber.Text(16), IssuerExpires: t.issuer.cert.NotAfter,
	}
	if own != nil {
		s.Phase, s.PhaseEnds = string(own.phase), own.until
	}
	for _, r := range t.roots {
		s.Roots = append(s.Roots, Root{Subject: r.Subject.String(), Serial: r.SerialNumber.Text(16), Expires: r.NotAfter})
	}
	return s
}
