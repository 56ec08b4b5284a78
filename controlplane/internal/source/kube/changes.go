package kube

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

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
