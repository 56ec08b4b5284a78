package controlplane_test

import (
	"fmt"
	"strings"
	"testing"

	nodepb "github.com/ambit-mesh/ambit/apis/node"
	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

// meshOf writes the manifests of n pods, spread over files of a hundred.
func (p *plane) meshOf(n int) {
	for file := range n / 100 {
		var docs []string
		for i := range 100 {
			docs = append(docs, fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: p-%[1]d-%[2]d, namespace: shop, uid: uid-%[1]d-%[2]d}
spec: {nodeName: n1, containers: [{name: main}]}
status: {phase: Running, podIP: 10.%[3]d.%[1]d.%[2]d, conditions: [{type: Ready, status: "True"}]}
`, file%256, i, 16+file/256))
		}
		p.manifest(fmt.Sprintf("mesh-%d.yaml", file), strings.Join(docs, "---\n"))
	}
}

// BenchmarkEditToAck is the time from the write of one pod's manifest to the
// moment when the last of ten clients has taken the change in, the debounce of
// the watcher (20 ms) included. It must not grow with the mesh.
func BenchmarkEditToAck(b *testing.B) {
	for _, size := range []int{100, 10_000} {
		for _, kind := range []string{"address", "capture"} {
			b.Run(fmt.Sprintf("%s/workloads=%d", kind, size), func(b *testing.B) { benchEdit(b, size, kind == "capture") })
		}
	}
}

func benchEdit(b *testing.B, size int, capture bool) {
	p := newPlane(b, nil)
	p.manifest("ns.yaml", namespace("ambient"))
	p.meshOf(size)
	p.manifest("cart.yaml", pod("cart", "n1", "Running"))
	p.start()
	var all []*nodepb.PodState
	for file := range size / 100 {
		for i := range 100 {
			all = append(all, &nodepb.PodState{Uid: fmt.Sprintf("uid-%d-%d", file%256, i), State: nodepb.PodState_CAPTURED})
		}
	}
	report := p.agent("n1", all...)
	var clients []*follower
	for range 10 {
		clients = append(clients, p.follow("n2", compile.TypeAuthorization, compile.TypeAddress))
	}
	everywhere := func(name string, tunnel workloadpb.TunnelProtocol) {
		testkit.Until(b, name, func() bool {
			for _, f := range clients {
				if w := f.workload("cart"); w == nil || w.CanonicalName != name || w.TunnelProtocol != tunnel {
					return false
				}
			}
			return true
		})
	}
	everywhere("cart", workloadpb.TunnelProtocol_NONE)
	b.ResetTimer()
	for i := range b.N {
		name := fmt.Sprintf("v%d", i)
		manifest := strings.Replace(pod("cart", "n1", "Running"), "namespace: shop,", "namespace: shop, labels: {app.kubernetes.io/name: "+name+"},", 1)
		if !capture {
			p.manifest("cart.yaml", manifest)
			everywhere(name, workloadpb.TunnelProtocol_NONE)
			continue
		}
		// A new pod each time, so that each time the captured set is written.
		p.manifest("cart.yaml", strings.Replace(manifest, "uid-cart", name, 1))
		report(&nodepb.PodState{Uid: name, State: nodepb.PodState_CAPTURED})
		everywhere(name, workloadpb.TunnelProtocol_HBONE)
	}
}
