package kube

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/ambit-mesh/ambit/apis/gatewayx"
	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// kind is one kind of objects that the mesh reads.
type kind struct {
	schema.GroupKind
	// versions in which it can be read, the preferred one first.
	versions []string
	make     func() graph.Object
	// defined by a CustomResourceDefinition, which may be absent.
	defined bool
}

func of[T any, P interface {
	*T
	graph.Object
}]() graph.Object {
	return P(new(T))
}

// kinds are all that the compiler links. Those of Gateway API had versions before
// v1; their definitions name no conversion, so that objects of all versions have
// the fields of v1, or fewer.
func kinds() []kind {
	list := []kind{
		{schema.GroupKind{Kind: "Namespace"}, []string{"v1"}, of[corev1.Namespace], false},
		{schema.GroupKind{Kind: "Node"}, []string{"v1"}, of[corev1.Node], false},
		{schema.GroupKind{Kind: "Pod"}, []string{"v1"}, of[corev1.Pod], false},
		{schema.GroupKind{Kind: "Service"}, []string{"v1"}, of[corev1.Service], false},
		{schema.GroupKind{Group: discoveryv1.GroupName, Kind: "EndpointSlice"}, []string{"v1"}, of[discoveryv1.EndpointSlice], false},
		{schema.GroupKind{Kind: graph.KindConfigMap}, []string{"v1"}, of[corev1.ConfigMap], false},
		// Of these only that they are there is heard of, for their status.
		{schema.GroupKind{Group: gatewayv1.GroupName, Kind: "GatewayClass"}, []string{"v1", "v1beta1"}, of[gatewayv1.GatewayClass], true},
		{schema.GroupKind{Group: gatewayxv1alpha1.GroupName, Kind: "XMesh"}, []string{"v1alpha1"}, of[gatewayxv1alpha1.XMesh], true},
		{schema.GroupKind{Group: gatewayxv1alpha1.GroupName, Kind: graph.KindXBackendTrafficPolicy}, []string{"v1alpha1"}, of[gatewayxv1alpha1.XBackendTrafficPolicy], true},
		{schema.GroupKind{Group: gatewayx.GroupName, Kind: gatewayx.KindTelemetryPolicy}, []string{gatewayx.Version}, of[gatewayx.XTelemetryPolicy], true},
	}
	for _, k := range []struct {
		name  string
		make  func() graph.Object
		older []string
	}{
		{"Gateway", of[gatewayv1.Gateway], []string{"v1beta1"}},
		{graph.KindHTTPRoute, of[gatewayv1.HTTPRoute], []string{"v1beta1"}},
		{graph.KindGRPCRoute, of[gatewayv1.GRPCRoute], []string{"v1alpha2"}},
		{graph.KindTLSRoute, of[gatewayv1.TLSRoute], []string{"v1alpha3", "v1alpha2"}},
		{graph.KindTCPRoute, of[gatewayv1.TCPRoute], []string{"v1alpha2"}},
		{graph.KindUDPRoute, of[gatewayv1.UDPRoute], []string{"v1alpha2"}},
		{graph.KindBackendTLSPolicy, of[gatewayv1.BackendTLSPolicy], []string{"v1alpha3"}},
	} {
		list = append(list, kind{schema.GroupKind{Group: gatewayv1.GroupName, Kind: k.name}, append([]string{"v1"}, k.older...), k.make, true})
	}
	for _, make := range []func() graph.Object{
		of[meshv1alpha1.AuthorizationPolicy], of[meshv1alpha1.PeerAuthentication], of[meshv1alpha1.RetryPolicy],
		of[meshv1alpha1.TimeoutPolicy], of[meshv1alpha1.FaultInjection], of[meshv1alpha1.RateLimitPolicy],
		of[meshv1alpha1.LoadBalancingPolicy], of[meshv1alpha1.CircuitBreakerPolicy], of[meshv1alpha1.OutlierDetectionPolicy],
		of[meshv1alpha1.HealthCheckPolicy], of[meshv1alpha1.SessionPersistencePolicy], of[meshv1alpha1.JWTAuthentication],
		of[meshv1alpha1.ExternalAuthorizationPolicy], of[meshv1alpha1.TracingPolicy],
		of[meshv1alpha1.ExternalService],
	} {
		k, _ := graph.KeyOf(make()) // known, or the test of this table fails
		list = append(list, kind{schema.GroupKind{Group: k.Group, Kind: k.Kind}, []string{meshv1alpha1.Version}, make, true})
	}
	return list
}
