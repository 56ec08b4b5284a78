package provisioner

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/controlplane/provision"
)

// AnnotationApplied tells what was applied last, so that what is no longer wanted
// is noticed.
const AnnotationApplied = "ambit-mesh.io/applied"

// Owned selects what was made for waypoints.
func Owned() client.MatchingLabels {
	return client.MatchingLabels{provision.LabelManagedBy: provision.ManagedBy}
}

func waypointOf(obj client.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: obj.GetNamespace(), Name: obj.GetLabels()[graph.LabelGatewayName]}
}

// ours says whether an object was made for a waypoint, even if its labels were
// taken off since.
func ours(obj client.Object, gateway string) bool {
	for _, f := range obj.GetManagedFields() {
		if f.Manager == FieldManager && f.Operation == metav1.ManagedFieldsOperationApply {
			return true
		}
	}
	l := obj.GetLabels()
	return l[provision.LabelManagedBy] == provision.ManagedBy && l[graph.LabelGatewayName] == gateway
}

// ensure applies an object unless it is as it should be. It gives a problem if
// there is another one of the name.
func (p *Provisioner) ensure(ctx context.Context, obj graph.Object) ([]provision.Problem, error) {
	want, err := desired(obj)
	if err != nil {
		return nil, err
	}
	have := &unstructured.Unstructured{}
	have.SetGroupVersionKind(want.GroupVersionKind())
	err = p.cfg.Client.Get(ctx, client.ObjectKeyFromObject(obj), have)
	options := []client.ApplyOption{client.FieldOwner(FieldManager)}
	switch {
	case apierrors.IsNotFound(err):
		// Nothing is forced: should somebody make one of the name just now, the
		// two conflict, and theirs stays.
	case err != nil:
		return nil, err
	case !ours(have, obj.GetLabels()[graph.LabelGatewayName]):
		return []provision.Problem{{
			Field:   want.GetKind() + " " + want.GetNamespace() + "/" + want.GetName(),
			Message: "is there and is not the mesh's, so that it is left as it is: rename it, or the Gateway",
		}}, nil
	case have.GetDeletionTimestamp() != nil:
		return nil, nil // its end is heard of
	case have.GetAnnotations()[AnnotationApplied] == want.GetAnnotations()[AnnotationApplied] && contains(have.Object, want.Object):
		return nil, nil
	default:
		options = append(options, client.ForceOwnership)
		keepReplicas(have, want)
	}
	return nil, p.cfg.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(want), options...)
}

// desired gives an object as it is applied: without what is not said.
func desired(obj graph.Object) (*unstructured.Unstructured, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil, err
	}
	delete(content, "status")
	prune(content)
	text, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{Object: content}
	sum := sha256.Sum256(text)
	annotations := u.GetAnnotations()
	if annotations == nil {
		annotations = make(map[string]string)
	}
	annotations[AnnotationApplied] = hex.EncodeToString(sum[:8])
	u.SetAnnotations(annotations)
	return u, nil
}

// prune drops nulls and empty objects, which the encoding of typed objects
// leaves, such as resources: {}.
func prune(m map[string]any) {
	for k, v := range m {
		switch v := v.(type) {
		case nil:
			delete(m, k)
		case map[string]any:
			prune(v)
			if len(v) == 0 {
				delete(m, k)
			}
		case []any:
			for _, e := range v {
				if e, ok := e.(map[string]any); ok {
					prune(e)
				}
			}
		}
	}
}

// contains says whether all that is wanted is there. Elements of lists are found
// by their name, so that those that others add do not count.
func contains(have, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		have, ok := have.(map[string]any)
		if !ok {
			return false
		}
		for k, v := range want {
			if !contains(have[k], v) {
				return false
			}
		}
		return true
	case []any:
		have, ok := have.([]any)
		if !ok {
			return false
		}
		for i, w := range want {
			if !contains(counterpart(have, w, i), w) {
				return false
			}
		}
		return len(want) == len(have) || len(want) > 0 && nameOf(want[0]) != ""
	}
	return reflect.DeepEqual(have, want)
}

func counterpart(have []any, want any, i int) any {
	if name := nameOf(want); name != "" {
		for _, h := range have {
			if nameOf(h) == name {
				return h
			}
		}
		return nil
	}
	if i < len(have) {
		return have[i]
	}
	return nil
}

// nameOf gives by what an element of a list is known among the others.
func nameOf(v any) string {
	m, _ := v.(map[string]any)
	for _, key := range []string{"name", "uid", "mountPath"} {
		if s, ok := m[key].(string); ok {
			return key + "=" + s
		}
	}
	return ""
}

// keepReplicas goes on to say how many replicas there are until an autoscaler has
// taken that over: a field that nobody says is reset, and the waypoint would be
// down to one pod.
func keepReplicas(have, want *unstructured.Unstructured) {
	if want.GetKind() != "Deployment" {
		return
	}
	if _, said, _ := unstructured.NestedInt64(want.Object, "spec", "replicas"); said {
		return
	}
	n, found, _ := unstructured.NestedInt64(have.Object, "spec", "replicas")
	for _, f := range have.GetManagedFields() {
		if f.Manager != FieldManager && f.FieldsV1 != nil && strings.Contains(f.FieldsV1.GetRawString(), `"f:replicas"`) && f.Subresource != "status" {
			return
		}
	}
	if spec, ok := want.Object["spec"].(map[string]any); ok && found {
		spec["replicas"] = n
	}
}

// prune deletes what was made for a waypoint and is not among its objects.
func (p *Provisioner) prune(ctx context.Context, n types.NamespacedName, keep provision.Objects) error {
	kept := make(map[string]bool)
	if keep.Deployment != nil {
		for _, obj := range keep.All() {
			kept[obj.GetObjectKind().GroupVersionKind().Kind] = true
		}
	}
	for _, kind := range kinds() {
		if kept[kind.Kind] {
			continue
		}
		left, err := p.owned(ctx, kind, client.InNamespace(n.Namespace), client.MatchingLabels{graph.LabelGatewayName: n.Name, provision.LabelManagedBy: provision.ManagedBy})
		if err != nil {
			return err
		}
		for _, obj := range left {
			if obj.GetDeletionTimestamp() != nil {
				continue
			}
			uid := obj.GetUID()
			err := p.cfg.Client.Delete(ctx, obj, client.Preconditions{UID: &uid}, client.PropagationPolicy(metav1.DeletePropagationBackground))
			if client.IgnoreNotFound(err) != nil {
				return err
			}
		}
	}
	return nil
}

// owned lists what was made for waypoints.
func (p *Provisioner) owned(ctx context.Context, kind schema.GroupVersionKind, options ...client.ListOption) ([]client.Object, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(kind)
	if len(options) == 0 {
		options = append(options, Owned())
	}
	if err := p.cfg.Client.List(ctx, list, options...); err != nil {
		return nil, err
	}
	out := make([]client.Object, 0, len(list.Items))
	for i := range list.Items {
		list.Items[i].SetGroupVersionKind(kind)
		out = append(out, &list.Items[i])
	}
	return out, nil
}
