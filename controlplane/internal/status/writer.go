package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// FieldManager is by whom the mesh's fields are owned.
const FieldManager = "ambit-mesh.io/controlplane"

// workers is how many objects are read and written at once.
const workers = 4

// Source tells what statuses should say.
type Source interface {
	// Wanted gives what is wanted in the status of an object, as it is read. It is
	// asked for every kind in Kinds; false is for an object that is not the
	// mesh's business.
	Wanted(k graph.Key, obj *unstructured.Unstructured) (Wanted, bool)
	// Glance gives the same as far as it can be told without reading the object;
	// false if it cannot.
	Glance(k graph.Key) (Wanted, bool)
}

// Config is what a Writer is made of.
type Config struct {
	// Client reads and writes past any cache, unstructured objects in the form of
	// the API server.
	Client client.Client
	Source Source
	// Kinds have a status of the mesh's. One that is not installed is passed over.
	Kinds []schema.GroupKind
	// Events tells people of conditions that change.
	Events Recorder
	// Rate is how many writes a second there are at most, in bursts of Burst; 20
	// and 100. Interval is the least time between two writes of an object; 500 ms.
	Rate     float64
	Burst    int
	Interval time.Duration
	// Resync is how often all objects are looked at, whatever was heard; 15 min.
	Resync time.Duration
	// Now is the clock; time.Now when nil.
	Now     func() time.Time
	Log     *zap.Logger
	Metrics prometheus.Registerer
}

// Writer writes statuses.
type Writer struct {
	cfg     Config
	metrics *metrics
	limit   *rate.Limiter

	mu sync.Mutex
	// queue is there while Run is; guarded by mu.
	queue queue
	// known is what each object had when it was as it should be; guarded by mu.
	known map[graph.Key]known
}

type queue = workqueue.TypedRateLimitingInterface[graph.Key]

// known is a status that is as it should be.
type known struct {
	wanted  Wanted
	version string // resourceVersion
	at      time.Time
}

// New gives a writer that has nothing to do yet.
func New(cfg Config) (*Writer, error) {
	orDefault(&cfg.Rate, 20)
	orDefault(&cfg.Burst, 100)
	orDefault(&cfg.Interval, 500*time.Millisecond)
	orDefault(&cfg.Resync, 15*time.Minute)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("status: metrics: %w", err)
	}
	return &Writer{cfg: cfg, metrics: m, limit: rate.NewLimiter(rate.Limit(cfg.Rate), cfg.Burst)}, nil
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Changed says that what is wanted of objects may be another.
func (w *Writer) Changed(keys ...graph.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.queue == nil {
		return // Run begins with everything
	}
	for _, k := range keys {
		w.queue.Add(k)
	}
}

// Touched says that somebody has written an object, maybe this writer itself.
func (w *Writer) Touched(k graph.Key, resourceVersion string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	have, ok := w.known[k]
	if w.queue == nil || ok && have.version == resourceVersion {
		return
	}
	if ok {
		// What it has now is not known.
		have.version = ""
		w.known[k] = have
	}
	w.queue.Add(k)
}

// Run writes until ctx ends. It begins with a look at all objects.
func (w *Writer) Run(ctx context.Context) error {
	q := workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[graph.Key](50*time.Millisecond, time.Minute),
		workqueue.TypedRateLimitingQueueConfig[graph.Key]{Name: "status"})
	w.mu.Lock()
	w.queue, w.known = q, make(map[graph.Key]known)
	w.mu.Unlock()
	stop := context.AfterFunc(ctx, q.ShutDown)
	defer stop()
	var running sync.WaitGroup
	for range workers {
		running.Go(func() { w.work(ctx, q) })
	}
	running.Go(func() { w.survey(ctx) })
	running.Wait()
	q.ShutDown()
	w.mu.Lock()
	w.queue, w.known = nil, nil
	w.mu.Unlock()
	return nil
}

func (w *Writer) work(ctx context.Context, q queue) {
	for {
		k, down := q.Get()
		if down {
			return
		}
		again, err := w.process(ctx, k)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			w.metrics.failures.WithLabelValues(k.Kind).Inc()
			w.cfg.Log.Warn("status not written; it is tried again", zap.Stringer("object", k), zap.Error(err))
			q.AddRateLimited(k)
		case again > 0:
			q.AddAfter(k, again)
		default:
			q.Forget(k)
		}
		q.Done(k)
	}
}

// process brings one object's status to what is wanted. It gives when to come
// back, if it is too early.
func (w *Writer) process(ctx context.Context, k graph.Key) (again time.Duration, err error) {
	w.mu.Lock()
	have, ok := w.known[k]
	w.mu.Unlock()
	if ok && have.version != "" {
		if wanted, told := w.cfg.Source.Glance(k); told && same(wanted, have.wanted) {
			return 0, nil
		}
	}
	if wait := w.cfg.Interval - w.cfg.Now().Sub(have.at); ok && !have.at.IsZero() && wait > 0 {
		return wait, nil
	}
	for attempt := 0; ; attempt++ {
		err := w.write(ctx, k)
		if !apierrors.IsConflict(err) {
			return 0, err
		}
		w.metrics.conflicts.Inc()
		if attempt == maxConflicts {
			return 0, err
		}
	}
}

// maxConflicts is how often a write is done again at once, on what is there then.
const maxConflicts = 5

// write reads an object and writes its status, if that is not as it should be.
func (w *Writer) write(ctx context.Context, k graph.Key) error {
	obj, err := w.read(ctx, k)
	if err != nil || obj == nil {
		w.forget(k)
		return err
	}
	wanted, ours := w.cfg.Source.Wanted(k, obj)
	if !ours {
		w.forget(k)
		return nil
	}
	// Whoever reads it sees the object as it is read, and not half changed.
	next := obj.DeepCopy()
	status, _, _ := unstructured.NestedMap(next.Object, "status")
	if status == nil {
		status = make(map[string]any)
	}
	changed, transitions, err := Merge(status, wanted, w.cfg.Now())
	if err != nil {
		return fmt.Errorf("status of %s: %w", k, err)
	}
	if !changed {
		w.remember(k, wanted, obj.GetResourceVersion(), time.Time{})
		return nil
	}
	next.Object["status"] = status
	if err := w.limit.Wait(ctx); err != nil {
		return err
	}
	w.metrics.writes.WithLabelValues(k.Kind).Inc()
	if err := w.cfg.Client.Status().Update(ctx, next, client.FieldOwner(FieldManager)); err != nil {
		if apierrors.IsNotFound(err) {
			w.forget(k)
			return nil
		}
		return err
	}
	w.remember(k, wanted, next.GetResourceVersion(), w.cfg.Now())
	w.tell(obj, transitions)
	return nil
}

// read gives the object, nil if it or its kind is not there.
func (w *Writer) read(ctx context.Context, k graph.Key) (*unstructured.Unstructured, error) {
	mapping, err := w.cfg.Client.RESTMapper().RESTMapping(schema.GroupKind{Group: k.Group, Kind: k.Kind})
	if meta.IsNoMatchError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	obj := &unstructured.Unstructured{}
	obj.SetGroupVersionKind(mapping.GroupVersionKind)
	if err := w.cfg.Client.Get(ctx, k.NamespacedName(), obj); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return obj, nil
}

func (w *Writer) forget(k graph.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.known, k)
}

func (w *Writer) remember(k graph.Key, wanted Wanted, version string, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.known == nil {
		return
	}
	if at.IsZero() {
		at = w.known[k].at
	}
	w.known[k] = known{wanted, version, at}
}

// same compares what is wanted; times are not part of it.
func same(a, b Wanted) bool {
	if reflect.DeepEqual(a, b) {
		return true
	}
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return errors.Join(err1, err2) == nil && string(x) == string(y)
}
