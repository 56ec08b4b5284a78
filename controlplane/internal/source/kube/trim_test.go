package kube

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

func full() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web", Namespace: "shop", UID: "u", ResourceVersion: "7", GenerateName: "web-", Finalizers: []string{"f"},
			Labels: map[string]string{"app": "web"}, Annotations: map[string]string{"ambit-mesh.io/a": "1", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
			ManagedFields:   []metav1.ManagedFieldsEntry{{Manager: "kubelet"}},
			OwnerReferences: []metav1.OwnerReference{{Kind: "Other", Name: "o"}, {Kind: "ReplicaSet", Name: "web-1", Controller: new(true)}},
		},
		Spec: corev1.PodSpec{
			NodeName: "n1", HostNetwork: true, ServiceAccountName: "web", Volumes: []corev1.Volume{{Name: "v"}},
			Containers:     []corev1.Container{{Name: "c", Image: "i", Env: []corev1.EnvVar{{Name: "SECRET", Value: "x"}}, Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: "TCP"}, {ContainerPort: 9090}}}, {Name: "d"}},
			InitContainers: []corev1.Container{{Name: "s", Ports: []corev1.ContainerPort{{Name: "side", ContainerPort: 1, Protocol: "UDP"}}}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "10.0.0.1", PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}, HostIP: "192.0.2.1", ContainerStatuses: []corev1.ContainerStatus{{Name: "c"}},
			Conditions: []corev1.PodCondition{
				{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastProbeTime: metav1.Now()},
				{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
				{Type: compile.ConditionCaptured, Status: corev1.ConditionTrue, Reason: "Captured"},
			},
		},
	}
}

// TestTrim: all that the mesh reads is kept, and nothing else, least of all the
// environment of containers.
func TestTrim(t *testing.T) {
	got, err := trim(full())
	if err != nil {
		t.Fatal(err)
	}
	want := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web", Namespace: "shop", UID: "u", ResourceVersion: "7", Labels: map[string]string{"app": "web"}, Annotations: map[string]string{"ambit-mesh.io/a": "1"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "web-1", Controller: new(true)}},
		},
		Spec: corev1.PodSpec{
			NodeName: "n1", HostNetwork: true, ServiceAccountName: "web",
			Containers:     []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: "TCP"}}}},
			InitContainers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "side", ContainerPort: 1, Protocol: "UDP"}}}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1", Conditions: []corev1.PodCondition{
			{Type: corev1.PodReady, Status: corev1.ConditionTrue}, {Type: compile.ConditionCaptured, Status: corev1.ConditionTrue, Reason: "Captured"},
		}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	dual := full()
	dual.Status.PodIPs = append(dual.Status.PodIPs, corev1.PodIP{IP: "fd00::1"})
	if got, _ := trim(dual); len(got.(*corev1.Pod).Status.PodIPs) != 2 {
		t.Error("the second address is gone")
	}

	slice := &discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{{
		Addresses: []string{"10.0.0.1"}, NodeName: new("n1"), Hostname: new("h"), Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: "web", UID: "u", ResourceVersion: "9"},
		Hints:     &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "z"}}},
	}}}
	got, _ = trim(slice)
	if d := cmp.Diff([]discoveryv1.Endpoint{{
		Addresses: []string{"10.0.0.1"}, NodeName: new("n1"), Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: "web"},
	}}, got.(*discoveryv1.EndpointSlice).Endpoints); d != "" {
		t.Error(d)
	}
	// What is written by hand is kept whole: annotations of routes and Gateways may be of others.
	gw := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "g", Annotations: map[string]string{"a": "b"}, ManagedFields: []metav1.ManagedFieldsEntry{{}}}}
	got, _ = trim(gw)
	if g := got.(*gatewayv1.Gateway); g.Annotations["a"] != "b" || g.ManagedFields != nil {
		t.Errorf("%+v", g.ObjectMeta)
	}
	if _, err := trim("something else"); err != nil {
		t.Error(err)
	}
}

// TestSame: writes that change nothing that the mesh reads do not reach the compiler.
func TestSame(t *testing.T) {
	now := func(change func(*corev1.Pod)) graph.Object {
		p := full()
		change(p)
		got, _ := trim(p)
		return got.(graph.Object)
	}
	before := now(func(*corev1.Pod) {})
	for name, tc := range map[string]struct {
		change func(*corev1.Pod)
		want   bool
	}{
		"a heartbeat":           {func(p *corev1.Pod) { p.ResourceVersion = "8"; p.Status.Conditions[0].LastProbeTime = metav1.Time{} }, true},
		"a restarted container": {func(p *corev1.Pod) { p.ResourceVersion = "8"; p.Status.ContainerStatuses = nil }, true},
		"a foreign annotation":  {func(p *corev1.Pod) { p.Annotations["x"] = "y" }, true},
		"not ready":             {func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }, false},
		"captured":              {func(p *corev1.Pod) { p.Status.Conditions[2].Reason = "Releasing" }, false},
		"a label":               {func(p *corev1.Pod) { p.Labels["app"] = "other" }, false},
		"an annotation":         {func(p *corev1.Pod) { p.Annotations["ambit-mesh.io/a"] = "2" }, false},
		"another pod":           {func(p *corev1.Pod) { p.UID = "v" }, false},
		"ending":                {func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }, false},
	} {
		if got := same(before, now(tc.change)); got != tc.want {
			t.Errorf("%s: same %v, want %v", name, got, tc.want)
		}
	}
	route := func(generation int64, status string, annotations map[string]string) *gatewayv1.HTTPRoute {
		r := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{UID: "u", Generation: generation, Annotations: annotations}}
		if status != "" {
			r.Status.Parents = []gatewayv1.RouteParentStatus{{ControllerName: gatewayv1.GatewayController(status)}}
		}
		return r
	}
	if !same(route(1, "", nil), route(1, "ours", nil)) {
		t.Error("a status that the mesh wrote comes back to it")
	}
	if same(route(1, "", nil), route(2, "", nil)) || same(route(1, "", nil), route(1, "", map[string]string{"a": "b"})) {
		t.Error("an edit of a route is missed")
	}
}

// TestTrimDefinition: schemas are dropped, versions kept.
func TestTrimDefinition(t *testing.T) {
	got, err := trimDefinition(&apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "x", Annotations: map[string]string{"a": "b"}},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{Group: "g", Versions: []apiextensionsv1.CustomResourceDefinitionVersion{
			{Name: "v1", Served: true, Schema: &apiextensionsv1.CustomResourceValidation{}}, {Name: "v2"},
		}},
	})
	want := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "x"},
		Spec:       apiextensionsv1.CustomResourceDefinitionSpec{Group: "g", Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true}, {Name: "v2"}}},
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Error(err, d)
	}
}

// TestDefinitions: a kind is read in the preferred version that is served, from when
// its definition is established until it goes.
func TestDefinitions(t *testing.T) {
	pokes := 0
	d := &definitions{served: make(map[string]definition), changed: func() { pokes++ }}
	var routes kind
	for _, k := range kinds() {
		if k.Kind == graph.KindTLSRoute {
			routes = k
		}
	}
	crd := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "tlsroutes"}, Spec: apiextensionsv1.CustomResourceDefinitionSpec{
		Group: gatewayv1.GroupName, Names: apiextensionsv1.CustomResourceDefinitionNames{Kind: graph.KindTLSRoute},
		Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1alpha2", Served: true}, {Name: "v1", Served: false}},
	}}
	step := func(what, want string) {
		t.Helper()
		d.set(crd.DeepCopy())
		if got := d.version(routes); got != want {
			t.Errorf("%s: version %q, want %q", what, got, want)
		}
	}
	step("not established", "")
	crd.Status.Conditions = []apiextensionsv1.CustomResourceDefinitionCondition{{Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionTrue}}
	step("an old one", "v1alpha2")
	crd.Spec.Versions[1].Served = true
	step("v1 is served", "v1")
	crd.DeletionTimestamp = &metav1.Time{}
	step("going", "")
	if pokes != 4 {
		t.Errorf("told of %d changes, want 4", pokes)
	}
	if got := d.version(kinds()[0]); got != "v1" {
		t.Errorf("a kind of Kubernetes itself is read in %q", got)
	}
}
