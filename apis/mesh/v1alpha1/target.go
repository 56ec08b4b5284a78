package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// TrafficPolicy is a policy about the requests to a Service, which a waypoint
// carries out.
//
// +kubebuilder:object:generate=false
type TrafficPolicy interface {
	runtime.Object
	metav1.Object
	// PolicyKind gives the kind, which objects from informers do not carry.
	PolicyKind() string
	// Targets gives what the policy is attached to.
	Targets() []TrafficTargetReference
	// Backends gives the Services that the policy refers to.
	Backends() []gatewayv1.BackendObjectReference
}

// Kinds that a traffic policy may target beside TargetService; both are of the
// group gateway.networking.k8s.io.
const (
	TargetHTTPRoute gatewayv1.Kind = "HTTPRoute"
	TargetGRPCRoute gatewayv1.Kind = "GRPCRoute"
)

// TrafficTargetReference names a Service or an ExternalService or one of its ports,
// or a route or one of its rules.
//
// +kubebuilder:validation:XValidation:rule="self.kind == 'Service' ? (size(self.group) == 0 || self.group == 'core') : self.kind == 'ExternalService' ? self.group == 'ambit-mesh.io' : self.group == 'gateway.networking.k8s.io'",message="group is \"\" for a Service, ambit-mesh.io for an ExternalService and gateway.networking.k8s.io for a route",fieldPath=".group",reason=FieldValueInvalid
type TrafficTargetReference struct {
	// Group of the target: "" for a Service, ambit-mesh.io for an ExternalService,
	// gateway.networking.k8s.io for a route.
	// +optional
	// +kubebuilder:default=""
	// +kubebuilder:validation:Enum="";core;ambit-mesh.io;gateway.networking.k8s.io
	Group gatewayv1.Group `json:"group"`

	// Kind of the target.
	// +required
	// +kubebuilder:validation:Enum=Service;ExternalService;HTTPRoute;GRPCRoute
	Kind gatewayv1.Kind `json:"kind"`

	// Name of the target, in the namespace of the policy.
	// +required
	Name gatewayv1.ObjectName `json:"name"`

	// SectionName is a part of the target: the name of a port of the
	// Service or ExternalService, or of a rule of the route. Without it the policy is about all of the target.
	// +optional
	SectionName *gatewayv1.SectionName `json:"sectionName,omitempty"`
}

// ServiceTargetReference names a Service.
type ServiceTargetReference struct {
	// Group of the target; all targets are of the core group.
	// +optional
	// +kubebuilder:default=""
	// +kubebuilder:validation:Enum="";core
	Group gatewayv1.Group `json:"group"`

	// Kind of the target.
	// +required
	// +kubebuilder:validation:Enum=Service
	Kind gatewayv1.Kind `json:"kind"`

	// Name of the Service, in the namespace of the policy.
	// +required
	Name gatewayv1.ObjectName `json:"name"`
}

// serviceTargets gives references in their general form.
func serviceTargets(refs []ServiceTargetReference) []TrafficTargetReference {
	out := make([]TrafficTargetReference, 0, len(refs))
	for _, r := range refs {
		out = append(out, TrafficTargetReference{Group: r.Group, Kind: r.Kind, Name: r.Name})
	}
	return out
}

var (
	_ TrafficPolicy = (*RetryPolicy)(nil)
	_ TrafficPolicy = (*TimeoutPolicy)(nil)
	_ TrafficPolicy = (*FaultInjection)(nil)
	_ TrafficPolicy = (*RateLimitPolicy)(nil)
	_ TrafficPolicy = (*LoadBalancingPolicy)(nil)
	_ TrafficPolicy = (*CircuitBreakerPolicy)(nil)
	_ TrafficPolicy = (*OutlierDetectionPolicy)(nil)
	_ TrafficPolicy = (*HealthCheckPolicy)(nil)
	_ TrafficPolicy = (*SessionPersistencePolicy)(nil)
	_ TrafficPolicy = (*JWTAuthentication)(nil)
	_ TrafficPolicy = (*ExternalAuthorizationPolicy)(nil)
	_ TrafficPolicy = (*TracingPolicy)(nil)
)
