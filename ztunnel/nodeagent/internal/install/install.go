package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/lifecycle"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/cniconf"
)

// Installer keeps the plugin installed while it runs, and leaves it when it stops.
type Installer struct {
	cfg     Config
	metrics *metrics

	mu      sync.Mutex        // one change at a time; guards what follows
	removed bool              // for good
	pending *lifecycle.Task   // what readiness waits for
	waiting string            // pending's name
	named   map[string]string // problems that were told
}

// New makes an Installer. Until Run has installed the plugin, readiness says so.
func New(cfg Config) (*Installer, error) {
	if err := cfg.validate(true); err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("CNI installation: %w", err)
	}
	i := &Installer{cfg: cfg, metrics: m, named: make(map[string]string)}
	i.await("installation of the CNI plugin")
	return i, nil
}

// Run installs, watches and repairs until ctx ends. What is installed stays.
func (i *Installer) Run(ctx context.Context) error {
	events, stop := i.watch()
	defer stop()
	if err := sweep(i.cfg.ConfDir, i.cfg.BinDir); err != nil {
		i.cfg.Logger.Warn("CNI installation", zap.Error(err))
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	// soon says that the timer is set because of an event: more of them do not
	// put the look off.
	soon := true
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-events:
			switch {
			case !ok:
				events = nil
			case !soon:
				soon = true
				timer.Reset(i.cfg.Settle)
			}
		case <-timer.C:
			soon = false
			timer.Reset(i.look())
		}
	}
}

// watch gives a channel of changes; nil if the kernel has no watch to give, which
// leaves the regular look.
func (i *Installer) watch() (<-chan fsnotify.Event, func()) {
	w, err := fsnotify.NewWatcher()
	if err == nil {
		for _, dir := range []string{i.cfg.ConfDir, i.cfg.BinDir} {
			err = errors.Join(err, w.Add(dir))
		}
	}
	if err != nil {
		i.cfg.Logger.Warn("CNI directories cannot be watched; they are looked at regularly", zap.Duration("interval", i.cfg.Interval), zap.Error(err))
	}
	if w == nil {
		return nil, func() {}
	}
	go func() {
		for range w.Errors {
		}
	}()
	return w.Events, func() { _ = w.Close() }
}

// look installs or repairs, and tells when to look again.
func (i *Installer) look() time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.removed {
		return i.cfg.Interval
	}
	if err := i.installProgram(); err != nil {
		i.cfg.Logger.Error("CNI plugin cannot be installed", zap.Error(err))
		i.metrics.installed.Set(0)
		i.await(fmt.Sprintf("CNI plugin in %s: %v", i.cfg.BinDir, err))
		return i.cfg.Interval
	}
	o, err := i.place()
	for _, name := range o.changed {
		i.metrics.changes.Inc()
		i.cfg.Logger.Info("CNI configuration was changed", zap.String("file", filepath.Join(i.cfg.ConfDir, name)), zap.String("primary", o.primary))
	}
	if errors.Is(err, errChanged) || errors.Is(err, fs.ErrNotExist) && o.primary == "" && dirExists(i.cfg.ConfDir) {
		return i.cfg.Settle
	}
	i.tell(o, err)
	return i.cfg.Interval
}

func dirExists(dir string) bool {
	st, err := os.Stat(dir)
	return err == nil && st.IsDir()
}

func (i *Installer) installProgram() error {
	changed, err := copyProgram(i.cfg.Program, filepath.Join(i.cfg.BinDir, i.cfg.Type))
	if changed {
		i.cfg.Logger.Info("CNI plugin was installed", zap.String("program", filepath.Join(i.cfg.BinDir, i.cfg.Type)))
	}
	return err
}

// tell brings readiness, metrics and log up to date.
func (i *Installer) tell(o outcome, err error) {
	installed := 0.0
	if o.primary != "" {
		installed = 1
	}
	i.metrics.installed.Set(installed)
	for name := range i.named {
		if _, still := o.problems[name]; !still {
			i.metrics.problem.DeleteLabelValues(name)
			i.cfg.Logger.Info("file of the CNI configuration is in order again", zap.String("file", filepath.Join(i.cfg.ConfDir, name)))
		}
	}
	var texts []string
	for name, why := range o.problems {
		texts = append(texts, fmt.Sprintf("CNI configuration %s: %s", filepath.Join(i.cfg.ConfDir, name), why))
		i.metrics.problem.WithLabelValues(name).Set(1)
		if i.named[name] != why {
			i.cfg.Logger.Error("file of the CNI configuration cannot be used and is left alone; put it right or remove it",
				zap.String("file", filepath.Join(i.cfg.ConfDir, name)), zap.String("problem", why))
		}
	}
	i.named = o.problems
	slices.Sort(texts)
	switch {
	case err != nil:
		i.cfg.Logger.Error("CNI configuration cannot be edited", zap.Error(err))
		i.await("CNI configuration: " + err.Error())
	case len(texts) > 0:
		i.await(strings.Join(texts, "; "))
	case o.primary == "":
		i.await("a configuration of a primary CNI in " + i.cfg.ConfDir)
	default:
		i.await("")
	}
}

// await sets what readiness waits for, nothing if empty.
func (i *Installer) await(what string) {
	if what == i.waiting {
		return
	}
	old := i.pending
	i.pending = nil
	if what != "" {
		i.pending = i.cfg.Readiness.Task(what)
	}
	i.waiting = what
	if old != nil {
		old.Done()
	}
}

// Remove takes the plugin out for good: this Installer puts nothing back.
func (i *Installer) Remove() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.removed = true
	i.metrics.installed.Set(0)
	i.await("nothing: the CNI plugin was taken out of this node, and the agent is to be removed")
	return i.takeOutAll()
}

// Remove takes the plugin of a node out, wherever it is. Of the configuration, only
// the directories and the type are needed.
func Remove(cfg Config) error {
	if err := cfg.validate(false); err != nil {
		return err
	}
	i := &Installer{cfg: cfg}
	return i.takeOutAll()
}

// takeOutAll takes the entries out before the program that they name.
func (i *Installer) takeOutAll() error {
	names, err := configurations(i.cfg.ConfDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, name := range names {
		var o outcome
		if err := i.takeOut(name, &o); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", filepath.Join(i.cfg.ConfDir, name), err))
		}
		if text, err := os.ReadFile(filepath.Join(i.cfg.ConfDir, name)); err == nil && cniconf.Has(text, i.cfg.Type) {
			errs = append(errs, fmt.Errorf("%s still has the entry of %s; take it out by hand", filepath.Join(i.cfg.ConfDir, name), i.cfg.Type))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if err := os.Remove(filepath.Join(i.cfg.BinDir, i.cfg.Type)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return sweep(i.cfg.ConfDir, i.cfg.BinDir)
}
