package manifest

import (
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/ambit-mesh/ambit/apis/gatewayx"
	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
)

// NewScheme gives a scheme of exactly the kinds that manifests may hold.
func NewScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	s.AddKnownTypes(corev1.SchemeGroupVersion,
		&corev1.Namespace{}, &corev1.Node{}, &corev1.Pod{}, &corev1.Service{}, &corev1.ServiceAccount{}, &corev1.ConfigMap{})
	s.AddKnownTypes(appsv1.SchemeGroupVersion, &appsv1.Deployment{}, &appsv1.StatefulSet{})
	s.AddKnownTypes(discoveryv1.SchemeGroupVersion, &discoveryv1.EndpointSlice{})
	s.AddKnownTypes(schema.GroupVersion(gatewayv1.GroupVersion),
		&gatewayv1.GatewayClass{}, &gatewayv1.Gateway{}, &gatewayv1.ListenerSet{}, &gatewayv1.HTTPRoute{},
		&gatewayv1.GRPCRoute{}, &gatewayv1.TLSRoute{}, &gatewayv1.TCPRoute{}, &gatewayv1.UDPRoute{},
		&gatewayv1.BackendTLSPolicy{}, &gatewayv1.ReferenceGrant{})
	s.AddKnownTypes(schema.GroupVersion(gatewayxv1alpha1.GroupVersion), &gatewayxv1alpha1.XBackendTrafficPolicy{}, &gatewayx.XTelemetryPolicy{})
	s.AddKnownTypes(meshv1alpha1.GroupVersion(), &meshv1alpha1.AuthorizationPolicy{}, &meshv1alpha1.PeerAuthentication{},
		&meshv1alpha1.RetryPolicy{}, &meshv1alpha1.TimeoutPolicy{}, &meshv1alpha1.FaultInjection{},
		&meshv1alpha1.RateLimitPolicy{}, &meshv1alpha1.LoadBalancingPolicy{}, &meshv1alpha1.CircuitBreakerPolicy{},
		&meshv1alpha1.OutlierDetectionPolicy{}, &meshv1alpha1.HealthCheckPolicy{}, &meshv1alpha1.SessionPersistencePolicy{},
		&meshv1alpha1.JWTAuthentication{}, &meshv1alpha1.ExternalAuthorizationPolicy{}, &meshv1alpha1.TracingPolicy{},
		&meshv1alpha1.ExternalService{})
	return s
}

// older are the versions that a kind of Gateway API had before v1. The CRDs of
// v1.6.3 name no conversion for those that are still served, so that an API server
// changes the apiVersion and nothing else. Objects of these versions are read as v1.
func older(kind string) []string {
	switch kind {
	case "Gateway", "GatewayClass", "HTTPRoute", "ReferenceGrant":
		return []string{"v1beta1"}
	case "GRPCRoute", "TCPRoute", "UDPRoute":
		return []string{"v1alpha2"}
	case "TLSRoute":
		return []string{"v1alpha2", "v1alpha3"}
	}
	return nil
}

// current gives the version under which an object is read.
func current(gvk schema.GroupVersionKind) schema.GroupVersionKind {
	if gvk.Group == gatewayv1.GroupName && slices.Contains(older(gvk.Kind), gvk.Version) {
		gvk.Version = gatewayv1.GroupVersion.Version
	}
	return gvk
}

// clusterScoped tells the kinds that have no namespace.
func clusterScoped(kind string) bool {
	return kind == "Namespace" || kind == "Node" || kind == "GatewayClass"
}

// listKind is unrolled and never becomes an object.
var listKind = schema.GroupVersionKind{Version: "v1", Kind: "List"}

// unknownKind says what could have been written instead of gvk.
func unknownKind(s *runtime.Scheme, gvk schema.GroupVersionKind) string {
	var versions, kinds []string
	for known := range s.AllKnownTypes() {
		kinds = append(kinds, known.Kind)
		if known.Kind == gvk.Kind {
			versions = append(versions, known.GroupVersion().String())
		}
	}
	slices.Sort(versions)
	slices.Sort(kinds)
	apiVersion, kind := gvk.ToAPIVersionAndKind()
	if len(versions) > 0 {
		return "kind " + quote(kind) + " is not known in apiVersion " + quote(apiVersion) +
			": write apiVersion: " + strings.Join(versions, " or ")
	}
	return "kind " + quote(kind) + " of apiVersion " + quote(apiVersion) +
		" is not one that the mesh reads: remove the document, or use one of " + strings.Join(slices.Compact(kinds), ", ")
}

var (
	_ Resource      = (*corev1.Pod)(nil)
	_ metav1.Object = Object{}
)
