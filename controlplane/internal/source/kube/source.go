package kube

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/internal/lifecycle"
)

const (
	// settle is how long changes gather before they are delivered: what belongs
	// together, such as a rollout's pods and slices, comes within that.
	settle = 10 * time.Millisecond
	// retryStart is the pause after an informer could not be started.
	retryStart = 2 * time.Second
)

// Sink takes what the source delivers, one call at a time.
type Sink interface {
	// Objects takes a batch of changes. The first call is the complete state.
	Objects(compile.Input)
}

// Config is what a Source is made of.
type Config struct {
	REST  *rest.Config
	Sink  Sink
	Ready *lifecycle.Readiness // names the kinds that are not read yet
	// Touched is called when an object was written by anybody, whether or not the
	// mesh reads what was changed. May be nil.
	Touched func(k graph.Key, resourceVersion string)
	Log     *zap.Logger
	Metrics prometheus.Registerer
}

// Source follows the Kubernetes API.
type Source struct {
	cfg         Config
	api         *api
	definitions *definitions
	changes     *changes
	wake        chan struct{} // capacity 1

	// Of Run's goroutine:
	following map[schema.GroupKind]*followed
}

// followed is a kind that is followed and what it waits for.
type followed struct {
	*informer
	feed *feed
	task *lifecycle.Task
}

// New prepares a source. It asks the API server for nothing yet.
func New(cfg Config) (*Source, error) {
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: metrics: %w", err)
	}
	http, err := rest.HTTPClientFor(cfg.REST)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	mapper, err := apiutil.NewDynamicRESTMapper(cfg.REST, http)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	s := &Source{
		cfg: cfg, api: &api{rest: cfg.REST, http: http, mapper: mapper, log: cfg.Log, metrics: m},
		wake: make(chan struct{}, 1), following: make(map[schema.GroupKind]*followed),
	}
	s.changes = &changes{pending: make(map[graph.Key]graph.Object), wake: s.poke, objects: m.objects}
	s.definitions = &definitions{served: make(map[string]definition), changed: s.poke}
	return s, nil
}

func (s *Source) poke() {
	select {
	case s.wake <- struct{}{}:
	default: // It has a wake-up that it has not yet seen, which serves as well.
	}
}

// Run delivers until ctx ends.
func (s *Source) Run(ctx context.Context) error {
	defer s.stopAll()
	task := s.cfg.Ready.Task("kubernetes: CustomResourceDefinitions")
	definitions, err := s.startDefinitions(ctx)
	if err != nil {
		return nil // ctx has ended
	}
	defer definitions.stop()
	// Kinds that need no definition begin at once.
	s.follow(ctx)
	select {
	case <-definitions.synced:
		task.Done()
	case <-ctx.Done():
		return nil
	}
	if err := s.followUntilSynced(ctx); err != nil {
		return nil // ctx has ended
	}
	s.cfg.Sink.Objects(s.changes.take())
	return s.deliver(ctx)
}

func (s *Source) startDefinitions(ctx context.Context) (*informer, error) {
	for {
		i, err := s.api.start(ctx, definitionKind, &apiextensionsv1.CustomResourceDefinition{}, trimDefinition, s.definitions.handler())
		if err == nil {
			return i, nil
		}
		s.cfg.Log.Warn("the Kubernetes API cannot be read yet", zap.Duration("retryIn", retryStart), zap.Error(err))
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(retryStart):
		}
	}
}

// followUntilSynced follows all that is installed until all of it has been read.
func (s *Source) followUntilSynced(ctx context.Context) error {
	for {
		again := s.follow(ctx)
		if s.allSynced() && !again {
			return nil
		}
		select {
		case <-s.wake: // a kind has been read, or the kinds are others now
		case <-after(again):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// after gives when to try again, never if that is not needed.
func after(again bool) <-chan time.Time {
	if !again {
		return nil
	}
	return time.After(retryStart)
}

// allSynced says whether all has been read, and settles the tasks of what has.
func (s *Source) allSynced() bool {
	all := true
	for _, f := range s.following {
		select {
		case <-f.synced:
			f.task.Done()
		default:
			all = false
		}
	}
	return all
}

// deliver hands on changes as they come.
func (s *Source) deliver(ctx context.Context) error {
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-retry:
		}
		retry = after(s.follow(ctx))
		s.allSynced()
		gather := time.NewTimer(settle)
		select {
		case <-gather.C:
		case <-ctx.Done():
			gather.Stop()
			return nil
		}
		if in := s.changes.take(); len(in.Upserts)+len(in.Deletes) > 0 {
			s.api.metrics.batches.Inc()
			s.cfg.Sink.Objects(in)
		}
	}
}

// follow starts and ends informers as definitions come and go. It reports whether
// some could not be started and are to be tried again.
func (s *Source) follow(ctx context.Context) (again bool) {
	for _, k := range kinds() {
		version := s.definitions.version(k)
		have := s.following[k.GroupKind]
		if have != nil && have.gvk.Version != version {
			s.unfollow(k.GroupKind)
			have = nil
		}
		if have != nil || version == "" {
			continue
		}
		f := &followed{feed: &feed{kind: k, changes: s.changes, touched: s.cfg.Touched, keys: make(map[graph.Key]struct{})}}
		i, err := s.api.start(ctx, k.WithVersion(version), k.make(), trim, f.feed)
		if err != nil {
			s.cfg.Log.Warn("kind cannot be read yet", zap.Stringer("kind", k.GroupKind), zap.Duration("retryIn", retryStart), zap.Error(err))
			again = true
			continue
		}
		f.informer, f.task = i, s.cfg.Ready.Task("kubernetes: "+k.Kind)
		s.following[k.GroupKind] = f
		go func() {
			select {
			case <-i.synced:
				s.poke()
			case <-i.done:
			}
		}()
		s.cfg.Log.Info("following", zap.Stringer("kind", k.GroupKind), zap.String("version", version))
	}
	return again
}

// unfollow lets a kind go, with all its objects.
func (s *Source) unfollow(k schema.GroupKind) {
	f := s.following[k]
	delete(s.following, k)
	f.stop()
	f.task.Done()
	f.feed.drop()
	s.cfg.Log.Info("definition gone: its objects are let go", zap.Stringer("kind", k))
}

func (s *Source) stopAll() {
	for _, f := range s.following {
		f.cancel()
	}
	for _, f := range s.following {
		<-f.done
		f.task.Done()
	}
	s.api.http.CloseIdleConnections()
}

// changes are what has not been delivered, each object once.
type changes struct {
	wake    func()
	objects *prometheus.GaugeVec

	mu      sync.Mutex
	pending map[graph.Key]graph.Object // guarded by mu; nil is gone
}

func (c *changes) take() compile.Input {
	c.mu.Lock()
	pending := c.pending
	c.pending = make(map[graph.Key]graph.Object)
	c.mu.Unlock()
	var in compile.Input
	for k, obj := range pending {
		if obj == nil {
			in.Deletes = append(in.Deletes, k)
		} else {
			in.Upserts = append(in.Upserts, graph.Entry{Object: obj})
		}
	}
	return in
}

// feed takes the events of one kind's informer.
type feed struct {
	kind    kind
	changes *changes
	touched func(k graph.Key, resourceVersion string)

	// keys are the objects that there are; nil once they are let go. Guarded by
	// changes.mu.
	keys map[graph.Key]struct{}
}

func (f *feed) OnAdd(v any, _ bool) {
	f.touch(v)
	f.set(v)
}

// touch tells that an object was written.
func (f *feed) touch(v any) {
	if obj, ok := v.(graph.Object); ok && f.touched != nil {
		f.touched(graph.Key{Group: f.kind.Group, Kind: f.kind.Kind, Namespace: obj.GetNamespace(), Name: obj.GetName()}, obj.GetResourceVersion())
	}
}

func (f *feed) OnUpdate(before, now any) {
	f.touch(now)
	a, ok := before.(graph.Object)
	b, is := now.(graph.Object)
	if ok && is && same(a, b) {
		return
	}
	f.set(now)
}

func (f *feed) OnDelete(v any) {
	if last, ok := v.(toolscache.DeletedFinalStateUnknown); ok {
		v = last.Obj
	}
	if obj, ok := v.(graph.Object); ok {
		f.put(obj, nil)
	}
}

func (f *feed) set(v any) {
	if obj, ok := v.(graph.Object); ok {
		f.put(obj, obj)
	}
}

// put notes a change of an object; now is nil when it is gone.
func (f *feed) put(obj, now graph.Object) {
	key, ok := graph.KeyOf(obj)
	if !ok {
		return
	}
	f.changes.mu.Lock()
	defer f.changes.mu.Unlock()
	if f.keys == nil {
		return
	}
	if now == nil {
		delete(f.keys, key)
	} else {
		f.keys[key] = struct{}{}
	}
	f.changes.pending[key] = now
	f.changes.objects.WithLabelValues(f.kind.Kind).Set(float64(len(f.keys)))
	f.changes.wake()
}

// drop lets all objects go. What the informer may still say is not heard.
func (f *feed) drop() {
	f.changes.mu.Lock()
	defer f.changes.mu.Unlock()
	for k := range f.keys {
		f.changes.pending[k] = nil
	}
	f.keys = nil
	f.changes.objects.DeleteLabelValues(f.kind.Kind)
	f.changes.wake()
}

var _ toolscache.ResourceEventHandler = (*feed)(nil)
