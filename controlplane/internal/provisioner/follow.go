package provisioner

import (
	"context"
	"fmt"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

// follow listens to what becomes of the objects that were made.
func (p *Provisioner) follow(ctx context.Context) (unfollow func(), err error) {
	var undo []func()
	unfollow = func() {
		for _, f := range undo {
			f()
		}
	}
	if p.cfg.Cache == nil {
		return unfollow, nil
	}
	for _, kind := range kinds() {
		obj := &metav1.PartialObjectMetadata{}
		obj.SetGroupVersionKind(kind)
		inf, err := p.cfg.Cache.GetInformer(ctx, obj, cache.BlockUntilSynced(false))
		if err != nil {
			unfollow()
			return nil, fmt.Errorf("follow %s: %w", kind.Kind, err)
		}
		reg, err := inf.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			UpdateFunc: func(before, now any) {
				a, _ := before.(*metav1.PartialObjectMetadata)
				if b, ok := now.(*metav1.PartialObjectMetadata); ok && (a == nil || edited(a, b)) {
					p.disturbed(waypointOf(b))
				}
			},
			DeleteFunc: func(v any) {
				if last, ok := v.(toolscache.DeletedFinalStateUnknown); ok {
					v = last.Obj
				}
				if obj, ok := v.(*metav1.PartialObjectMetadata); ok {
					p.disturbed(waypointOf(obj))
				}
			},
		})
		if err != nil {
			unfollow()
			return nil, fmt.Errorf("follow %s: %w", kind.Kind, err)
		}
		undo = append(undo, func() { _ = inf.RemoveEventHandler(reg) }) // an informer that has ended has no handlers
	}
	return unfollow, nil
}

// edited says whether more than the status is another. Objects of some kinds have
// no generation, so that it cannot be told.
func edited(a, b *metav1.PartialObjectMetadata) bool {
	return b.Generation == 0 && a.ResourceVersion != b.ResourceVersion || a.Generation != b.Generation || a.UID != b.UID ||
		!reflect.DeepEqual(a.Labels, b.Labels) || !reflect.DeepEqual(a.Annotations, b.Annotations) || !reflect.DeepEqual(a.OwnerReferences, b.OwnerReferences)
}
