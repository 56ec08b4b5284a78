package kube

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// annotationPrefix is of the annotations that the mesh reads.
const annotationPrefix = "ambit-mesh.io/"

// trim drops what the mesh does not read, before an object is kept. It is given
// objects that nobody else has yet.
func trim(v any) (any, error) {
	obj, ok := v.(graph.Object)
	if !ok {
		return v, nil
	}
	obj.SetManagedFields(nil)
	switch o := obj.(type) {
	case *corev1.Pod:
		trimMeta(&o.ObjectMeta)
		trimPod(o)
	case *corev1.Node:
		trimMeta(&o.ObjectMeta)
		o.Spec, o.Status = corev1.NodeSpec{}, corev1.NodeStatus{}
	case *corev1.Namespace:
		trimMeta(&o.ObjectMeta)
		trimNamespace(o)
	case *corev1.Service:
		trimMeta(&o.ObjectMeta)
		o.Status = corev1.ServiceStatus{}
	case *discoveryv1.EndpointSlice:
		trimMeta(&o.ObjectMeta)
		trimSlice(o)
	case *corev1.ConfigMap:
		trimMeta(&o.ObjectMeta)
		trimConfigMap(o)
	}
	return obj, nil
}

// trimMeta keeps of metadata what the mesh reads of kinds that are many.
func trimMeta(m *metav1.ObjectMeta) {
	for k := range m.Annotations {
		if !strings.HasPrefix(k, annotationPrefix) {
			delete(m.Annotations, k)
		}
	}
	if len(m.Annotations) == 0 {
		m.Annotations = nil
	}
	m.Finalizers, m.GenerateName = nil, ""
	for _, ref := range m.OwnerReferences {
		if ref.Controller != nil && *ref.Controller {
			m.OwnerReferences = []metav1.OwnerReference{ref}
			return
		}
	}
	m.OwnerReferences = nil
}

// trimConfigMap keeps the certificates to which a BackendTLSPolicy may refer.
func trimConfigMap(c *corev1.ConfigMap) {
	const key = "ca.crt"
	text, ok := c.Data[key]
	c.Data, c.BinaryData, c.Labels = nil, nil, nil
	if ok {
		c.Data = map[string]string{key: text}
	}
}

// trimNamespace keeps the condition by which its waypoint stays bound.
func trimNamespace(ns *corev1.Namespace) {
	var kept []corev1.NamespaceCondition
	for _, c := range ns.Status.Conditions {
		if c.Type == graph.ConditionWaypointBound {
			kept = append(kept, corev1.NamespaceCondition{Type: c.Type, Status: c.Status, Message: c.Message})
		}
	}
	ns.Spec, ns.Status = corev1.NamespaceSpec{}, corev1.NamespaceStatus{Conditions: kept}
}

func trimPod(p *corev1.Pod) {
	spec := corev1.PodSpec{
		NodeName: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork, ServiceAccountName: p.Spec.ServiceAccountName,
		Containers: trimContainers(p.Spec.Containers), InitContainers: trimContainers(p.Spec.InitContainers),
	}
	status := corev1.PodStatus{Phase: p.Status.Phase, PodIP: p.Status.PodIP, PodIPs: p.Status.PodIPs}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady || c.Type == compile.ConditionCaptured {
			status.Conditions = append(status.Conditions, corev1.PodCondition{Type: c.Type, Status: c.Status, Reason: c.Reason, Message: c.Message})
		}
	}
	if len(status.PodIPs) == 1 && status.PodIPs[0].IP == status.PodIP {
		status.PodIPs = nil // says nothing more
	}
	p.Spec, p.Status = spec, status
}

// trimContainers keeps named ports, by which Services find their target.
func trimContainers(list []corev1.Container) []corev1.Container {
	var out []corev1.Container
	for _, c := range list {
		var ports []corev1.ContainerPort
		for _, port := range c.Ports {
			if port.Name != "" {
				ports = append(ports, corev1.ContainerPort{Name: port.Name, ContainerPort: port.ContainerPort, Protocol: port.Protocol})
			}
		}
		if ports != nil {
			out = append(out, corev1.Container{Ports: ports})
		}
	}
	return out
}

func trimSlice(s *discoveryv1.EndpointSlice) {
	for i := range s.Endpoints {
		ep := &s.Endpoints[i]
		ep.Hints, ep.DeprecatedTopology, ep.Hostname = nil, nil, nil
		if ref := ep.TargetRef; ref != nil {
			ep.TargetRef = &corev1.ObjectReference{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}
		}
	}
}

// same says whether nothing changed that the mesh reads. Objects of definitions
// have a generation that rises with their specification; their status is written,
// and not read, by the mesh.
func same(old, now graph.Object) bool {
	if old.GetUID() != now.GetUID() {
		return false
	}
	if g := now.GetGeneration(); g != 0 && !counts(now) {
		return g == old.GetGeneration() && (old.GetDeletionTimestamp() == nil) == (now.GetDeletionTimestamp() == nil) &&
			equality.Semantic.DeepEqual(old.GetLabels(), now.GetLabels()) && equality.Semantic.DeepEqual(old.GetAnnotations(), now.GetAnnotations())
	}
	a, b := bare(old), bare(now)
	return a != nil && b != nil && equality.Semantic.DeepEqual(a, b)
}

// counts says whether a kind's generation does not tell all that the mesh reads.
func counts(obj graph.Object) bool {
	switch obj.(type) {
	case *corev1.Pod, *corev1.Node, *corev1.Namespace, *corev1.Service, *discoveryv1.EndpointSlice, *corev1.ConfigMap:
		return true
	}
	return false
}

// bare gives a shallow copy without what changes at every write, nil for other
// kinds than those that are many.
func bare(obj graph.Object) any {
	strip := func(m *metav1.ObjectMeta) { m.ResourceVersion, m.Generation = "", 0 }
	switch o := obj.(type) {
	case *corev1.Pod:
		c := *o
		strip(&c.ObjectMeta)
		return &c
	case *corev1.Node:
		c := *o
		strip(&c.ObjectMeta)
		return &c
	case *corev1.Namespace:
		c := *o
		strip(&c.ObjectMeta)
		return &c
	case *corev1.Service:
		c := *o
		strip(&c.ObjectMeta)
		return &c
	case *discoveryv1.EndpointSlice:
		c := *o
		strip(&c.ObjectMeta)
		return &c
	case *corev1.ConfigMap:
		c := *o
		strip(&c.ObjectMeta)
		return &c
	}
	return nil
}
