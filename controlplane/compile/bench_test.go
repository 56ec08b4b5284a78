package compile_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// mesh gives n pods in 100 namespaces, ten behind each service, with labels that
// all pods share besides those that tell them apart.
func mesh(n int) []graph.Entry {
	var out []graph.Entry
	for i := range 100 {
		out = append(out, namespace(fmt.Sprintf("ns%d", i), graph.ModeAmbient))
	}
	for i := range n {
		labels := map[string]string{"app": fmt.Sprintf("app%d", i/1000), "part-of": "shop", "tier": "web"}
		out = append(out, graph.Entry{Object: pod(i, labels)})
		if i%1000 < 100 {
			out = append(out, graph.Entry{Object: &corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Namespace: fmt.Sprintf("ns%d", i%100), Name: labels["app"]},
				Spec: corev1.ServiceSpec{
					Selector:  map[string]string{"app": labels["app"], "part-of": "shop"},
					ClusterIP: fmt.Sprintf("10.200.%d.%d", i/1000, i%100),
					Ports:     []corev1.ServicePort{{Port: 80}},
				},
			}})
		}
	}
	return out
}

// BenchmarkApplyOnePod edits one pod of a mesh. The time must not depend on the
// size of the mesh.
func BenchmarkApplyOnePod(b *testing.B) {
	for _, size := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("workloads=%d", size), func(b *testing.B) {
			c := newCompiler(b)
			c.Apply(compile.Input{Upserts: mesh(size)})
			labels := map[string]string{"app": "app0", "part-of": "shop", "tier": "web"}
			states := []*corev1.Pod{pod(7, labels), pod(7, labels)}
			states[1].Status.Conditions[0].Status = corev1.ConditionFalse
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				res := c.Apply(compile.Input{Upserts: []graph.Entry{{Object: states[(i+1)%2]}}})
				if len(res.Updated) != 1 {
					b.Fatalf("%d resources updated, want 1", len(res.Updated))
				}
			}
		})
	}
}

// BenchmarkApplyMesh compiles a mesh from nothing.
func BenchmarkApplyMesh(b *testing.B) {
	entries := mesh(10_000)
	b.ReportAllocs()
	for b.Loop() {
		newCompiler(b).Apply(compile.Input{Upserts: entries})
	}
}
