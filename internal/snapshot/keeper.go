package snapshot

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Config says what is kept, and where. Zero values mean the defaults that are given.
type Config struct {
	// Path of the file; its directory is made, closed to others.
	Path string
	// Cluster, TrustDomain and Node are whose snapshot it is.
	Cluster, TrustDomain, Node string
	// MaxAge is how old a snapshot may be to be used; 24 h.
	MaxAge time.Duration
	// MaxSize bounds the file, in bytes; 256 MiB.
	MaxSize int64
	// Interval is the least time between two saves; 2 s. Large snapshots are saved
	// more rarely, so that saving takes at most a fiftieth of the time.
	Interval time.Duration
	// Refresh is how often it is noted that nothing has changed; 10 min.
	Refresh time.Duration
	// Heard tells when the control plane's word was last known to be complete, now
	// while it is connected; zero before it has been.
	Heard func() time.Time

	Log        *zap.Logger
	Registerer prometheus.Registerer
}

type key struct{ typeURL, name string }

// Keeper loads and saves the snapshot of one process.
type Keeper struct {
	cfg     Config
	metrics *metrics
	kick    chan struct{}

	mu      sync.Mutex
	pending map[key]*discoveryv3.Resource // nil for what was removed; guarded by mu

	// Owned by Load, and then by Run.
	base *os.File // what pending is on top of; nil for nothing
	dead bool     // saving is of no use any more
}

// New makes a keeper. Load comes first, then Run.
func New(cfg Config) (*Keeper, error) {
	if !filepath.IsAbs(cfg.Path) {
		return nil, fmt.Errorf("snapshot file %q: want an absolute path", cfg.Path)
	}
	if cfg.MaxAge < 0 || cfg.MaxSize < 0 {
		return nil, errors.New("snapshot: age and size must not be negative")
	}
	def(&cfg.MaxAge, 24*time.Hour)
	def(&cfg.MaxSize, 256<<20)
	def(&cfg.Interval, 2*time.Second)
	def(&cfg.Refresh, 10*time.Minute)
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o700); err != nil {
		return nil, fmt.Errorf("snapshot directory: %w", err)
	}
	return &Keeper{cfg: cfg, metrics: newMetrics(cfg.Registerer), kick: make(chan struct{}, 1), pending: make(map[key]*discoveryv3.Resource)}, nil
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Load gives what the file holds, and since when it may be out of date. What is wrong
// with a file that is there but refused is an error; fs.ErrNotExist without one.
func (k *Keeper) Load(now time.Time) (Header, []*discoveryv3.Resource, error) {
	h, all, err := k.load(now)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.metrics.refused(err)
		err = fmt.Errorf("snapshot %s is refused: %w", k.cfg.Path, err)
	}
	return h, all, err
}

func (k *Keeper) load(now time.Time) (Header, []*discoveryv3.Resource, error) {
	// No link is followed: the file is this program's own.
	f, err := os.OpenFile(k.cfg.Path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return Header{}, nil, err
	}
	h, all, err := k.read(f)
	if err == nil {
		err = k.check(h, now)
	}
	if err != nil {
		_ = f.Close()
		return Header{}, nil, err
	}
	k.base = f
	return h, all, nil
}

func (k *Keeper) read(f *os.File) (Header, []*discoveryv3.Resource, error) {
	info, err := f.Stat()
	if err != nil {
		return Header{}, nil, err
	}
	switch {
	case !info.Mode().IsRegular():
		return Header{}, nil, corrupt("it is no regular file")
	case info.Mode().Perm()&0o077 != 0:
		return Header{}, nil, corrupt("its mode %04o lets others have it", info.Mode().Perm())
	case info.Size() > k.cfg.MaxSize:
		return Header{}, nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooBig, info.Size(), k.cfg.MaxSize)
	}
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, info.Size()), b); err != nil {
		return Header{}, nil, err
	}
	return decode(b)
}

// skew is how far in the future a snapshot may be from.
const skew = 5 * time.Minute

func (k *Keeper) check(h Header, now time.Time) error {
	for _, f := range []struct{ name, got, want string }{
		{"cluster", h.Cluster, k.cfg.Cluster}, {"trust domain", h.TrustDomain, k.cfg.TrustDomain}, {"node", h.Node, k.cfg.Node},
	} {
		if f.got != f.want {
			return fmt.Errorf("%w: it is of %s %q, this is %q", ErrForeign, f.name, f.got, f.want)
		}
	}
	switch age := now.Sub(h.Heard); {
	case age > k.cfg.MaxAge:
		return fmt.Errorf("%w: %s, at most %s may it be", ErrTooOld, age.Round(time.Second), k.cfg.MaxAge)
	case age < -skew:
		return corrupt("it is of %s from now", (-age).Round(time.Second))
	}
	return nil
}

// Record notes what an update has changed. The resources must not change any more.
func (k *Keeper) Record(typeURL string, updated []*discoveryv3.Resource, removed []string) {
	k.mu.Lock()
	for _, name := range removed {
		k.pending[key{typeURL, name}] = nil
	}
	for _, r := range updated {
		// What is of another type than it was asked for was of no use to anybody.
		if r.GetName() != "" && r.GetResource().GetTypeUrl() == typeURL {
			k.pending[key{typeURL, r.GetName()}] = r
		}
	}
	k.mu.Unlock()
	k.Changed()
}

// Changed asks for a save soon.
func (k *Keeper) Changed() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// Run saves what changes until ctx ends, and once more then.
func (k *Keeper) Run(ctx context.Context) error {
	defer func() {
		if k.base != nil {
			_ = k.base.Close()
		}
	}()
	refresh := time.NewTicker(k.cfg.Refresh)
	defer refresh.Stop()
	for {
		select {
		case <-ctx.Done():
			k.save()
			return nil
		case <-k.kick:
		case <-refresh.C:
		}
		pause := time.NewTimer(k.save())
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

// bulk is a change so large, a first sync as a rule, that what was kept of it until it was
// on disk is given back to the node at once.
const bulk = 5000

// save writes what there is, if it is complete, and says how long to wait before the
// next time.
func (k *Keeper) save() time.Duration {
	heard := k.cfg.Heard()
	if k.dead || heard.IsZero() {
		return k.cfg.Interval
	}
	k.mu.Lock()
	pending := k.pending
	k.pending = make(map[key]*discoveryv3.Resource)
	k.mu.Unlock()
	start := time.Now()
	size, err := k.write(Header{k.cfg.Cluster, k.cfg.TrustDomain, k.cfg.Node, heard}, pending)
	k.metrics.saved(size, heard, err)
	switch {
	case errors.Is(err, ErrCorrupt):
		// Without its base what has changed since makes no whole.
		k.dead = true
		k.cfg.Log.Error("the snapshot is damaged: none is kept until this process is started again", zap.String("path", k.cfg.Path), zap.Error(err))
		_ = os.Remove(k.cfg.Path)
	case err != nil:
		k.mu.Lock()
		for key, r := range k.pending {
			pending[key] = r
		}
		k.pending = pending
		k.mu.Unlock()
		k.cfg.Log.Warn("the snapshot is not saved; trying again", zap.String("path", k.cfg.Path), zap.Error(err))
		k.Changed()
		return max(k.cfg.Interval, 30*time.Second)
	}
	took := time.Since(start)
	if len(pending) >= bulk {
		debug.FreeOSMemory()
	}
	return max(k.cfg.Interval, 50*took)
}

// write replaces the file by its base with the changes.
func (k *Keeper) write(h Header, changes map[key]*discoveryv3.Resource) (size int64, err error) {
	var base []*discoveryv3.Resource
	if k.base != nil {
		if _, base, err = k.read(k.base); err != nil {
			return 0, err
		}
	}
	f, err := os.CreateTemp(filepath.Dir(k.cfg.Path), "."+filepath.Base(k.cfg.Path)+".*") // mode 0600
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	w := bufio.NewWriterSize(f, 64<<10)
	if size, err = encode(w, h, base, changes, k.cfg.MaxSize); err != nil {
		return size, err
	}
	if err = errors.Join(w.Flush(), f.Sync()); err != nil {
		return size, err
	}
	if err = os.Rename(f.Name(), k.cfg.Path); err != nil {
		return size, err
	}
	if k.base != nil {
		_ = k.base.Close()
	}
	k.base = f
	return size, nil
}

func encode(w io.Writer, h Header, base []*discoveryv3.Resource, changes map[key]*discoveryv3.Resource, limit int64) (int64, error) {
	e, err := newEncoder(w, h)
	if err != nil {
		return 0, err
	}
	put := func(r *discoveryv3.Resource) error {
		if err := e.resource(r); err != nil {
			return err
		}
		if e.n > limit {
			return fmt.Errorf("%w: more than %d bytes", ErrTooBig, limit)
		}
		return nil
	}
	for _, r := range base {
		if _, changed := changes[key{r.GetResource().GetTypeUrl(), r.GetName()}]; changed {
			continue
		}
		if err := put(r); err != nil {
			return e.n, err
		}
	}
	for _, r := range changes {
		if r == nil {
			continue
		}
		if err := put(r); err != nil {
			return e.n, err
		}
	}
	return e.n, e.end()
}
