package ca

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
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

	mu    sync.Mutex
	own   *state // guarded by mu; nil with plugged-in files
	stamp string // guarded by mu; what the plugged-in files looked like
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
	a := &Authority{cfg: cfg, wake: make(chan struct{}, 1)}
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
	if err := statefile.PrivateDir(cfg.Dir); err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	s, err := a.loadOrMint()
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	return a, a.adopt(s)
}

// loadOrMint gives the state on disk, made if there is none, with its issuing
// generation good for the configured TTL.
func (a *Authority) loadOrMint() (*state, error) {
	path := a.recordPath()
	s, err := loadState(path)
	if errors.Is(err, fs.ErrNotExist) {
		g, err := mintGeneration(&a.cfg, a.cfg.Now())
		if err != nil {
			return nil, err
		}
		a.cfg.Log.Info("made a new root", zap.String("file", path), zap.Time("expires", g.root.NotAfter))
		s = &state{phase: steady, issuing: g}
		return s, saveState(path, s)
	}
	if err != nil {
		return nil, err
	}
	if now := a.cfg.Now(); !now.Before(s.issuing.root.NotAfter) {
		return nil, fmt.Errorf("%s: the root expired at %s; delete the file to begin with a new root, which every node has to be given", path, s.issuing.root.NotAfter.Format(time.RFC3339))
	}
	if s.issuing.longestTTL < a.cfg.TTL {
		g := *s.issuing
		g.longestTTL = a.cfg.TTL
		next := *s
		next.issuing = &g
		return &next, saveState(path, &next)
	}
	return s, nil
}

func (a *Authority) recordPath() string { return filepath.Join(a.cfg.Dir, recordName) }

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
	if err := statefile.Write(a.cfg.BundleFile, []byte(t.bundle), 0o644); err != nil {
		return fmt.Errorf("ca: root bundle: %w", err)
	}
	a.current.Store(t)
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
		timer.Reset(a.maintain())
	}
}

// maintain does what is due and says when to come again.
func (a *Authority) maintain() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.own == nil {
		a.reload()
		return pollInterval
	}
	for {
		next, event, err := a.own.step(&a.cfg, a.cfg.Now())
		if err == nil && event != "" {
			err = a.advance(next)
		}
		if err != nil {
			a.metrics.failures.Inc()
			a.cfg.Log.Error("CA maintenance failed; going on with what there is", zap.Duration("retryIn", retryInterval), zap.Error(err))
			return retryInterval
		}
		if event == "" {
			return min(checkInterval, max(0, a.own.due().Sub(a.cfg.Now())))
		}
		a.cfg.Log.Info(event, zap.String("phase", string(next.phase)), zap.Time("until", next.until), zap.Time("issuerExpires", next.issuing.cert.NotAfter))
	}
}

// advance puts s on disk, then in use. Called with mu held.
func (a *Authority) advance(s *state) error {
	if err := saveState(a.recordPath(), s); err != nil {
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
	if a.own.phase != steady {
		return fmt.Errorf("%w: a rotation is under way (%s until %s)", ErrRotation, a.own.phase, a.own.until.Format(time.RFC3339))
	}
	next, err := a.own.introduce(&a.cfg, a.cfg.Now())
	if err != nil {
		return err
	}
	if err := a.advance(next); err != nil {
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
