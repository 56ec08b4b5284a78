package workload

import (
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func (o *Owner) numberedName(i int) string {
	if o.pod != nil {
		return o.pod.Name
	}
	return fmt.Sprintf("%s-%d", o.Key.Name, i)
}

// Build makes the pod of a Create action. The suffix ends a generated name.
func (a Action) Build(uid types.UID, suffix string, now metav1.Time) *corev1.Pod {
	o := a.Owner
	p := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	if o.pod != nil {
		p.ObjectMeta = *o.pod.ObjectMeta.DeepCopy()
		p.Spec = *o.pod.Spec.DeepCopy()
	} else {
		p.ObjectMeta = *o.template.ObjectMeta.DeepCopy()
		p.Spec = *o.template.Spec.DeepCopy()
		p.Namespace = o.Key.Namespace
		p.OwnerReferences = []metav1.OwnerReference{*o.ref}
		p.Name = a.Name
		if p.Labels = maps.Clone(p.Labels); p.Labels == nil {
			p.Labels = make(map[string]string)
		}
		if o.ordinal {
			p.Spec.Hostname = p.Name
			p.Labels["statefulset.kubernetes.io/pod-name"] = p.Name
			p.Labels["controller-revision-hash"] = o.Key.Name + "-" + o.Hash
		} else {
			p.Name = fmt.Sprintf("%s-%s-%s", o.Key.Name, o.Hash, suffix)
			p.GenerateName = o.Key.Name + "-" + o.Hash + "-"
			p.Labels["pod-template-hash"] = o.Hash
		}
	}
	p.UID, p.CreationTimestamp = uid, now
	if p.Spec.ServiceAccountName == "" {
		p.Spec.ServiceAccountName = "default"
	}
	p.Status = corev1.PodStatus{Phase: corev1.PodPending}
	return p
}

// Relabel brings a bare pod's labels and annotations to those of its manifest,
// which change while it runs. It reports whether there was a difference.
func (o *Owner) Relabel(p *corev1.Pod) bool {
	if o.pod == nil || maps.Equal(o.pod.Labels, p.Labels) && maps.Equal(o.pod.Annotations, p.Annotations) {
		return false
	}
	p.Labels, p.Annotations = maps.Clone(o.pod.Labels), maps.Clone(o.pod.Annotations)
	return true
}
