package status_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/controlplane/internal/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const routeYAML = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop, generation: 3}
spec: {parentRefs: [{group: "", kind: Service, name: a}]}
status:
  parents:
  - controllerName: example.com/other
    unknownField: {kept: [1, 2]}
    parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: edge}
    conditions: [{type: Accepted, status: "True", reason: Accepted, message: theirs, lastTransitionTime: "2020-01-01T00:00:00Z", observedGeneration: 1}]
  - controllerName: ambit-mesh.io/controller
    parentRef: {group: "", kind: Service, name: a}
    conditions:
    - {type: Accepted, status: "True", reason: Accepted, message: before, lastTransitionTime: "2021-01-01T00:00:00Z", observedGeneration: 2}
    - {type: PartiallyInvalid, status: "True", reason: UnsupportedValue, message: gone, lastTransitionTime: "2021-01-01T00:00:00Z"}
`

func parse(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	obj := &unstructured.Unstructured{}
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err == nil {
		err = obj.UnmarshalJSON(raw)
	}
	if err != nil {
		t.Fatal(err)
	}
	return obj
}

func accepted(s metav1.ConditionStatus, message string) *[]gatewayv1.RouteParentStatus {
	reason := map[metav1.ConditionStatus]string{"True": "Accepted", "False": "NoMatchingParent"}[s]
	return &[]gatewayv1.RouteParentStatus{{
		ParentRef:      gatewayv1.ParentReference{Group: new(gatewayv1.Group("")), Kind: new(gatewayv1.Kind("Service")), Name: "a"},
		ControllerName: meshv1alpha1.ControllerName,
		Conditions:     []metav1.Condition{{Type: "Accepted", Status: s, Reason: reason, Message: message, ObservedGeneration: 3}},
	}}
}

// The time of a transition is kept while the status is, others' entries stay to
// the last field, and what is as it should be is left alone.
func TestMerge(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	obj := parse(t, routeYAML)
	st, _, _ := unstructured.NestedMap(obj.Object, "status")
	theirs := st["parents"].([]any)[0]
	want := status.Wanted{Parents: accepted("True", "now")}
	changed, transitions, err := status.Merge(st, want, at)
	if err != nil || !changed || len(transitions) != 0 {
		t.Fatalf("changed %v, transitions %v, %v", changed, transitions, err)
	}
	parents := st["parents"].([]any)
	if d := cmp.Diff(theirs, parents[0]); d != "" {
		t.Errorf("the other controller's entry:\n%s", d)
	}
	got := fmt.Sprint(parents[1].(map[string]any)["conditions"])
	if want := "[map[lastTransitionTime:2021-01-01T00:00:00Z message:now observedGeneration:3 reason:Accepted status:True type:Accepted]]"; got != want {
		t.Errorf("conditions %s, want %s", got, want)
	}
	if changed, _, _ := status.Merge(st, want, at.Add(time.Hour)); changed {
		t.Error("changed though nothing is different")
	}
	changed, transitions, _ = status.Merge(st, status.Wanted{Parents: accepted("False", "no")}, at)
	if !changed || len(transitions) != 1 || transitions[0].Of != "Service a" {
		t.Fatalf("changed %v, transitions %+v", changed, transitions)
	}
	if got := fmt.Sprint(st["parents"]); !strings.Contains(got, "2026-01-02T03:04:05Z") {
		t.Errorf("the transition has no new time: %s", got)
	}
	if changed, _, _ = status.Merge(st, status.Wanted{Parents: &[]gatewayv1.RouteParentStatus{}}, at); !changed {
		t.Error("not detached")
	}
	if d := cmp.Diff([]any{theirs}, st["parents"]); d != "" {
		t.Errorf("after detaching:\n%s", d)
	}
}

func TestMergeConditions(t *testing.T) {
	st := map[string]any{"loadBalancer": map[string]any{}, "conditions": []any{
		map[string]any{"type": "LoadBalancerReady", "status": "True"}, map[string]any{"type": "WaypointBound", "status": "True"},
	}}
	changed, _, err := status.Merge(st, status.Wanted{Types: []string{"WaypointBound"}}, time.Now())
	if err != nil || !changed {
		t.Fatal(changed, err)
	}
	want := map[string]any{"loadBalancer": map[string]any{}, "conditions": []any{map[string]any{"type": "LoadBalancerReady", "status": "True"}}}
	if d := cmp.Diff(want, st); d != "" {
		t.Error(d)
	}
	empty := map[string]any{}
	if changed, _, _ := status.Merge(empty, status.Wanted{Types: []string{"WaypointBound"}, Ancestors: &[]gatewayv1.PolicyAncestorStatus{}}, time.Now()); changed || len(empty) != 0 {
		t.Error("nothing is wanted, and something was written", empty)
	}
}

// source gives the same to every route, and may be changed.
type source struct {
	mu     sync.Mutex
	wanted status.Wanted
}

func (s *source) Glance(graph.Key) (status.Wanted, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wanted, true
}

func (s *source) Wanted(k graph.Key, _ *unstructured.Unstructured) (status.Wanted, bool) {
	return s.Glance(k)
}

func (s *source) set(w status.Wanted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = w
}

type events chan string

func (e events) Eventf(_, _ runtime.Object, kind, reason, _, note string, args ...any) {
	e <- kind + " " + reason + " " + fmt.Sprintf(note, args...)
}

// bench is a writer on a fake API server that tells of its writes.
type bench struct {
	*status.Writer
	source *source
	client client.WithWatch
	events events
	writes chan string // the resource version after each
	reads  chan struct{}
	fail   func() error // of a write; may be nil
}

func start(t *testing.T, objects ...client.Object) *bench {
	b := &bench{source: &source{wanted: status.Wanted{Parents: accepted("True", "now")}}, events: make(events, 100), writes: make(chan string, 100), reads: make(chan struct{}, 1000)}
	sch := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, gatewayv1.Install} {
		if err := add(sch); err != nil {
			t.Fatal(err)
		}
	}
	v1 := schema.GroupVersion{Group: gatewayv1.GroupName, Version: "v1"}
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{v1})
	mapper.Add(v1.WithKind("HTTPRoute"), meta.RESTScopeNamespace)
	b.client = fake.NewClientBuilder().WithScheme(sch).WithRESTMapper(mapper).WithObjects(objects...).WithStatusSubresource(&gatewayv1.HTTPRoute{}).
		WithInterceptorFuncs(interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, k client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
				b.reads <- struct{}{}
				return c.Get(ctx, k, obj, opts...)
			},
			SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
				if b.fail != nil {
					if err := b.fail(); err != nil {
						return err
					}
				}
				err := c.SubResource(sub).Update(ctx, obj, opts...)
				b.writes <- obj.GetResourceVersion()
				return err
			},
		}).Build()
	return b
}

func (b *bench) run(t *testing.T) {
	var err error
	b.Writer, err = status.New(status.Config{
		Client: b.client, Source: b.source, Events: b.events, Interval: time.Millisecond,
		Kinds: []schema.GroupKind{{Group: gatewayv1.GroupName, Kind: "HTTPRoute"}, {Group: gatewayv1.GroupName, Kind: "GRPCRoute"}}, // the latter is not installed
		Log:   zap.NewNop(), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

var routeKey = graph.RouteKey("HTTPRoute", "shop", "r")

// What is wrong at the start is put right, a change is written once, and
// after that nothing is read or written, whatever is said to be changed.
func TestWriter(t *testing.T) {
	b := start(t, parse(t, routeYAML))
	b.run(t)
	<-b.writes
	b.source.set(status.Wanted{Parents: accepted("False", "there is no Service shop/a")})
	b.Changed(routeKey)
	version := <-b.writes
	if got, want := <-b.events, "Warning NoMatchingParent Service a: Accepted is False: there is no Service shop/a"; got != want {
		t.Errorf("event %q, want %q", got, want)
	}
	for len(b.reads) > 0 {
		<-b.reads
	}
	for range 100 {
		b.Changed(routeKey)
		b.Touched(routeKey, version)
	}
	// Something that is known to be read after all that: another object.
	b.Changed(graph.RouteKey("HTTPRoute", "shop", "missing"))
	<-b.reads
	if len(b.writes) > 0 {
		t.Error("written at rest")
	}
	// Somebody else wipes the status.
	var wiped gatewayv1.HTTPRoute
	if err := b.client.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "r"}, &wiped); err != nil {
		t.Fatal(err)
	}
	wiped.Status.Parents = wiped.Status.Parents[:1]
	if err := b.client.Status().Update(t.Context(), &wiped); err != nil {
		t.Fatal(err)
	}
	b.Touched(routeKey, <-b.writes)
	<-b.writes
	var now gatewayv1.HTTPRoute
	if err := b.client.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "r"}, &now); err != nil {
		t.Fatal(err)
	}
	if len(now.Status.Parents) != 2 || now.Status.Parents[0].ControllerName != "example.com/other" {
		t.Errorf("parents %+v", now.Status.Parents)
	}
}

// A storm of conflicts ends with the status written on what is there then.
func TestConflicts(t *testing.T) {
	b := start(t, parse(t, routeYAML))
	left := 20
	b.fail = func() error {
		if left--; left < 0 {
			return nil
		}
		return apierrors.NewConflict(schema.GroupResource{Resource: "httproutes"}, "r", fmt.Errorf("somebody was faster"))
	}
	b.run(t)
	<-b.writes
	if left >= 0 {
		t.Error("no conflicts met")
	}
}
