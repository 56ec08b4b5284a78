package controlplane

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

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
	captured       *capturedJournal      // nil where pods have it as their condition
	restored       []compile.CapturedPod // for the first batch; then nil
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

	// Of a control plane on Kubernetes: shared is where releases are made known to
	// all replicas, and company says whether there are others. nil otherwise.
	shared  releaser
	company func() bool
	// touched is told which objects may have another status; may be nil.
	touched func([]graph.Key)

	mu       sync.Mutex
	problems []manifest.Problem // guarded by mu
	applied  chan struct{}      // guarded by mu; closed and replaced when a batch is distributed
	// accompanied is when there was another replica last. Guarded by mu.
	accompanied time.Time
}

// releaser makes releases known to all replicas.
type releaser interface {
	Release(ctx context.Context, releases []compile.Release)
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

func newEngine(c *compile.Compiler, d distributor, capturedFile string, cfg Config, m *metrics) (*engine, error) {
	e := &engine{
		compiler: c, clients: d, releaseTimeout: cfg.ReleaseTimeout,
		log: cfg.Log, metrics: m,
		inbox: make(chan message, 64), synced: make(chan struct{}), stopped: make(chan struct{}),
		measuring: make(chan struct{}, maxMeasured), applied: make(chan struct{}),
	}
	if capturedFile == "" {
		return e, nil
	}
	captured, torn, err := openCaptured(capturedFile)
	if err != nil {
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
	begin := time.Now()
	result := e.compiler.Apply(in)
	e.metrics.compile.Observe(time.Since(begin).Seconds())
	for _, f := range result.NewFindings {
		e.log.Warn("object is not used as it stands", zap.String("origin", f.Origin), zap.Stringer("object", f.Object), zap.String("field", f.Field), zap.String("detail", f.Message))
	}
	if result.CapturedChanged && e.captured != nil {
		if err := e.persist(ctx); err != nil {
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

// persist writes the captured set, and tries until it can: were a capture
// distributed that a successor does not know of, the successor would have peers
// fall back to plaintext.
func (e *engine) persist(ctx context.Context) error {
	for {
		err := e.captured.save(e.compiler.Captured())
		if err == nil {
			return nil
		}
		e.metrics.persistence.Inc()
		e.log.Error("captured set not written; changes are held back until it is", zap.Duration("retryIn", persistRetry), zap.Error(err))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(persistRetry):
		}
	}
}

// release confirms releases when every ztunnel knows that there is no tunnel to
// the pods any more, or has had its time to know: one that is disconnected just now
// is waited for, too. Just after the start it first gives the ztunnels time to connect.
func (e *engine) release(ctx context.Context, version uint64, releases []compile.Release) {
	grace := time.NewTimer(time.Until(e.started.Add(e.releaseTimeout)))
	defer grace.Stop()
	select {
	case <-grace.C:
	case <-ctx.Done():
		return
	}
	bounded, cancel := context.WithTimeout(ctx, e.releaseTimeout)
	defer cancel()
	behind, err := e.clients.KnownTo(bounded, compile.TypeAddress, version)
	outcome := "acknowledged"
	if err != nil {
		outcome = "timeout"
		e.log.Warn("pods are released though some nodes have not acknowledged it; their connections to these pods may fail", zap.Strings("nodes", behind), zap.Int("pods", len(releases)))
	}
	e.metrics.releases.WithLabelValues(outcome).Add(float64(len(releases)))
	if e.shared != nil {
		if e.accompaniedLately() {
			// Clients of other replicas have the same time, because what those
			// know of them they tell nobody.
			<-bounded.Done()
		}
		e.shared.Release(ctx, releases)
		return
	}
	select {
	case e.inbox <- message{input: compile.Input{Released: releases}}:
	case <-ctx.Done():
	}
}

// accompaniedLately says whether clients may be connected to another replica, or
// were until so lately that they need not have come here yet.
func (e *engine) accompaniedLately() bool {
	if e.company != nil && e.company() {
		return true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return time.Since(e.accompanied) < e.releaseTimeout
}

// measure times a change to its last acknowledgement, unless so many are under
// way that nothing would be learned.
func (e *engine) measure(ctx context.Context, since time.Time, version uint64, d compile.Delta) {
	types := make(map[string]struct{})
	for _, r := range d.Updated {
		types[r.Type] = struct{}{}
	}
	for _, k := range d.Removed {
		types[k.Type] = struct{}{}
	}
	if len(types) == 0 || e.clients.Connected() == 0 {
		return
	}
	select {
	case e.measuring <- struct{}{}:
	default:
		return
	}
	e.followers.Go(func() {
		defer func() { <-e.measuring }()
		bounded, cancel := context.WithTimeout(ctx, measureFor)
		defer cancel()
		for t := range types {
			if _, err := e.clients.AckedBy(bounded, t, version); err != nil {
				return
			}
		}
		e.metrics.editToAck.Observe(time.Since(since).Seconds())
	})
}
