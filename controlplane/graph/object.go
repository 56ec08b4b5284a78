package graph

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
)

// Object is a typed API object, as every generated Go type of one is.
type Object interface {
	runtime.Object
	metav1.Object
}

// Entry is an object together with where it came from.
type Entry struct {
	Object Object
	// Origin is nil for objects from the API server. It appears in findings.
	Origin Origin
}

// Origin gives the "file:line" of a field of an object, such as spec.ports[0],
// or of the deepest part of it that is written down; "" is the object itself.
type Origin func(field string) string

// Key names an object.
type Key struct {
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// String gives Kind namespace/name, the form that messages use.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Kind + " " + k.Name
	}
	return k.Kind + " " + k.Namespace + "/" + k.Name
}

// NamespacedName drops group and kind.
func (k Key) NamespacedName() types.NamespacedName {
	return types.NamespacedName{Namespace: k.Namespace, Name: k.Name}
}

// Changes is one batch: the objects that are new or different, and the names
// of those that are gone. Upserts are applied after Deletes.
type Changes struct {
	Upserts []Entry
	Deletes []Key
}

// KeyOf names an object by its Go type, because typed objects from informers
// carry no kind. It reports false for types that the graph does not link.
func KeyOf(obj Object) (Key, bool) {
	key := Key{Namespace: obj.GetNamespace(), Name: obj.GetName()}
	switch obj.(type) {
	case *corev1.Namespace:
		key.Kind = "Namespace"
	case *corev1.Node:
		key.Kind = "Node"
	case *corev1.Pod:
		key.Kind = "Pod"
	case *corev1.Service:
		key.Kind = "Service"
	case *discoveryv1.EndpointSlice:
		key.Group, key.Kind = discoveryv1.GroupName, "EndpointSlice"
	case *gatewayv1.Gateway:
		key.Group, key.Kind = gatewayv1.GroupName, "Gateway"
	case *meshv1alpha1.AuthorizationPolicy:
		key.Group, key.Kind = meshv1alpha1.GroupName, meshv1alpha1.KindAuthorizationPolicy
	case *meshv1alpha1.PeerAuthentication:
		key.Group, key.Kind = meshv1alpha1.GroupName, meshv1alpha1.KindPeerAuthentication
	case *meshv1alpha1.ExternalService:
		key.Group, key.Kind = meshv1alpha1.GroupName, meshv1alpha1.KindExternalService
	default:
		return trafficKey(obj)
	}
	return key, true
}
