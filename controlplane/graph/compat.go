package graph

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// IstioWaypointClass is the GatewayClass that existing ambient manifests name.
const IstioWaypointClass = "istio-waypoint"

// istioLabels are the twins of the mesh's own labels.
var istioLabels = [...][2]string{
	{"istio.io/dataplane-mode", LabelDataplaneMode},
	{"istio.io/use-waypoint", LabelUseWaypoint},
	{"istio.io/use-waypoint-namespace", LabelUseWaypointNamespace},
	{"istio.io/waypoint-for", LabelWaypointFor},
}

// FromIstio gives an object as if its istio.io labels, and a Gateway's class, were
// the mesh's own. A label of the mesh's own counts before its twin. What is given
// is another object if anything is different; the one that was handed in is never
// changed.
func FromIstio(obj Object) Object {
	switch o := obj.(type) {
	case *corev1.Namespace:
		if l := twins(o.Labels); l != nil {
			c := *o
			c.Labels = l
			return &c
		}
	case *corev1.Pod:
		if l := twins(o.Labels); l != nil {
			c := *o
			c.Labels = l
			return &c
		}
	case *corev1.Service:
		if l := twins(o.Labels); l != nil {
			c := *o
			c.Labels = l
			return &c
		}
	case *gatewayv1.Gateway:
		l := twins(o.Labels)
		if l == nil && o.Spec.GatewayClassName != IstioWaypointClass {
			break
		}
		c := *o
		if l != nil {
			c.Labels = l
		}
		if c.Spec.GatewayClassName == IstioWaypointClass {
			c.Spec.GatewayClassName = WaypointClass
		}
		return &c
	}
	return obj
}

// twins gives labels with those of the mesh's own that their twins stand for; nil if
// there are none. The place of a waypoint goes with its name: of two labels that
// name one in different ways, one pair counts.
func twins(labels map[string]string) map[string]string {
	var out map[string]string
	_, own := labels[LabelUseWaypoint]
	for _, t := range istioLabels {
		value, ok := labels[t[0]]
		if _, set := labels[t[1]]; !ok || set || own && t[1] == LabelUseWaypointNamespace {
			continue
		}
		if out == nil {
			out = maps.Clone(labels)
		}
		out[t[1]] = value
	}
	return out
}
