package provision

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// overlays are the keys of a ConfigMap of parameters, each with the object that
// its value is merged into (strategic merge, as kubectl patch does).
func (o *Objects) overlays() map[string]graph.Object {
	out := map[string]graph.Object{"serviceAccount": o.ServiceAccount, "service": o.Service, "deployment": o.Deployment}
	if o.PodDisruptionBudget != nil {
		out["podDisruptionBudget"] = o.PodDisruptionBudget
	}
	if o.HorizontalPodAutoscaler != nil {
		out["horizontalPodAutoscaler"] = o.HorizontalPodAutoscaler
	}
	return out
}

// maxOverlay bounds what is parsed, in bytes.
const maxOverlay = 64 << 10

// Overlay merges parameters into objects, in place. Objects is not to be used when
// there are problems, whose field is key of the ConfigMap.
func Overlay(o *Objects, params map[string]string) []Problem {
	var problems []Problem
	targets := o.overlays()
	for _, key := range slices.Sorted(maps.Keys(params)) {
		target, ok := targets[key]
		if !ok {
			problems = append(problems, Problem{key, "is not something that there is: use " + strings.Join(slices.Sorted(maps.Keys(targets)), ", ")})
			continue
		}
		if err := overlay(target, params[key]); err != nil {
			problems = append(problems, Problem{key, err.Error()})
		}
	}
	return problems
}

func overlay(target graph.Object, text string) error {
	if len(text) > maxOverlay {
		return fmt.Errorf("is larger than %d bytes", maxOverlay)
	}
	patch, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		return fmt.Errorf("is not YAML: %w", err)
	}
	if !bytes.HasPrefix(bytes.TrimSpace(patch), []byte("{")) {
		return fmt.Errorf("must be an object, such as {metadata: {labels: {team: a}}}")
	}
	before, err := json.Marshal(target)
	if err != nil {
		return err
	}
	merged, err := strategicpatch.StrategicMergePatch(before, patch, target)
	if err != nil {
		return fmt.Errorf("cannot be merged: %w", err)
	}
	after, _ := reflect.New(reflect.TypeOf(target).Elem()).Interface().(graph.Object)
	if err := yaml.UnmarshalStrict(merged, after); err != nil {
		return fmt.Errorf("does not give an object: %w", err)
	}
	if field := taken(target, after); field != "" {
		return fmt.Errorf("must not change %s, by which the mesh knows what it has made", field)
	}
	reflect.ValueOf(target).Elem().Set(reflect.ValueOf(after).Elem())
	return nil
}

// taken names a field that is the mesh's and was changed, or gives "".
func taken(before, after graph.Object) string {
	parts := []part{
		{"metadata.name", func(o graph.Object) any { return o.GetName() }},
		{"metadata.namespace", func(o graph.Object) any { return o.GetNamespace() }},
		{"metadata.ownerReferences", func(o graph.Object) any { return o.GetOwnerReferences() }},
		{"kind", func(o graph.Object) any { return o.GetObjectKind().GroupVersionKind() }},
		{"metadata.labels", func(o graph.Object) any { return own(o.GetLabels()) }},
	}
	switch before.(type) {
	case *corev1.Service:
		parts = append(parts, part{"spec.selector", func(o graph.Object) any { return o.(*corev1.Service).Spec.Selector }},
			part{"spec.type", func(o graph.Object) any {
				return o.(*corev1.Service).Spec.Type == corev1.ServiceTypeExternalName || o.(*corev1.Service).Spec.ClusterIP == corev1.ClusterIPNone
			}},
			part{"spec.ports", func(o graph.Object) any { return hbone(o.(*corev1.Service)) }})
	default:
		parts = append(parts, deploymentParts(before)...)
	}
	for _, p := range parts {
		if !reflect.DeepEqual(p.of(before), p.of(after)) {
			return p.field
		}
	}
	return ""
}

// own gives the mesh's labels among others.
func own(labels map[string]string) map[string]string {
	out := make(map[string]string)
	for _, k := range []string{graph.LabelGatewayName, graph.LabelDataplaneMode, LabelManagedBy} {
		out[k] = labels[k]
	}
	return out
}

func hbone(s *corev1.Service) *corev1.ServicePort {
	for i := range s.Spec.Ports {
		if s.Spec.Ports[i].Port == graph.WaypointPort {
			return &s.Spec.Ports[i]
		}
	}
	return nil
}
