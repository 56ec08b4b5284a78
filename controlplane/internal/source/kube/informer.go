package kube

import (
	"context"
	"fmt"
	"net/http"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/ambit-mesh/ambit/apis/gatewayx"
	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
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
	scheme, err := schemeOf(gvk, obj)
	if err != nil {
		return nil, fmt.Errorf("follow %s: %w", gvk.Kind, err)
	}
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

// schemeOf gives a scheme in which a type, and the list of it, is of that version
// and no other.
func schemeOf(gvk schema.GroupVersionKind, obj client.Object) (*runtime.Scheme, error) {
	known := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, discoveryv1.AddToScheme, apiextensionsv1.AddToScheme,
		gatewayv1.Install, gatewayxv1alpha1.Install, gatewayx.AddToScheme, meshv1alpha1.AddToScheme,
	} {
		if err := add(known); err != nil {
			return nil, err
		}
	}
	kinds, _, err := known.ObjectKinds(obj)
	if err != nil {
		return nil, err
	}
	list, err := known.New(kinds[0].GroupVersion().WithKind(kinds[0].Kind + "List"))
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	scheme.AddKnownTypeWithName(gvk, obj)
	scheme.AddKnownTypeWithName(gvk.GroupVersion().WithKind(gvk.Kind+"List"), list)
	metav1.AddToGroupVersion(scheme, gvk.GroupVersion())
	return scheme, nil
}

func (i *informer) stop() {
	i.cancel()
	<-i.done
}
