package compile_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// BenchmarkRouteEdit edits one route of a service whose routes have so many rules
// together.
func BenchmarkRouteEdit(b *testing.B) {
	for _, rules := range []int{16, 1_000, 10_000} {
		b.Run(fmt.Sprintf("rules=%d", rules), func(b *testing.B) {
			c := newCompiler(b)
			in := compile.Input{Upserts: []graph.Entry{{Object: waypointGateway()}, {Object: &corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart", Labels: map[string]string{graph.LabelUseWaypoint: "wp"}},
				Spec:       corev1.ServiceSpec{ClusterIP: "10.96.0.1", Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
			}}}}
			for i := range rules / 16 {
				in.Upserts = append(in.Upserts, graph.Entry{Object: sixteenRules(i, 0)})
			}
			c.Apply(in)
			b.ResetTimer()
			for i := range b.N {
				c.Apply(compile.Input{Upserts: []graph.Entry{{Object: sixteenRules(0, i+1)}}})
			}
		})
	}
}

func waypointGateway() *gatewayv1.Gateway {
	return &gatewayv1.Gateway{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "wp"},
		Spec: gatewayv1.GatewaySpec{
			GatewayClassName: graph.WaypointClass,
			Listeners:        []gatewayv1.Listener{{Name: "mesh", Port: graph.WaypointPort, Protocol: graph.ProtocolHBONE}},
		},
	}
}

// sixteenRules is a route with as many rules as one may have.
func sixteenRules(route, edit int) *gatewayv1.HTTPRoute {
	o := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("r%d", route)}}
	o.Spec.ParentRefs = []gatewayv1.ParentReference{{Group: new(gatewayv1.Group("")), Kind: new(gatewayv1.Kind("Service")), Name: "cart"}}
	for i := range 16 {
		o.Spec.Rules = append(o.Spec.Rules, gatewayv1.HTTPRouteRule{
			Matches: []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{
				Type: new(gatewayv1.PathMatchPathPrefix), Value: new(fmt.Sprintf("/r%d/%d/%d", route, i, edit)),
			}}},
			BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{
				Name: "cart", Port: new(gatewayv1.PortNumber(80)),
			}}}},
		})
	}
	return o
}
