package taint

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// Key of the taint, with the effect NoSchedule.
	Key = "ambit-mesh.io/agent-not-ready"
	// AnnotationReported is on nodes whose agent has reported.
	AnnotationReported = "ambit-mesh.io/agent-reported"

	fieldManager = "ambit-mesh.io/controlplane"
)

// Keeper sets and removes the taint.
type Keeper struct {
	client    client.Client
	namespace string
	log       *zap.Logger
	reported  inbox
	seen      inbox
}

// inbox holds names until somebody takes them.
type inbox struct {
	wake chan struct{} // capacity 1

	mu    sync.Mutex
	names map[string]struct{} // guarded by mu
}

func (b *inbox) add(name string) {
	b.mu.Lock()
	b.names[name] = struct{}{}
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default: // It has a wake-up that it has not yet seen, which serves as well.
	}
}

func (b *inbox) take() map[string]struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.names
	b.names = make(map[string]struct{})
	return out
}

// New gives a keeper. The mesh is as old as its root namespace.
func New(c client.Client, rootNamespace string, log *zap.Logger) *Keeper {
	in := func() inbox { return inbox{wake: make(chan struct{}, 1), names: make(map[string]struct{})} }
	return &Keeper{client: c, namespace: rootNamespace, log: log, reported: in(), seen: in()}
}

// Reported says that a node's agent has reported what it has captured.
func (k *Keeper) Reported(node string) { k.reported.add(node) }

// Seen says that a node is there. Only while Watch runs is something done about it.
func (k *Keeper) Seen(node string) { k.seen.add(node) }

// Run removes taints until ctx ends. Every replica runs it, once.
func (k *Keeper) Run(ctx context.Context) error {
	return k.run(ctx, &k.reported, nil, func(n *corev1.Node) bool {
		before := len(n.Spec.Taints)
		n.Spec.Taints = slices.DeleteFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == Key })
		if before == len(n.Spec.Taints) && n.Annotations[AnnotationReported] != "" {
			return false
		}
		if n.Annotations == nil {
			n.Annotations = make(map[string]string)
		}
		n.Annotations[AnnotationReported] = "true"
		return true
	})
}

// Watcher gives what taints fresh nodes: a part of the leader's, made for each
// of its terms.
func (k *Keeper) Watcher() *Watcher { return &Watcher{k} }

// Watcher taints fresh nodes.
type Watcher struct{ keeper *Keeper }

// Run taints until ctx ends, beginning with all nodes that there are.
func (w *Watcher) Run(ctx context.Context) error {
	k := w.keeper
	var mesh corev1.Namespace
	var nodes corev1.NodeList
	for {
		err := k.client.Get(ctx, types.NamespacedName{Name: k.namespace}, &mesh)
		if err == nil {
			err = k.client.List(ctx, &nodes)
		}
		if err == nil {
			break
		}
		k.log.Warn("fresh nodes cannot be told yet", zap.Error(err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(5 * time.Second):
		}
	}
	return k.run(ctx, &k.seen, nodes.Items, func(n *corev1.Node) bool { return fresh(n, &mesh) && add(n) })
}

// fresh says whether a node is younger than the mesh and was never in it.
func fresh(n *corev1.Node, mesh *corev1.Namespace) bool {
	return n.Annotations[AnnotationReported] == "" && mesh.CreationTimestamp.Before(&n.CreationTimestamp)
}

func add(n *corev1.Node) bool {
	if slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == Key }) {
		return false
	}
	n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: Key, Effect: corev1.TaintEffectNoSchedule})
	return true
}

// run changes nodes, those that there are and those that come in, each on what it
// is when it is read.
func (k *Keeper) run(ctx context.Context, in *inbox, there []corev1.Node, change func(*corev1.Node) bool) error {
	q := workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, time.Minute))
	for i := range there {
		q.Add(there[i].Name)
	}
	var fed sync.WaitGroup
	defer fed.Wait()
	fed.Go(func() {
		defer q.ShutDown()
		for {
			select {
			case <-ctx.Done():
				return
			case <-in.wake:
				for name := range in.take() {
					q.Add(name)
				}
			}
		}
	})
	for {
		name, down := q.Get()
		if down {
			return nil
		}
		if err := k.change(ctx, name, change); err != nil && ctx.Err() == nil {
			if !apierrors.IsConflict(err) {
				k.log.Warn("taint of node not changed; it is tried again", zap.String("node", name), zap.Error(err))
			}
			q.AddRateLimited(name)
		} else {
			q.Forget(name)
		}
		q.Done(name)
	}
}

func (k *Keeper) change(ctx context.Context, name string, change func(*corev1.Node) bool) error {
	var n corev1.Node
	if err := k.client.Get(ctx, types.NamespacedName{Name: name}, &n); err != nil {
		return client.IgnoreNotFound(err)
	}
	before := n.DeepCopy()
	if !change(&n) {
		return nil
	}
	// A list of taints is replaced as a whole, so nobody else may have changed it.
	return client.IgnoreNotFound(k.client.Patch(ctx, &n, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), client.FieldOwner(fieldManager)))
}
