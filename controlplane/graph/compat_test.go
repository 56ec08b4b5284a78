package graph_test

import (
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/controlplane/graph"
)

func TestFromIstio(t *testing.T) {
	for name, tc := range map[string]struct{ labels, want map[string]string }{
		"none":    {map[string]string{"app": "x"}, map[string]string{}},
		"enrol":   {map[string]string{"istio.io/dataplane-mode": "ambient"}, map[string]string{graph.LabelDataplaneMode: "ambient"}},
		"own won": {map[string]string{"istio.io/dataplane-mode": "ambient", graph.LabelDataplaneMode: "none"}, map[string]string{}},
		"waypoint of another namespace": {
			map[string]string{"istio.io/use-waypoint": "wp", "istio.io/use-waypoint-namespace": "infra"},
			map[string]string{graph.LabelUseWaypoint: "wp", graph.LabelUseWaypointNamespace: "infra"},
		},
		"own waypoint here": {map[string]string{graph.LabelUseWaypoint: "own", "istio.io/use-waypoint": "wp", "istio.io/use-waypoint-namespace": "infra"}, map[string]string{}},
		"purpose":           {map[string]string{"istio.io/waypoint-for": "all"}, map[string]string{graph.LabelWaypointFor: "all"}},
	} {
		t.Run(name, func(t *testing.T) {
			meta := metav1.ObjectMeta{Name: "x", Labels: maps.Clone(tc.labels)}
			want := maps.Clone(tc.labels)
			maps.Copy(want, tc.want)
			for _, obj := range []graph.Object{
				&corev1.Namespace{ObjectMeta: meta}, &corev1.Pod{ObjectMeta: meta}, &corev1.Service{ObjectMeta: meta}, &gatewayv1.Gateway{ObjectMeta: meta},
			} {
				got := graph.FromIstio(obj)
				if !maps.Equal(got.GetLabels(), want) || !maps.Equal(obj.GetLabels(), tc.labels) {
					t.Errorf("%T: %v, want %v", obj, got.GetLabels(), want)
				}
				if same := got == obj; same != (len(tc.want) == 0) {
					t.Errorf("%T: the same object %v", obj, same)
				}
			}
		})
	}
	gw := &gatewayv1.Gateway{Spec: gatewayv1.GatewaySpec{GatewayClassName: "istio-waypoint"}}
	if got := graph.FromIstio(gw).(*gatewayv1.Gateway).Spec.GatewayClassName; got != graph.WaypointClass || gw.Spec.GatewayClassName != "istio-waypoint" {
		t.Errorf("class %s", got)
	}
}
