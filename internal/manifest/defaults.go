package manifest

import (
	"crypto/sha256"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// setDefaults fills in what an API server would and the mesh relies on.
func setDefaults(obj Resource) {
	gvk := obj.GetObjectKind().GroupVersionKind()
	if !clusterScoped(gvk.Kind) && obj.GetNamespace() == "" {
		obj.SetNamespace(metav1.NamespaceDefault)
	}
	if obj.GetUID() == "" {
		obj.SetUID(derivedUID(keyOf(obj)))
	}
	switch o := obj.(type) {
	case *corev1.Namespace:
		if o.Labels == nil {
			o.Labels = map[string]string{}
		}
		o.Labels[corev1.LabelMetadataName] = o.Name
	case *corev1.Service:
		defaultService(o)
	case *corev1.Pod:
		defaultPod(o)
	case *appsv1.Deployment:
		o.Spec.Replicas = orOne(o.Spec.Replicas)
		defaultPodSpec(&o.Spec.Template.Spec)
	case *appsv1.StatefulSet:
		o.Spec.Replicas = orOne(o.Spec.Replicas)
		defaultPodSpec(&o.Spec.Template.Spec)
	case *discoveryv1.EndpointSlice:
		for i := range o.Ports {
			if o.Ports[i].Protocol == nil {
				o.Ports[i].Protocol = new(corev1.ProtocolTCP)
			}
		}
	}
}

// derivedUID names an object that was given no uid. It is the same for the same
// key on every machine, so that a restart changes nothing; whoever re-creates
// pods under one name gives them uids of their own.
func derivedUID(k Key) types.UID {
	sum := sha256.Sum256([]byte(k.Group + "\x00" + k.Kind + "\x00" + k.Namespace + "\x00" + k.Name))
	sum[6] = sum[6]&0x0f | 0x80 // version 8 of RFC 9562, section 5.8
	sum[8] = sum[8]&0x3f | 0x80
	return types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16]))
}

func orOne(n *int32) *int32 {
	if n == nil {
		return new(int32(1))
	}
	return n
}

func defaultService(s *corev1.Service) {
	if s.Spec.Type == "" {
		s.Spec.Type = corev1.ServiceTypeClusterIP
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.Protocol == "" {
			p.Protocol = corev1.ProtocolTCP
		}
		if p.TargetPort == (intstr.IntOrString{}) {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	switch {
	case len(s.Spec.ClusterIPs) > 0 && s.Spec.ClusterIP == "":
		s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
	case len(s.Spec.ClusterIPs) == 0 && s.Spec.ClusterIP != "":
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	}
}

func defaultPod(p *corev1.Pod) {
	defaultPodSpec(&p.Spec)
	if p.Spec.ServiceAccountName == "" {
		p.Spec.ServiceAccountName = "default"
	}
	switch {
	case len(p.Status.PodIPs) == 0 && p.Status.PodIP != "":
		p.Status.PodIPs = []corev1.PodIP{{IP: p.Status.PodIP}}
	case len(p.Status.PodIPs) > 0 && p.Status.PodIP == "":
		p.Status.PodIP = p.Status.PodIPs[0].IP
	}
}

func defaultPodSpec(spec *corev1.PodSpec) {
	if spec.RestartPolicy == "" {
		spec.RestartPolicy = corev1.RestartPolicyAlways
	}
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			for j := range list[i].Ports {
				if list[i].Ports[j].Protocol == "" {
					list[i].Ports[j].Protocol = corev1.ProtocolTCP
				}
			}
		}
	}
}
