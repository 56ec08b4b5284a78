package controlplane

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

const (
	// maxMerged bounds how many reports and releases make one batch.
	maxMerged = 256
	// persistRetry is the pause after the captured set could not be written.
	persistRetry = time.Second
	// maxMeasured is how many changes are timed at once.
	maxMeasured = 32
	// measureFor is when a change counts as not acknowledged.
	measureFor = 30 * time.Second
)

var errStopped = errors.New("the control plane is stopping")

// distributor is what the engine needs of xds.Server.
type distributor interface {
	Apply(compile.Delta) (version uint64, err error)
	AckedBy(ctx context.Context, typeURL string, version uint64) (behind []string, err error)
	KnownTo(ctx context.Context, typeURL string, version uint64) (behind []string, err error)
	Connected() int
}

// engine owns the compiler: it alone changes the mesh.
type engine struct {
	compiler       *compile.Compiler
	clients        distributor
	captured       *capturedJournal       // nil where pods have it as their condition
	restored       []compile.CapturedPod  // for the first batch; then nil
	bound          *boundFile             // nil where namespaces have it as their condition
	waypoints      []types.NamespacedName // likewise restored
	releaseTimeout time.Duration
	log            *zap.Logger
	metrics        *metrics

	inbox   chan message
	synced  chan struct{} // closed when the first complete state is distributed
	stopped chan struct{} // closed when Run has returned
	started time.Time     // set before synced is closed
	// followers are the goroutines that wait for acknowledgements; Run waits
	// for them.
	followers sync.WaitGroup
	measuring chan struct{}

	// Of a platform: shared is where releases are made known to all replicas, and
	// company says whether there are others. nil otherwise.
	shared  Releaser
	company func() bool
	// touched is told which objects may have another status; may be nil.
	touched func([]graph.Key)

	mu       sync.Mutex
	problems []manifest.Problem // guarded by mu
	applied  chan struct{}      // guarded by mu; closed and replaced when a batch is distributed
	// accompanied is when there was another replica last. Guarded by mu.
	accompanied time.Time
}

// message is a change for the engine.
type message struct {
	input compile.Input
	// edit: objects of the source, and when they came. Only one is in a batch,
	// because within a batch deletions precede.
	edit bool
	at   time.Time
	// done is closed when the change is part of what is distributed. May be nil.
	done chan struct{}
}

// newEngine makes an engine that keeps what it has to remember in a directory; ""
// if nothing.
func newEngine(c *compile.Compiler, d distributor, stateDir string, cfg Config, m *metrics) (*engine, error) {
	e := &engine{
		compiler: c, clients: d, releaseTimeout: cfg.ReleaseTimeout,
		log: cfg.Log, metrics: m,
		inbox: make(chan message, 64), synced: make(chan struct{}), stopped: make(chan struct{}),
		measuring: make(chan struct{}, maxMeasured), applied: make(chan struct{}),
	}
	if stateDir == "" {
		return e, nil
	}
	capturedFile := filepath.Join(stateDir, capturedName)
	captured, torn, err := openCaptured(capturedFile)
	if err != nil {
		return nil, err
	}
	if e.bound, e.waypoints, err = openBound(filepath.Join(stateDir, boundName)); err != nil {
		return nil, err
	}
	if torn != nil {
		cfg.Log.Warn("captured set: a change that was being written when the control plane ended is left out; nobody was told of it", zap.String("file", capturedFile), zap.Error(torn))
	}
	e.captured, e.restored = captured, captured.pods
	return e, nil
}

// Objects takes a batch of the source.
func (e *engine) Objects(in compile.Input) {
	select {
	case e.inbox <- message{input: in, edit: true, at: time.Now()}:
	case <-e.stopped:
	}
}

// Report takes a node agent's report, and returns when it is distributed.
func (e *engine) Report(ctx context.Context, r compile.CaptureReport) error {
	return e.send(ctx, message{input: compile.Input{Reports: []compile.CaptureReport{r}}, done: make(chan struct{})})
}

// send hands a change in, and returns when it is distributed.
func (e *engine) send(ctx context.Context, m message) error {
	select {
	case e.inbox <- m:
	case <-e.stopped:
		return errStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-m.done:
		return nil
	case <-e.stopped:
		return errStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Run applies changes until ctx ends.
func (e *engine) Run(ctx context.Context) error {
	defer e.followers.Wait()
	defer close(e.stopped)
	var held *message // taken out of the inbox, for the next batch
	for {
		var m message
		if held != nil {
			m, held = *held, nil
		} else {
			select {
			case <-ctx.Done():
				return nil
			case m = <-e.inbox:
			}
		}
		batch := []message{m}
		if !m.edit {
			batch, held = e.merge(batch)
		}
		if err := e.apply(ctx, batch); err != nil {
			return nil // ctx has ended
		}
	}
}

// merge adds what waits already and is no edit.
func (e *engine) merge(batch []message) (merged []message, held *message) {
	for len(batch) < maxMerged {
		select {
		case m := <-e.inbox:
			if m.edit {
				return batch, &m
			}
			batch = append(batch, m)
		default:
			return batch, nil
		}
	}
	return batch, nil
}

// apply compiles a batch, makes the captured set durable, and distributes.
func (e *engine) apply(ctx context.Context, batch []message) error {
	in := batch[0].input
	for _, m := range batch[1:] {
		in.Reports = append(in.Reports, m.input.Reports...)
		in.Released = append(in.Released, m.input.Released...)
	}
	in.Restored, e.restored = e.restored, nil
	in.RestoredWaypoints, e.waypoints = e.waypoints, nil
	begin := time.Now()
	result := e.compiler.Apply(in)
	e.metrics.compile.Observe(time.Since(begin).Seconds())
	for _, f := range result.NewFindings {
		e.log.Warn("object is not used as it stands", zap.String("origin", f.Origin), zap.Stringer("object", f.Object), zap.String("field", f.Field), zap.String("detail", f.Message))
	}
	if result.CapturedChanged && e.captured != nil {
		if err := e.persist(ctx, "captured set", func() error { return e.captured.save(e.compiler.Captured()) }); err != nil {
			return err
		}
	}
	if result.BoundChanged && e.bound != nil {
		if err := e.persist(ctx, "set of bound waypoints", func() error { return e.bound.save(e.compiler.BoundWaypoints()) }); err != nil {
			return err
		}
	}
	version, err := e.clients.Apply(result.Delta)
	if err != nil {
		e.log.Error("some resources keep their former state", zap.Error(err))
	}
	e.sync()
	e.note()
	for _, m := range batch {
		if m.done != nil {
			close(m.done)
		}
	}
	if e.touched != nil && len(result.Touched) > 0 {
		e.touched(result.Touched)
	}
	if len(result.Releasing) > 0 {
		e.followers.Go(func() { e.release(ctx, version, result.Releasing) })
	}
	if batch[0].edit {
		e.measure(ctx, batch[0].at, version, result.Delta)
	}
	return nil
}

// note says that a batch is distributed.
func (e *engine) note() {
	company := e.company != nil && e.company()
	e.mu.Lock()
	defer e.mu.Unlock()
	if company {
		e.accompanied = time.Now()
	}
	close(e.applied)
	e.applied = make(chan struct{})
}

// Await returns when a condition holds of the mesh and what it holds of is
// distributed.
func (e *engine) Await(ctx context.Context, holds func() bool) error {
	for {
		e.mu.Lock()
		applied := e.applied
		e.mu.Unlock()
		if holds() {
			// The batch that brought it may be compiled and not distributed yet.
			return e.send(ctx, message{done: make(chan struct{})})
		}
		select {
		case <-applied:
		case <-e.stopped:
			return errStopped
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// sync says that there is something to serve. The first batch is the first
// complete state, because until it nobody can report.
func (e *engine) sync() {
	select {
	case <-e.synced:
	default:
		e.started = time.Now()
		close(e.synced)
	}
}

// persist writes what is to be remembered, and tries until it can: were a capture
// distributed that a successor does not know of, the successor would have peers
// fall back to plaintext; with a waypoint, it would have them go around it.
func (e *engine) persist(ctx context.Context, what string, save func() error) error {
	for {
		err := save()
		if err == nil {
			return nil
		}
		e.metrics.persistence.Inc()
		e.log.Error(what+" not written; changes are held back until it is", zap.Duration("retryIn", persistRetry), zap.Error(err))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(persistRetry):
		}
	}
}
