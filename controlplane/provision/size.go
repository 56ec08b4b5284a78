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
	AnnotationReplicas = "ambit-mesh.io/waypoint-replicas"
	// AnnotationMaxReplicas, in a cluster, makes an autoscaler: waypoint-replicas
	// are then the fewest, and AnnotationCPUTarget the percentage of the requested
	// CPU that it aims at, 80 when absent.
	AnnotationMaxReplicas   = "ambit-mesh.io/waypoint-max-replicas"
	AnnotationCPUTarget     = "ambit-mesh.io/waypoint-cpu-target"
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

// scaling gives the most replicas and the CPU target in percent; 0 for no
// autoscaler.
func scaling(gw *gatewayv1.Gateway) (most, target int32, problems []Problem) {
	target = 80
	least, _ := replicas(gw)
	if value, ok := setting(gw, AnnotationMaxReplicas); ok {
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil || n < 1 || n > maxReplicas || int32(n) < least || least < 1 {
			problems = append(problems, Problem{settingField(gw, AnnotationMaxReplicas), fmt.Sprintf("%q is not possible: use %d to %d, and at least 1 of %s", value, max(least, 1), maxReplicas, AnnotationReplicas)})
		}
		most = int32(n)
	}
	if value, ok := setting(gw, AnnotationCPUTarget); ok {
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil || n < 1 || n > 1000 {
			problems = append(problems, Problem{settingField(gw, AnnotationCPUTarget), fmt.Sprintf("%q is not a percentage: use 1 to 1000", value)})
		}
		target = int32(n)
	}
	return most, target, problems
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
