package status

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/ambit-mesh/ambit/apis/gatewayx"
	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/controlplane/provision"
)

// Kinds are all that have a status of the mesh's.
func Kinds() []schema.GroupKind {
	kinds := []schema.GroupKind{
		{Kind: "Service"},
		{Kind: "Namespace"},
		{Group: gatewayv1.GroupName, Kind: "GatewayClass"},
		{Group: gatewayv1.GroupName, Kind: "Gateway"},
		{Group: gatewayxv1alpha1.GroupName, Kind: "XMesh"},
		{Group: gatewayxv1alpha1.GroupName, Kind: graph.KindXBackendTrafficPolicy},
		{Group: gatewayx.GroupName, Kind: gatewayx.KindTelemetryPolicy},
	}
	for _, k := range []string{graph.KindHTTPRoute, graph.KindGRPCRoute, graph.KindTLSRoute, graph.KindTCPRoute, graph.KindUDPRoute, graph.KindBackendTLSPolicy} {
		kinds = append(kinds, schema.GroupKind{Group: gatewayv1.GroupName, Kind: k})
	}
	for _, k := range []string{
		meshv1alpha1.KindAuthorizationPolicy, meshv1alpha1.KindPeerAuthentication, meshv1alpha1.KindRetryPolicy, meshv1alpha1.KindTimeoutPolicy,
		meshv1alpha1.KindFaultInjection, meshv1alpha1.KindRateLimitPolicy, meshv1alpha1.KindLoadBalancingPolicy,
		meshv1alpha1.KindCircuitBreakerPolicy, meshv1alpha1.KindOutlierDetectionPolicy, meshv1alpha1.KindHealthCheckPolicy,
		meshv1alpha1.KindSessionPersistencePolicy, meshv1alpha1.KindJWTAuthentication, meshv1alpha1.KindExternalAuthorizationPolicy,
		meshv1alpha1.KindTracingPolicy, meshv1alpha1.KindExternalService,
	} {
		kinds = append(kinds, schema.GroupKind{Group: meshv1alpha1.GroupName, Kind: k})
	}
	return kinds
}

// Compiler is what a Source asks for statuses.
type Compiler interface {
	StatusOf(k graph.Key) (compile.ObjectStatus, bool)
	Waypoint(n types.NamespacedName) (compile.Waypoint, bool)
}

// Refusals tells what keeps a waypoint's objects from being made.
type Refusals interface {
	Refused(n types.NamespacedName) []provision.Problem
}

// FromCompiler gives a Source that says what a compiler says, and of a Gateway also why its
// objects could not be made.
func FromCompiler(c Compiler, r Refusals) Source { return source{c, r} }

type source struct {
	compiler Compiler
	refusals Refusals
}

func (s source) Wanted(k graph.Key, obj *unstructured.Unstructured) (Wanted, bool) {
	switch k.Group + "/" + k.Kind {
	case gatewayv1.GroupName + "/GatewayClass", gatewayxv1alpha1.GroupName + "/XMesh":
		return class(k, obj)
	}
	return s.Glance(k)
}

// class says that a GatewayClass or a mesh with the mesh's controllerName is
// accepted, and what it can do.
func class(k graph.Key, obj *unstructured.Unstructured) (Wanted, bool) {
	name, _, _ := unstructured.NestedString(obj.Object, "spec", "controllerName")
	if name != string(meshv1alpha1.ControllerName) {
		return Wanted{}, false
	}
	c := metav1.Condition{
		Type: string(gatewayv1.GatewayClassConditionStatusAccepted), Status: metav1.ConditionTrue, ObservedGeneration: obj.GetGeneration(),
		Reason: string(gatewayv1.GatewayClassReasonAccepted), Message: "the mesh is carried out by Ambit",
	}
	all := Features()
	w := Wanted{Conditions: []metav1.Condition{c}, Features: &all}
	if k.Kind == "GatewayClass" {
		w.Conditions[0].Message = "Gateways of the class are waypoints"
		if k.Name != graph.WaypointClass {
			w.Conditions[0].Status, w.Conditions[0].Reason = metav1.ConditionFalse, string(gatewayv1.GatewayClassReasonUnsupported)
			w.Conditions[0].Message = "the mesh has one class, " + graph.WaypointClass + ": nothing is made for Gateways of this one"
			w.Features = &[]gatewayv1.SupportedFeature{}
		}
	}
	if params, found, _ := unstructured.NestedMap(obj.Object, "spec", "parametersRef"); found && len(params) > 0 && w.Conditions[0].Status == metav1.ConditionTrue {
		w.Conditions[0].Status, w.Conditions[0].Reason = metav1.ConditionFalse, string(gatewayv1.GatewayClassReasonInvalidParameters)
		w.Conditions[0].Message = "spec.parametersRef is not read: give parameters to each Gateway, in spec.infrastructure.parametersRef"
	}
	return w, true
}

func (s source) Glance(k graph.Key) (Wanted, bool) {
	switch {
	case k.Kind == "GatewayClass" || k.Kind == "XMesh":
		return Wanted{}, false
	case k.Group == gatewayv1.GroupName && k.Kind == "Gateway":
		return s.gateway(k.NamespacedName())
	}
	have, _ := s.compiler.StatusOf(k)
	switch {
	case graph.IsRoute(k):
		parents := have.Parents
		return Wanted{Parents: &parents}, true
	case k.Group == "" && k.Kind == "Service":
		return Wanted{Conditions: have.Policy.Conditions, Types: []string{compile.ConditionWaypointBound}}, true
	case k.Group == "" && k.Kind == "Namespace":
		return Wanted{Conditions: have.Policy.Conditions, Types: []string{string(graph.ConditionWaypointBound)}}, true
	case k.Group == meshv1alpha1.GroupName && k.Kind == meshv1alpha1.KindExternalService:
		if have.External == nil {
			return Wanted{}, false
		}
		return Wanted{
			Conditions: have.External.Conditions, Types: []string{compile.ConditionWaypointBound}, External: &have.External.Addresses,
		}, true
	case k.Kind == graph.KindXBackendTrafficPolicy || k.Kind == graph.KindBackendTLSPolicy || k.Kind == gatewayx.KindTelemetryPolicy:
		return Wanted{Ancestors: &have.Policy.Ancestors}, true // it has no conditions of its own
	}
	return Wanted{Conditions: have.Policy.Conditions, Ancestors: &have.Policy.Ancestors}, true
}

func (s source) gateway(n types.NamespacedName) (Wanted, bool) {
	w, ok := s.compiler.Waypoint(n)
	if !ok || w.Implied {
		return Wanted{}, false
	}
	status := w.Status
	if refused := s.refusals.Refused(n); len(refused) > 0 {
		f := w.Facts
		f.Refused = refused
		status = provision.Status(w.Gateway, w.Verdict, f)
	}
	addresses, listeners := status.Addresses, status.Listeners
	return Wanted{Conditions: status.Conditions, Addresses: &addresses, Listeners: &listeners}, true
}
