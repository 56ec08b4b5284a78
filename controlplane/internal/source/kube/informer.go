package kube

import (
	"context"
	"fmt"
	"net/http"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// api is what informers are made of.
type api struct {
	rest    *rest.Config
	http    *http.Client
	mapper  meta.RESTMapper
	log     *zap.Logger
	metrics *metrics
}

// informer follows one kind in one version.
type informer struct {
	gvk    schema.GroupVersionKind
	cancel context.CancelFunc
	done   chan struct{} // closed when all its goroutines have ended
	// synced is closed when the handler has been given all that there was.
	synced <-chan struct{}
}

// start begins to follow a kind. Each has a cache and a scheme of its own, so
// that it can end alone and be read in the version that is served.
func (a *api) start(ctx context.Context, gvk schema.GroupVersionKind, obj client.Object, transform toolscache.TransformFunc, h toolscache.ResourceEventHandler) (*informer, error) {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypeWithName(gvk, obj)
	metav1.AddToGroupVersion(scheme, gvk.GroupVersion())
	log := a.log.With(zap.Stringer("kind", gvk.GroupKind()), zap.String("version", gvk.Version))
	c, err := cache.New(a.rest, cache.Options{
		HTTPClient: a.http, Scheme: scheme, Mapper: a.mapper,
		DefaultTransform: transform,
		DefaultWatchErrorHandler: func(ctx context.Context, r *toolscache.Reflector, err error) {
			if ctx.Err() != nil {
				return
			}
			a.metrics.watchErrors.WithLabelValues(gvk.Kind).Inc()
			log.Warn("watch ended with an error; it is begun again, and what is known goes on", zap.Error(err))
		},
	})
	if err != nil {
		return nil, fmt.Errorf("follow %s: %w", gvk.Kind, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	inf, err := c.GetInformer(ctx, obj, cache.BlockUntilSynced(false))
	if err != nil {
		cancel()
		return nil, fmt.Errorf("follow %s: %w", gvk.Kind, err)
	}
	reg, err := inf.AddEventHandler(h)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("follow %s: %w", gvk.Kind, err)
	}
	i := &informer{gvk: gvk, cancel: cancel, done: make(chan struct{}), synced: reg.HasSyncedChecker().Done()}
	go func() {
		defer close(i.done)
		if err := c.Start(ctx); err != nil {
			log.Error("informer ended", zap.Error(err))
		}
	}()
	return i, nil
}

func (i *informer) stop() {
	i.cancel()
	<-i.done
}
