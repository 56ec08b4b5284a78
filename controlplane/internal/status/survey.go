package status

import (
	"context"
	"time"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// survey queues what is not as it should be, at the start and then now and then,
// in case something was not heard of.
func (w *Writer) survey(ctx context.Context) {
	for {
		for _, kind := range w.cfg.Kinds {
			if err := w.look(ctx, kind); err != nil && ctx.Err() == nil {
				w.cfg.Log.Warn("statuses of a kind could not be looked at", zap.Stringer("kind", kind), zap.Error(err))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(w.cfg.Resync):
		}
	}
}

// page is how many objects are listed at once.
const page = 500

func (w *Writer) look(ctx context.Context, kind schema.GroupKind) error {
	mapping, err := w.cfg.Client.RESTMapper().RESTMapping(kind)
	if meta.IsNoMatchError(err) {
		return nil
	}
	if err != nil {
		return err
	}
	list := &unstructured.UnstructuredList{}
	for {
		next := list.GetContinue()
		list = &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(mapping.GroupVersionKind)
		if err := w.cfg.Client.List(ctx, list, client.Limit(page), client.Continue(next)); err != nil {
			return err
		}
		for i := range list.Items {
			w.consider(kind, &list.Items[i])
		}
		if list.GetContinue() == "" {
			return nil
		}
	}
}

// consider queues an object whose status is not as it should be.
func (w *Writer) consider(kind schema.GroupKind, obj *unstructured.Unstructured) {
	k := graph.Key{Group: kind.Group, Kind: kind.Kind, Namespace: obj.GetNamespace(), Name: obj.GetName()}
	wanted, ours := w.cfg.Source.Wanted(k, obj)
	if !ours {
		return
	}
	status, _, _ := unstructured.NestedMap(obj.Object, "status") // a copy
	if status == nil {
		status = make(map[string]any)
	}
	changed, _, err := Merge(status, wanted, w.cfg.Now())
	if err == nil && !changed {
		w.remember(k, wanted, obj.GetResourceVersion(), time.Time{})
		return
	}
	w.forget(k)
	w.Changed(k)
}
