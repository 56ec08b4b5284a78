package workload

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ambit-mesh/ambit/internal/manifest"
)

// Owner is something that wants pods.
type Owner struct {
	// Key is its manifest key.
	Key manifest.Key
	// Hash identifies what its pods are made of; another hash replaces them.
	Hash string
	// Replicas is how many pods it wants.
	Replicas int

	template    corev1.PodTemplateSpec
	ref         *metav1.OwnerReference
	pod         *corev1.Pod // a bare pod
	ordinal     bool        // pods have numbers and are replaced in place
	recreate    bool        // all old pods go before the first new one comes
	surge       int         // more than Replicas while replacing
	unavailable int         // fewer ready than Replicas while replacing
	parallel    bool        // numbered pods do not wait for each other
}

// OwnerOf makes an owner of a Deployment, a StatefulSet or a Pod; false for
// other kinds.
func OwnerOf(o manifest.Object) (*Owner, bool) {
	switch obj := o.Resource.(type) {
	case *appsv1.Deployment:
		return ofDeployment(o.Key(), obj), true
	case *appsv1.StatefulSet:
		return ofStatefulSet(o.Key(), obj), true
	case *corev1.Pod:
		return &Owner{Key: o.Key(), Hash: hash(obj.Spec), Replicas: 1, pod: obj, ordinal: true}, true
	}
	return nil, false
}

func ofDeployment(key manifest.Key, d *appsv1.Deployment) *Owner {
	own := &Owner{Key: key, Hash: hash(d.Spec.Template), Replicas: int(*d.Spec.Replicas), template: d.Spec.Template}
	// As in a cluster pods belong to a ReplicaSet, by whose name everybody knows
	// how to find the Deployment.
	own.ref = &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: d.Name + "-" + own.Hash, UID: d.UID, Controller: new(true)}
	own.recreate = d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType
	surge, unavailable := intstr.FromString("25%"), intstr.FromString("25%")
	if r := d.Spec.Strategy.RollingUpdate; r != nil {
		if r.MaxSurge != nil {
			surge = *r.MaxSurge
		}
		if r.MaxUnavailable != nil {
			unavailable = *r.MaxUnavailable
		}
	}
	own.surge, own.unavailable = scaled(surge, own.Replicas, math.Ceil), scaled(unavailable, own.Replicas, math.Floor)
	if own.surge == 0 && own.unavailable == 0 {
		own.surge = 1 // nothing could ever be replaced
	}
	return own
}

// scaled gives a number or a percentage of replicas. What is neither counts as 0.
func scaled(v intstr.IntOrString, replicas int, round func(float64) float64) int {
	if v.Type == intstr.Int {
		return max(0, int(v.IntVal))
	}
	var percent float64
	if _, err := fmt.Sscanf(v.StrVal, "%f%%", &percent); err != nil {
		return 0
	}
	return max(0, int(round(percent*float64(replicas)/100)))
}

func ofStatefulSet(key manifest.Key, s *appsv1.StatefulSet) *Owner {
	own := &Owner{Key: key, Hash: hash(s.Spec.Template), Replicas: int(*s.Spec.Replicas), template: s.Spec.Template, ordinal: true}
	own.ref = &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "StatefulSet", Name: s.Name, UID: s.UID, Controller: new(true)}
	own.parallel = s.Spec.PodManagementPolicy == appsv1.ParallelPodManagement
	own.template = *s.Spec.Template.DeepCopy()
	own.template.Spec.Subdomain = s.Spec.ServiceName
	return own
}

// hash is stable for equal values.
func hash(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return "unknown" // API types always marshal
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:5])
}

// Template is what a pod of the owner is made of.
func (o *Owner) Template() *corev1.PodSpec {
	if o.pod != nil {
		return &o.pod.Spec
	}
	return &o.template.Spec
}
