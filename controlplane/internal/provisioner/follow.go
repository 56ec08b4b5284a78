package provisioner

import (
	"context"
	"fmt"
	"reflect"
	"sync"

	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

// follow listens to what becomes of the objects that were made, until ctx ends.
func (p *Provisioner) follow(ctx context.Context, running *sync.WaitGroup) error {
	if p.cfg.Cache == nil {
		return nil
	}
	c, err := p.cfg.Cache()
	if err != nil {
		return fmt.Errorf("follow what is made for waypoints: %w", err)
	}
	for _, kind := range kinds() {
		obj := &metav1.PartialObjectMetadata{}
		obj.SetGroupVersionKind(kind)
		inf, err := c.GetInformer(ctx, obj, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("follow %s: %w", kind.Kind, err)
		}
		if _, err := inf.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
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
		}); err != nil {
			return fmt.Errorf("follow %s: %w", kind.Kind, err)
		}
	}
	running.Go(func() {
		if err := c.Start(ctx); err != nil && ctx.Err() == nil {
			p.cfg.Log.Error("what is made for waypoints is not followed any more", zap.Error(err))
		}
	})
	return nil
}

// edited says whether more than the status is another. Objects of some kinds have
// no generation, so that it cannot be told.
func edited(a, b *metav1.PartialObjectMetadata) bool {
	return b.Generation == 0 && a.ResourceVersion != b.ResourceVersion || a.Generation != b.Generation || a.UID != b.UID ||
		!reflect.DeepEqual(a.Labels, b.Labels) || !reflect.DeepEqual(a.Annotations, b.Annotations) || !reflect.DeepEqual(a.OwnerReferences, b.OwnerReferences)
}
