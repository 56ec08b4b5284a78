package provisioner_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/internal/provisioner"
	"github.com/ambit-mesh/ambit/controlplane/provision"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source says which waypoints there are to be.
type source struct {
	mu        sync.Mutex
	waypoints map[types.NamespacedName]compile.Waypoint // guarded by mu
}

func (s *source) Waypoint(n types.NamespacedName) (compile.Waypoint, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := s.waypoints[n]
	return w, ok
}

func (s *source) Waypoints() []compile.Waypoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []compile.Waypoint
	for _, w := range s.waypoints {
		out = append(out, w)
	}
	return out
}

func (s *source) set(name string, gw *gatewayv1.Gateway) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := types.NamespacedName{Namespace: "shop", Name: name}
	if gw == nil {
		delete(s.waypoints, n)
		return
	}
	s.waypoints[n] = compile.Waypoint{Gateway: gw, Verdict: provision.Check(gw)}
}

func gateway(name string, annotations map[string]string) *gatewayv1.Gateway {
	return &gatewayv1.Gateway{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: "u", Annotations: annotations},
		Spec:       gatewayv1.GatewaySpec{GatewayClassName: "ambit-waypoint", Listeners: []gatewayv1.Listener{{Name: "mesh", Port: 15008, Protocol: "HBONE"}}},
	}
}

type world struct {
	client.Client
	*provisioner.Provisioner
	t      *testing.T
	source *source

	mu      sync.Mutex
	applied int   // guarded by mu
	failure error // guarded by mu; of the next writes
}

func start(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	w := &world{t: t, source: &source{waypoints: make(map[types.NamespacedName]compile.Waypoint)}}
	w.Client = fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(objects...).WithReturnManagedFields().
		WithInterceptorFuncs(interceptor.Funcs{Apply: func(ctx context.Context, c client.WithWatch, obj runtime.ApplyConfiguration, o ...client.ApplyOption) error {
			w.mu.Lock()
			w.applied++
			err := w.failure
			w.mu.Unlock()
			if err != nil {
				return err
			}
			return c.Apply(ctx, obj, o...)
		}}).Build()
	w.Provisioner = provisioner.New(provisioner.Config{
		Client: w.Client, Source: w.source, Log: zaptest.NewLogger(t),
		Options: provision.Options{Image: "ambit/waypoint:1", Cluster: &provision.Cluster{TokenAudience: "ambit-mesh.io", RootConfigMap: "ambit-root-cert"}},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

// put sets a waypoint until it is looked at.
func (w *world) put(name string, gw *gatewayv1.Gateway) {
	w.source.set(name, gw)
	w.Changed(types.NamespacedName{Namespace: "shop", Name: name})
}

func (w *world) has(name string, obj client.Object) bool {
	err := w.Get(w.t.Context(), client.ObjectKey{Namespace: "shop", Name: name}, obj)
	if client.IgnoreNotFound(err) != nil {
		w.t.Fatal(err)
	}
	return err == nil
}

func (w *world) writes() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.applied
}

func (w *world) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failure = err
}

// TestLife: what a waypoint consists of is made, changed with its Gateway, not
// written again for nothing, pruned in part and then as a whole.
func TestLife(t *testing.T) {
	w := start(t)
	ready := func(what string, cond func() bool) { t.Helper(); testkit.Until(t, what, cond) }
	w.put("wp", gateway("wp", map[string]string{provision.AnnotationReplicas: "2", provision.AnnotationMaxReplicas: "4"}))
	ready("made", func() bool {
		return w.has("wp", &corev1.ServiceAccount{}) && w.has("wp", &corev1.Service{}) && w.has("wp", &appsv1.Deployment{}) &&
			w.has("wp", &policyv1.PodDisruptionBudget{}) && w.has("wp", &autoscalingv2.HorizontalPodAutoscaler{})
	})
	w.put("wp", gateway("wp", nil))
	ready("fewer replicas need neither budget nor autoscaler", func() bool {
		return !w.has("wp", &policyv1.PodDisruptionBudget{}) && !w.has("wp", &autoscalingv2.HorizontalPodAutoscaler{})
	})
	// Nothing changes: the next one is made, and of this one nothing is written.
	before := w.writes()
	w.put("wp", gateway("wp", nil))
	w.put("next", gateway("next", nil))
	ready("the next", func() bool { return w.has("next", &appsv1.Deployment{}) })
	if n := w.writes() - before; n != 3 {
		t.Errorf("%d writes, want the 3 of the next waypoint", n)
	}
	// A slip of the pen in the Gateway costs no pods.
	slip := gateway("wp", nil)
	slip.Spec.Listeners = nil
	w.put("wp", slip)
	w.put("next", nil)
	ready("the next is gone", func() bool { return !w.has("next", &appsv1.Deployment{}) })
	if !w.has("wp", &appsv1.Deployment{}) {
		t.Error("a mistake in a Gateway has removed its pods")
	}
	w.put("wp", nil)
	ready("gone", func() bool {
		return !w.has("wp", &appsv1.Deployment{}) && !w.has("wp", &corev1.Service{}) && !w.has("wp", &corev1.ServiceAccount{})
	})
}

// TestSomebodysOwn: an object that is there and is not the mesh's is left, and named.
func TestSomebodysOwn(t *testing.T) {
	w := start(t, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "wp"}, Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "mine"}}})
	n := types.NamespacedName{Namespace: "shop", Name: "wp"}
	w.put("wp", gateway("wp", nil))
	testkit.Until(t, "refused", func() bool { return len(w.Refused(n)) == 1 })
	if got := w.Refused(n)[0].String(); !strings.Contains(got, "Service shop/wp") || !strings.Contains(got, "rename") {
		t.Error(got)
	}
	w.put("wp", nil)
	testkit.Until(t, "no more", func() bool { return len(w.Refused(n)) == 0 && !w.has("wp", &corev1.ServiceAccount{}) })
	var svc corev1.Service
	if !w.has("wp", &svc) || svc.Spec.Selector["app"] != "mine" {
		t.Errorf("somebody's Service is %+v", svc.Spec)
	}
}

// TestParameters: a ConfigMap that is missing or wrong is named, and one that is
// right is merged.
func TestParameters(t *testing.T) {
	w := start(t)
	n := types.NamespacedName{Namespace: "shop", Name: "wp"}
	gw := gateway("wp", nil)
	gw.Spec.Infrastructure = &gatewayv1.GatewayInfrastructure{ParametersRef: &gatewayv1.LocalParametersReference{Kind: "ConfigMap", Name: "sizes"}}
	w.put("wp", gw)
	refused := func(text string) {
		t.Helper()
		testkit.Until(t, text, func() bool {
			p := w.Refused(n)
			return len(p) == 1 && strings.Contains(p[0].String(), text)
		})
	}
	refused("there is no ConfigMap shop/sizes")
	params := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "sizes"}, Data: map[string]string{"deployment": "{spec: [}"}}
	if err := w.Create(t.Context(), params); err != nil {
		t.Fatal(err)
	}
	w.Changed(n)
	refused("data[deployment]")
	params.Data["deployment"] = "{spec: {minReadySeconds: 5}}"
	if err := w.Update(t.Context(), params); err != nil {
		t.Fatal(err)
	}
	w.Changed(n)
	var d appsv1.Deployment
	testkit.Until(t, "merged", func() bool { return w.has("wp", &d) && d.Spec.MinReadySeconds == 5 && len(w.Refused(n)) == 0 })
}

// TestAPIAway: what could not be written is tried again, with pauses.
func TestAPIAway(t *testing.T) {
	w := start(t)
	w.fail(apierrors.NewInternalError(errors.New("etcd is away")))
	w.put("wp", gateway("wp", nil))
	testkit.Until(t, "tried", func() bool { return w.writes() > 1 })
	w.fail(nil)
	testkit.Until(t, "made", func() bool { return w.has("wp", &appsv1.Deployment{}) })
	if n := w.writes(); n > 20 {
		t.Errorf("%d writes: that is no pause", n)
	}
}

// TestLeftovers: what a former control plane made for a waypoint that is gone since
// is found at the start.
func TestLeftovers(t *testing.T) {
	left := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "old", Labels: map[string]string{
		provision.LabelManagedBy: provision.ManagedBy, "gateway.networking.k8s.io/gateway-name": "old",
	}}}
	own := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "mine", Labels: map[string]string{"gateway.networking.k8s.io/gateway-name": "old"}}}
	w := start(t, left, own)
	testkit.Until(t, "removed", func() bool { return !w.has("old", &corev1.ServiceAccount{}) })
	if !w.has("mine", &corev1.ServiceAccount{}) {
		t.Error("what is not the mesh's is gone, too")
	}
}
