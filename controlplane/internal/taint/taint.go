package taint

import (
	"context"
	"slices"
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
	reported  queue
	seen      queue
}

type queue = workqueue.TypedRateLimitingInterface[string]

// New gives a keeper. The mesh is as old as its root namespace.
func New(c client.Client, rootNamespace string, log *zap.Logger) *Keeper {
	q := func() queue {
		return workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, time.Minute))
	}
	return &Keeper{client: c, namespace: rootNamespace, log: log, reported: q(), seen: q()}
}

// Reported says that a node's agent has reported what it has captured.
func (k *Keeper) Reported(node string) { k.reported.Add(node) }

// Seen says that a node is there. Only while Watch runs is something done about it.
func (k *Keeper) Seen(node string) { k.seen.Add(node) }

// Run removes taints until ctx ends. Every replica runs it, once.
func (k *Keeper) Run(ctx context.Context) error {
	return k.run(ctx, k.reported, func(n *corev1.Node) bool {
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
	q := workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, time.Minute))
	for i := range nodes.Items {
		q.Add(nodes.Items[i].Name)
	}
	// What is seen goes through a queue of this term's own, which can be shut.
	forward := make(chan struct{})
	go func() {
		defer close(forward)
		for ctx.Err() == nil {
			node, down := k.seen.Get()
			if down {
				return
			}
			k.seen.Done(node)
			if ctx.Err() != nil {
				k.seen.Add(node)
				return
			}
			q.Add(node)
		}
	}()
	stop := context.AfterFunc(ctx, func() { k.seen.Add("") }) // wakes the forwarder
	defer stop()
	err := k.run(ctx, q, func(n *corev1.Node) bool { return fresh(n, &mesh) && add(n) })
	<-forward
	return err
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

// run changes the nodes of a queue, each on what it is when it is read.
func (k *Keeper) run(ctx context.Context, q queue, change func(*corev1.Node) bool) error {
	stop := context.AfterFunc(ctx, q.ShutDown)
	defer stop()
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
	if name == "" {
		return nil
	}
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
