package provision

import (
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Annotations of a Gateway, or of its spec.infrastructure, which counts first.
const (
	AnnotationReplicas      = "ambit-mesh.io/waypoint-replicas"
	AnnotationCPURequest    = "ambit-mesh.io/waypoint-cpu-request"
	AnnotationCPULimit      = "ambit-mesh.io/waypoint-cpu-limit"
	AnnotationMemoryRequest = "ambit-mesh.io/waypoint-memory-request"
	AnnotationMemoryLimit   = "ambit-mesh.io/waypoint-memory-limit"
)

// maxReplicas is more than anybody needs and less than a slip of the keyboard.
const maxReplicas = 1000

type resourceAnnotation struct {
	key   string
	name  corev1.ResourceName
	limit bool
}

func resourceAnnotations() []resourceAnnotation {
	return []resourceAnnotation{
		{AnnotationCPURequest, corev1.ResourceCPU, false},
		{AnnotationMemoryRequest, corev1.ResourceMemory, false},
		{AnnotationCPULimit, corev1.ResourceCPU, true},
		{AnnotationMemoryLimit, corev1.ResourceMemory, true},
	}
}

func setting(gw *gatewayv1.Gateway, key string) (string, bool) {
	if i := gw.Spec.Infrastructure; i != nil {
		if v, ok := i.Annotations[gatewayv1.AnnotationKey(key)]; ok {
			return string(v), true
		}
	}
	v, ok := gw.Annotations[key]
	return v, ok
}

func settingField(gw *gatewayv1.Gateway, key string) string {
	if i := gw.Spec.Infrastructure; i != nil {
		if _, ok := i.Annotations[gatewayv1.AnnotationKey(key)]; ok {
			return "spec.infrastructure.annotations[" + key + "]"
		}
	}
	return "metadata.annotations[" + key + "]"
}

func replicas(gw *gatewayv1.Gateway) (int32, []Problem) {
	value, ok := setting(gw, AnnotationReplicas)
	if !ok {
		return 1, nil
	}
	n, err := strconv.ParseInt(value, 10, 32)
	if err != nil || n < 0 || n > maxReplicas {
		return 1, []Problem{{settingField(gw, AnnotationReplicas), fmt.Sprintf("%q is not a number of replicas: use 0 to %d", value, maxReplicas)}}
	}
	return int32(n), nil
}

// resources expects a Gateway that Check found no problem with.
func resources(gw *gatewayv1.Gateway) corev1.ResourceRequirements {
	out := corev1.ResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("64Mi"),
	}}
	for _, a := range resourceAnnotations() {
		value, ok := setting(gw, a.key)
		if !ok {
			continue
		}
		q, err := resource.ParseQuantity(value)
		if err != nil {
			continue
		}
		list := &out.Requests
		if a.limit {
			list = &out.Limits
		}
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[a.name] = q
	}
	return out
}
