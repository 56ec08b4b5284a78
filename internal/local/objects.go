package local

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/internal/local/wire"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

// nodeObject describes a node as a cluster would.
func nodeObject(w *wire.Node) *corev1.Node {
	o := &corev1.Node{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{
			Name: w.Name, UID: newUID(), CreationTimestamp: metav1.Now(),
			Labels: map[string]string{corev1.LabelHostname: w.Name, corev1.LabelOSStable: "linux"},
		},
		Spec: corev1.NodeSpec{PodCIDR: w.Block4.String(), PodCIDRs: []string{w.Block4.String()}},
		Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeHostName, Address: w.Name}, {Type: corev1.NodeInternalIP, Address: w.Addr4.String()},
			},
			Capacity:   corev1.ResourceList{corev1.ResourcePods: resource.MustParse("250")},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Running"}},
		},
	}
	if w.Addr6.IsValid() {
		o.Spec.PodCIDRs = append(o.Spec.PodCIDRs, w.Block6.String())
		o.Status.Addresses = append(o.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: w.Addr6.String()})
	}
	return o
}

// labelNodes gives nodes the labels and annotations that manifests of Nodes say, such
// as the zone that one is in. A manifest is for a node that is there.
func (s *supervisor) labelNodes(objects []manifest.Object) (problems []manifest.Problem) {
	said := make(map[string]*corev1.Node)
	for _, o := range objects {
		r, ok := o.Resource.(*corev1.Node)
		if !ok {
			continue
		}
		if !slices.ContainsFunc(s.nodes, func(n *node) bool { return n.wire.Name == r.Name }) {
			problems = append(problems, o.Problem("metadata.name", fmt.Sprintf("there is no node %q: name one that is there, or start with more --nodes", r.Name)))
			continue
		}
		said[r.Name] = r
	}
	for _, n := range s.nodes {
		o := n.plain.DeepCopy()
		if r := said[n.wire.Name]; r != nil {
			labels := maps.Clone(r.Labels)
			if labels == nil {
				labels = make(map[string]string)
			}
			maps.Copy(labels, o.Labels) // what the node is by itself counts
			o.Labels, o.Annotations = labels, r.Annotations
		}
		n.obj = o
	}
	return problems
}

// implied gives what a cluster makes by itself and the manifests do not define:
// namespaces that are used, and each namespace's default service account.
func implied(objects []manifest.Object) []manifest.Resource {
	have := make(map[manifest.Key]bool)
	namespaces := map[string]bool{metav1.NamespaceDefault: true}
	for _, o := range objects {
		k := o.Key()
		have[k] = true
		if k.Namespace != "" {
			namespaces[k.Namespace] = true
		}
		if k.Kind == "Namespace" {
			namespaces[k.Name] = true
		}
	}
	var all []manifest.Resource
	for _, ns := range slices.Sorted(maps.Keys(namespaces)) {
		if !have[manifest.Key{Kind: "Namespace", Name: ns}] {
			all = append(all, &corev1.Namespace{
				TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
				ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: map[string]string{corev1.LabelMetadataName: ns}},
				Status:     corev1.NamespaceStatus{Phase: corev1.NamespaceActive},
			})
		}
		if !have[manifest.Key{Kind: "ServiceAccount", Namespace: ns, Name: "default"}] {
			all = append(all, &corev1.ServiceAccount{
				TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"},
				ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: ns},
			})
		}
	}
	return all
}
