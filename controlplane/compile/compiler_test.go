package compile_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/apis/node"
	"github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/internal/identity"
)

func newCompiler(t testing.TB) *compile.Compiler {
	t.Helper()
	c, err := compile.New(compile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNewRefusesBadOptions(t *testing.T) {
	for name, opts := range map[string]compile.Options{
		"trust domain":   {TrustDomain: "UPPER/case"},
		"cluster domain": {ClusterDomain: "-x"},
		"root namespace": {RootNamespace: "a.b"},
	} {
		if _, err := compile.New(opts); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v does not name it", name, err)
		}
	}
}

const nodeRunsMesh = `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: live, namespace: shop}
spec: {nodeName: n1, serviceAccountName: web, containers: [{name: c}]}
---
apiVersion: v1
kind: Pod
metadata: {name: terminating, namespace: shop, deletionTimestamp: "2026-01-01T00:00:00Z"}
spec: {nodeName: n1, serviceAccountName: leaving, containers: [{name: c}]}
status: {phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: done, namespace: shop}
spec: {nodeName: n1, serviceAccountName: job, containers: [{name: c}]}
status: {phase: Succeeded}
---
apiVersion: v1
kind: Pod
metadata: {name: crashed, namespace: shop}
spec: {nodeName: n1, serviceAccountName: job, containers: [{name: c}]}
status: {phase: Failed}
---
apiVersion: v1
kind: Pod
metadata: {name: host, namespace: shop}
spec: {nodeName: n1, hostNetwork: true, serviceAccountName: agent, containers: [{name: c}]}
---
apiVersion: v1
kind: Pod
metadata: {name: unbound, namespace: shop}
spec: {serviceAccountName: pending, containers: [{name: c}]}
---
apiVersion: v1
kind: Pod
metadata: {name: plain, namespace: shop}
spec: {nodeName: n1, containers: [{name: c}]}
`

func TestNodeRuns(t *testing.T) {
	c := newCompiler(t)
	c.Apply(compile.Input{Upserts: objects(t, "mesh.yaml", []byte(nodeRunsMesh))})
	for _, tc := range []struct {
		node, id, reason string
	}{
		{"n1", "cluster.local/ns/shop/sa/web", ""},
		{"n1", "cluster.local/ns/shop/sa/leaving", ""},
		{"n1", "cluster.local/ns/shop/sa/default", ""},
		{"n2", "cluster.local/ns/shop/sa/web", "not on node n2"},
		{"", "cluster.local/ns/shop/sa/web", "no node"},
		{"n1", "example.org/ns/shop/sa/web", "trust domain"},
		{"n1", "cluster.local/ns/shop/sa/job", "finished"},
		{"n1", "cluster.local/ns/shop/sa/agent", "hostNetwork"},
		{"n1", "cluster.local/ns/shop/sa/pending", "no live pod"},
		{"n1", "cluster.local/ns/other/sa/web", "no namespace other"},
	} {
		id, err := identity.ParsePrincipal(tc.id)
		if err != nil {
			t.Fatal(err)
		}
		err = c.NodeRuns(tc.node, id)
		switch {
		case tc.reason == "" && err != nil:
			t.Errorf("%s on %s: %v", tc.id, tc.node, err)
		case tc.reason != "" && (!errors.Is(err, compile.ErrNotRunning) || !strings.Contains(err.Error(), tc.reason)):
			t.Errorf("%s on %q: error %v, want one with %q", tc.id, tc.node, err, tc.reason)
		}
	}
	c.Apply(compile.Input{Deletes: []graph.Key{{Kind: "Pod", Namespace: "shop", Name: "live"}}})
	id, _ := identity.ParsePrincipal("cluster.local/ns/shop/sa/web")
	if err := c.NodeRuns("n1", id); err == nil {
		t.Error("granted for a deleted pod")
	}
}

func pod(i int, labels map[string]string) *corev1.Pod {
	name := fmt.Sprintf("p%d", i)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: fmt.Sprintf("ns%d", i%100), Name: name, UID: types.UID("uid-" + name), Labels: labels},
		Spec: corev1.PodSpec{
			NodeName: fmt.Sprintf("n%d", i%50), ServiceAccountName: "sa",
			Containers: []corev1.Container{{Name: "c"}},
		},
		Status: corev1.PodStatus{
			Phase:      corev1.PodRunning,
			PodIPs:     []corev1.PodIP{{IP: fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
}

func namespace(name, mode string) graph.Entry {
	return graph.Entry{Object: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{graph.LabelDataplaneMode: mode},
	}}}
}

func tunnel(t *testing.T, c *compile.Compiler, name string) workload.TunnelProtocol {
	t.Helper()
	r, ok := c.Lookup(compile.Key{Type: compile.TypeAddress, Name: name})
	if !ok {
		t.Fatalf("no workload %s", name)
	}
	return r.Body.(*workload.Address).GetWorkload().GetTunnelProtocol()
}

// TestRestartKeepsCapture hands the captured set to a new compiler and expects
// that it tells nobody anything else than the old one did.
func TestRestartKeepsCapture(t *testing.T) {
	mesh := []graph.Entry{namespace("ns1", graph.ModeAmbient), {Object: pod(1, nil)}, {Object: pod(101, nil)}}
	first := newCompiler(t)
	first.Apply(compile.Input{Upserts: mesh})
	res := first.Apply(compile.Input{Reports: []compile.CaptureReport{
		{Node: "n1", Snapshot: true, Pods: []compile.PodCapture{{UID: "uid-p1", Captured: true}}},
	}})
	if !res.CapturedChanged {
		t.Error("the captured set changed, and the result does not say so")
	}
	kept := first.Captured()
	if want := []compile.CapturedPod{{UID: "uid-p1", Node: "n1"}}; !slices.Equal(kept, want) {
		t.Fatalf("captured %v, want %v", kept, want)
	}

	second := newCompiler(t)
	second.Apply(compile.Input{Upserts: mesh, Restored: append(kept, compile.CapturedPod{UID: "gone", Node: "n1"})})
	if got := tunnel(t, second, "Kubernetes//Pod/ns1/p1"); got != workload.TunnelProtocol_HBONE {
		t.Errorf("a captured pod is %s after a restart", got)
	}
	if got := tunnel(t, second, "Kubernetes//Pod/ns1/p101"); got != workload.TunnelProtocol_NONE {
		t.Errorf("a pod that is not captured is %s after a restart", got)
	}
	if !slices.Equal(second.Captured(), kept) {
		t.Errorf("captured %v after a restart, want %v", second.Captured(), kept)
	}

	third := newCompiler(t)
	unlabelled := append(slices.Clone(mesh[1:]), namespace("ns1", ""))
	res = third.Apply(compile.Input{Upserts: unlabelled, Restored: kept})
	if len(res.Releasing) != 1 || res.Releasing[0].UID != "uid-p1" {
		t.Errorf("unlabelled during a restart: releasing %v, want uid-p1", res.Releasing)
	}
}

// TestReportBeforePod covers an agent that hears of a pod from the container
// runtime before the control plane hears of it from its source.
func TestReportBeforePod(t *testing.T) {
	c := newCompiler(t)
	c.Apply(compile.Input{Upserts: []graph.Entry{namespace("ns1", graph.ModeAmbient)}})
	c.Apply(compile.Input{Reports: []compile.CaptureReport{
		{Node: "n1", Pods: []compile.PodCapture{{UID: "uid-p1", Captured: true}}},
		{Node: "n9", Pods: []compile.PodCapture{{UID: "uid-p101", Captured: true}}},
	}})
	c.Apply(compile.Input{Upserts: []graph.Entry{{Object: pod(1, nil)}, {Object: pod(101, nil)}}})
	if got := tunnel(t, c, "Kubernetes//Pod/ns1/p1"); got != workload.TunnelProtocol_HBONE {
		t.Errorf("reported early by its own node: %s, want HBONE", got)
	}
	if got := tunnel(t, c, "Kubernetes//Pod/ns1/p101"); got != workload.TunnelProtocol_NONE {
		t.Errorf("reported early by another node: %s, want NONE", got)
	}
}

func TestPodMovesWithItsNode(t *testing.T) {
	c := newCompiler(t)
	p := pod(1, nil)
	c.Apply(compile.Input{Upserts: []graph.Entry{{Object: p}}})
	moved := p.DeepCopy()
	moved.Spec.NodeName = "n2"
	res := c.Apply(compile.Input{Upserts: []graph.Entry{{Object: moved}}})
	for _, r := range res.Updated {
		if _, ok := r.Body.(*node.Pod); ok && r.Node == "n2" {
			return
		}
	}
	t.Errorf("the new node is not told of the pod: %v", res.Updated)
}

// TestQueriesRunBesideApply is for the race detector.
func TestQueriesRunBesideApply(t *testing.T) {
	c := newCompiler(t)
	c.Apply(compile.Input{Upserts: []graph.Entry{{Object: &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns1", Name: "s"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "x"}, ClusterIP: "10.96.0.1"},
	}}}})
	svc, _ := c.Lookup(compile.Key{Type: compile.TypeAddress, Name: "ns1/s.ns1.svc.cluster.local"})
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				svc.Related()
				c.Findings()
				c.Statuses()
				c.Captured()
				_ = c.NodeRuns("n1", identity.ID{TrustDomain: "cluster.local", Namespace: "ns1", ServiceAccount: "sa"})
			}
		})
	}
	for i := range 300 {
		c.Apply(compile.Input{Upserts: []graph.Entry{{Object: pod(i, map[string]string{"app": "x"})}}})
	}
	close(stop)
	wg.Wait()
	if got := len(svc.Related()); got != 3 {
		t.Errorf("%d workloads are related to the service, want 3", got)
	}
}
