package manifest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"k8s.io/apimachinery/pkg/runtime"
)

// Config says what to watch.
type Config struct {
	// Dirs are overlaid: the same object in a later one supersedes.
	Dirs []string
	// Flat leaves out the directories below Dirs.
	Flat bool
	// Scheme has the kinds that may occur; NewScheme when nil.
	Scheme *runtime.Scheme
	// Debounce is how long the files have to be quiet before they are read; 20 ms
	// when zero. After ten times that they are read in any case.
	Debounce time.Duration
	// Apply is called by Run, one call at a time. The first batch is everything
	// there is, even if that is nothing; an empty batch does not follow it.
	Apply func(Batch)
}

// Watcher follows directories. It is for one Run.
type Watcher struct {
	config  Config
	overlay *overlay
	notify  *fsnotify.Watcher // owned by Run
	// inodes are the directories behind the watched paths.
	inodes map[string]os.FileInfo
}

// NewWatcher checks the configuration and that every directory exists.
func NewWatcher(cfg Config) (*Watcher, error) {
	switch {
	case len(cfg.Dirs) == 0:
		return nil, errors.New("manifest watcher: no directory given")
	case cfg.Apply == nil:
		return nil, errors.New("manifest watcher: no Apply function given")
	}
	if cfg.Scheme == nil {
		cfg.Scheme = NewScheme()
	}
	if cfg.Debounce == 0 {
		cfg.Debounce = 20 * time.Millisecond
	}
	v, err := open(cfg.Dirs, cfg.Flat, cfg.Scheme)
	if err != nil {
		return nil, err
	}
	return &Watcher{config: cfg, overlay: v, inodes: make(map[string]os.FileInfo)}, nil
}

// Run delivers the initial state and then every change until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	notify, err := fsnotify.NewBufferedWatcher(4096)
	if err != nil {
		return fmt.Errorf("watch manifest directories: %w: raise fs.inotify.max_user_instances", err)
	}
	defer notify.Close()
	w.notify = notify
	touched := w.overlay.scanAll(w.watch)
	for _, l := range w.overlay.layers {
		if l.problem != nil {
			return *l.problem
		}
	}
	batch, _ := w.overlay.settle(touched)
	w.config.Apply(batch)
	return w.follow(ctx)
}

// follow collects events until they pause, and then reads what they name.
func (w *Watcher) follow(ctx context.Context) error {
	// A root can be moved together with what it is in, for which there is no
	// event, so that it is looked at from time to time as well.
	idle := 50 * w.config.Debounce
	var pending changes
	var first time.Time
	timer := time.NewTimer(idle)
	defer timer.Stop()
	for {
		wasPending := pending.any()
		select {
		case <-ctx.Done():
			return nil
		case ev := <-w.notify.Events:
			w.note(ev, &pending)
		case <-w.notify.Errors: //nolint:errcheck // whichever it is
			// Events were lost, so that any file may have changed.
			pending.all = true
		case <-timer.C:
			pending.all = pending.all || w.rootsMoved()
			w.read(pending)
			pending = changes{}
			timer.Reset(idle)
			continue
		}
		if !pending.any() {
			continue
		}
		if !wasPending {
			first = time.Now()
		}
		timer.Reset(max(0, min(w.config.Debounce, 10*w.config.Debounce-time.Since(first))))
	}
}

// rootsMoved says whether a root is missing or another directory than before.
func (w *Watcher) rootsMoved() bool {
	return slices.ContainsFunc(w.overlay.layers, func(l *layer) bool {
		info, err := os.Stat(l.root)
		return l.problem != nil || err != nil || !os.SameFile(info, w.inodes[l.root])
	})
}

// changes are what events named since the files were last read.
type changes struct {
	all   bool
	paths map[string]bool
}

func (c *changes) any() bool { return c.all || len(c.paths) > 0 }

// note sorts one event: a manifest is looked at alone, whatever else may have
// changed the tree (directories, the ..data link of a ConfigMap volume, roots)
// leads to a scan.
func (w *Watcher) note(ev fsnotify.Event, pending *changes) {
	ev.Name = filepath.Clean(ev.Name)
	_, watchedDir := w.inodes[ev.Name]
	name := filepath.Base(ev.Name)
	switch {
	case ev.Op == fsnotify.Chmod && !accepts(name):
	case watchedDir:
		if ev.Has(fsnotify.Remove) || ev.Has(fsnotify.Rename) {
			delete(w.inodes, ev.Name)
		}
		pending.all = true
	case w.layerOf(ev.Name) < 0:
		// A neighbour of a root.
	case isDir(ev.Name) || strings.HasPrefix(name, ".."):
		pending.all = true
	case accepts(name):
		if pending.paths == nil {
			pending.paths = make(map[string]bool)
		}
		pending.paths[ev.Name] = true
	}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// read takes in what the events named and delivers the difference.
func (w *Watcher) read(pending changes) {
	var keys []Key
	if pending.all {
		keys = w.overlay.scanAll(w.watch)
	}
	for path := range pending.paths {
		i := w.layerOf(path)
		if w.overlay.layers[i].problem != nil {
			continue // the file is missing because the root is
		}
		touched := w.overlay.layers[i].refresh(path, true)
		keys = append(keys, w.overlay.replace(i, []touch{{path, touched}})...)
	}
	if b, changed := w.overlay.settle(keys); changed {
		w.config.Apply(b)
	}
}

// layerOf gives the index of the layer that a path belongs to, or -1.
func (w *Watcher) layerOf(path string) int {
	return slices.IndexFunc(w.overlay.layers, func(l *layer) bool {
		return filepath.Dir(path) == l.root || !l.flat && inside(l.root, path)
	})
}

// watch makes sure that dir is watched, and of a root also what it is in, to see
// it come back.
func (w *Watcher) watch(dir string) error {
	if w.isRoot(dir) {
		// A parent that cannot be watched is made up for by rootsMoved.
		_ = w.add(filepath.Dir(dir))
	}
	return w.add(dir)
}

// add watches what is at a path now, which may be another directory than before.
func (w *Watcher) add(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if old, known := w.inodes[dir]; !known || !os.SameFile(old, info) {
		_ = w.notify.Remove(dir) // fails when there is nothing to remove
	}
	w.inodes[dir] = info
	// Added each time: the kernel drops the watch of a deleted directory, and its
	// inode number may be used again at once.
	if err := w.notify.Add(dir); err != nil {
		return fmt.Errorf("watch: %w: raise fs.inotify.max_user_watches", err)
	}
	return nil
}

func (w *Watcher) isRoot(dir string) bool {
	return slices.ContainsFunc(w.overlay.layers, func(l *layer) bool { return l.root == dir })
}
