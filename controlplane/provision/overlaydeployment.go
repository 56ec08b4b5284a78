package provision

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// part is a field that is the mesh's, and what it says.
type part struct {
	field string
	of    func(graph.Object) any
}

// deploymentParts are what of a Deployment is the mesh's: who its pods are, and
// what proves it.
func deploymentParts(obj graph.Object) []part {
	if _, ok := obj.(*appsv1.Deployment); !ok {
		return nil
	}
	pod := func(o graph.Object) *corev1.PodTemplateSpec { return &o.(*appsv1.Deployment).Spec.Template }
	container := func(o graph.Object) corev1.Container {
		for _, c := range pod(o).Spec.Containers {
			if c.Name == Container {
				return c
			}
		}
		return corev1.Container{}
	}
	return []part{
		{"spec.selector", func(o graph.Object) any { return o.(*appsv1.Deployment).Spec.Selector }},
		{"spec.template.metadata.labels", func(o graph.Object) any { return own(pod(o).Labels) }},
		{"spec.template.spec.serviceAccountName", func(o graph.Object) any { return pod(o).Spec.ServiceAccountName }},
		{"spec.template.spec.hostNetwork", func(o graph.Object) any { return pod(o).Spec.HostNetwork }},
		{"spec.template.spec.containers[" + Container + "]", func(o graph.Object) any {
			c := container(o)
			return []any{c.Name, c.Command, c.Ports}
		}},
		{"spec.template.spec.volumes", func(o graph.Object) any {
			for _, v := range pod(o).Spec.Volumes {
				if v.Name == secretsVolume {
					return v
				}
			}
			return nil
		}},
	}
}
