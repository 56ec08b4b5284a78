package controlplane

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/tests/cluster/apitest"
)

const (
	system      = "ambit-system"
	namespaces  = 10
	routes      = 100 // at most: one for each service of the first namespace
	writers     = 16  // at once, while the objects are made
	waypointPod = "wp-pod"
)

// world is the cluster's objects.
type world struct {
	t        *testing.T
	api      *apitest.Server
	client   kubernetes.Interface
	dynamic  dynamic.Interface
	services int // made so far
	pods     int
	nodes    int
	down     map[int]bool // pods that were made not ready by toggle
}

const fixed = `
apiVersion: v1
kind: Namespace
metadata: {name: ambit-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: ambit-ztunnel, namespace: ambit-system}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: ambit-waypoint}
spec: {controllerName: ambit-mesh.io/controller}
---
apiVersion: v1
kind: Namespace
metadata: {name: ns-0, labels: {ambit-mesh.io/dataplane-mode: ambient, ambit-mesh.io/use-waypoint: wp}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: wp, namespace: ns-0}
---
apiVersion: v1
kind: Service
metadata: {name: wp, namespace: ns-0, labels: {gateway.networking.k8s.io/gateway-name: wp}}
spec: {ports: [{name: mesh, port: 15008}], selector: {gateway.networking.k8s.io/gateway-name: wp}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: ns-0}
spec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
`

// newWorld starts an API server and makes what does not depend on the size.
func newWorld(t *testing.T, nodes int) *world {
	t.Helper()
	s := apitest.Start(t)
	w := &world{t: t, api: s, nodes: nodes, down: make(map[int]bool)}
	fast := rest.CopyConfig(s.Config)
	fast.QPS = -1
	var err error
	if w.dynamic, err = dynamic.NewForConfig(fast); err != nil {
		t.Fatal(err)
	}
	fast.ContentType = runtime.ContentTypeProtobuf
	if w.client, err = kubernetes.NewForConfig(fast); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		t.Fatal(err)
	}
	w.kubectl("", "apply", "--server-side", "-k", filepath.Join(strings.TrimSpace(string(out)), "config", "crd"))
	w.kubectl("", "apply", "--server-side", "-f", "../../../manifests/crds")
	w.kubectl("", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	var b strings.Builder
	b.WriteString(fixed)
	for i := 1; i < namespaces; i++ {
		fmt.Fprintf(&b, "---\n{apiVersion: v1, kind: Namespace, metadata: {name: ns-%d, labels: {ambit-mesh.io/dataplane-mode: ambient}}}\n", i)
	}
	w.kubectl(b.String(), "apply", "--server-side", "-f", "-")
	w.each(nodes, w.node)
	w.pod(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns-0", Name: waypointPod, Labels: map[string]string{"gateway.networking.k8s.io/gateway-name": "wp", "ambit-mesh.io/dataplane-mode": "none"}},
		Spec:       corev1.PodSpec{NodeName: "node-0", ServiceAccountName: "wp"},
	}, "10.255.0.1")
	return w
}

func (w *world) kubectl(stdin string, args ...string) {
	w.t.Helper()
	if _, err := w.api.Kubectl(stdin, args...); err != nil {
		w.t.Fatal(err)
	}
}

// each does something n times, several at once.
func (w *world) each(n int, do func(ctx context.Context, i int) error) {
	w.t.Helper()
	next := make(chan int)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for i := range next {
				if err := do(w.t.Context(), i); err != nil {
					w.t.Error(err)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	if w.t.Failed() {
		w.t.FailNow()
	}
}

// node makes a node, and the pod of its ztunnel.
func (w *world) node(ctx context.Context, i int) error {
	name := fmt.Sprintf("node-%d", i)
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelTopologyRegion: "r", corev1.LabelTopologyZone: fmt.Sprintf("z-%d", i%3)}}}
	if _, err := w.client.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{}); err != nil {
		return err
	}
	return w.pod(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "ztunnel-" + name},
		Spec:       corev1.PodSpec{NodeName: name, HostNetwork: true, ServiceAccountName: "ambit-ztunnel"},
	}, fmt.Sprintf("192.168.%d.%d", i/250, i%250+1))
}

// pod makes a pod that runs and is captured, as the kubelet and the control plane
// would say of it.
func (w *world) pod(ctx context.Context, p *corev1.Pod, ip string) error {
	p.Spec.Containers = []corev1.Container{{Name: "main", Image: "registry.example/app:1", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}
	p, err := w.client.CoreV1().Pods(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	p.Status.Phase, p.Status.PodIP, p.Status.PodIPs = corev1.PodRunning, ip, []corev1.PodIP{{IP: ip}}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	if !p.Spec.HostNetwork {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: compile.ConditionCaptured, Status: corev1.ConditionTrue, Reason: compile.ReasonCaptured})
	}
	_, err = w.client.CoreV1().Pods(p.Namespace).UpdateStatus(ctx, p, metav1.UpdateOptions{})
	return err
}

func nsOf(service int) string { return fmt.Sprintf("ns-%d", service%namespaces) }

// grow makes services and pods, until there are as many.
func (w *world) grow(services, pods int) {
	w.t.Helper()
	from := w.services
	w.each(services-from, func(ctx context.Context, i int) error { return w.service(ctx, from+i) })
	w.services = services
	begin, ready := w.pods, sync.Map{}
	w.each(pods-begin, func(ctx context.Context, i int) error {
		i += begin
		svc, ip := i%services, fmt.Sprintf("10.%d.%d.%d", i/62500, i/250%250, i%250+1)
		name := fmt.Sprintf("pod-%d", i)
		if err := w.pod(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: nsOf(svc), Name: name, Labels: map[string]string{"app": fmt.Sprintf("svc-%d", svc)}, Annotations: map[string]string{"example.com/checksum": strings.Repeat("0123456789abcdef", 4)}},
			Spec:       corev1.PodSpec{NodeName: fmt.Sprintf("node-%d", i%w.nodes), ServiceAccountName: fmt.Sprintf("svc-%d", svc)},
		}, ip); err != nil {
			return err
		}
		ready.Store(name, discoveryv1.Endpoint{
			Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}, NodeName: new(fmt.Sprintf("node-%d", i%w.nodes)),
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: nsOf(svc), Name: name},
		})
		return nil
	})
	w.pods = pods
	w.each(services, func(ctx context.Context, i int) error {
		s := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: nsOf(i), Name: fmt.Sprintf("svc-%d-%d", i, pods), Labels: map[string]string{discoveryv1.LabelServiceName: fmt.Sprintf("svc-%d", i)}},
			AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080))}},
		}
		for p := begin; p < pods; p++ {
			if e, ok := ready.Load(fmt.Sprintf("pod-%d", p)); ok && p%services == i {
				s.Endpoints = append(s.Endpoints, e.(discoveryv1.Endpoint)) //nolint:forcetypeassert // just stored
			}
		}
		_, err := w.client.DiscoveryV1().EndpointSlices(s.Namespace).Create(ctx, s, metav1.CreateOptions{})
		return err
	})
	var b strings.Builder
	for i := from; i < services; i++ {
		if nsOf(i) == "ns-0" && i < routes*namespaces {
			fmt.Fprintf(&b, "---\n{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: route-%[1]d, namespace: ns-0}, spec: {parentRefs: [{group: \"\", kind: Service, name: svc-%[1]d}], rules: [{matches: [{headers: [{name: x, value: v}]}], backendRefs: [{name: svc-%[1]d, port: 80}]}]}}\n", i)
		}
		if i < 10*namespaces {
			fmt.Fprintf(&b, "---\n{apiVersion: ambit-mesh.io/v1alpha1, kind: AuthorizationPolicy, metadata: {name: policy-%d, namespace: %s}, spec: {action: DENY, targetRefs: [{group: \"\", kind: Service, name: svc-%[1]d}], rules: [{name: r, sources: [{type: ServiceAccount, serviceAccount: {name: nobody}}]}]}}\n", i, nsOf(i))
		}
	}
	if b.Len() > 0 {
		w.kubectl(b.String(), "apply", "--server-side", "-f", "-")
	}
}

func (w *world) service(ctx context.Context, i int) error {
	name := fmt.Sprintf("svc-%d", i)
	_, err := w.client.CoreV1().Services(nsOf(i)).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: nsOf(i), Name: name},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("http"), AppProtocol: new("http")}}},
	}, metav1.CreateOptions{})
	return err
}

// flip makes a pod ready, or not.
func (w *world) flip(ctx context.Context, pod int, ready bool) error {
	status := map[bool]string{true: "True", false: "False"}[ready]
	patch := fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":%q}]}}`, status)
	_, err := w.client.CoreV1().Pods(nsOf(pod%w.services)).Patch(ctx, fmt.Sprintf("pod-%d", pod), types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	return err
}
