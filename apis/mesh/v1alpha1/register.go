package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of the mesh.
const GroupName = "ambit-mesh.io"

// Version is the version that this package holds.
const Version = "v1alpha1"

// Kinds of the group.
const (
	KindAuthorizationPolicy = "AuthorizationPolicy"
	KindPeerAuthentication  = "PeerAuthentication"

	KindRetryPolicy                 = "RetryPolicy"
	KindTimeoutPolicy               = "TimeoutPolicy"
	KindFaultInjection              = "FaultInjection"
	KindRateLimitPolicy             = "RateLimitPolicy"
	KindLoadBalancingPolicy         = "LoadBalancingPolicy"
	KindCircuitBreakerPolicy        = "CircuitBreakerPolicy"
	KindOutlierDetectionPolicy      = "OutlierDetectionPolicy"
	KindHealthCheckPolicy           = "HealthCheckPolicy"
	KindSessionPersistencePolicy    = "SessionPersistencePolicy"
	KindJWTAuthentication           = "JWTAuthentication"
	KindExternalAuthorizationPolicy = "ExternalAuthorizationPolicy"
	KindTracingPolicy               = "TracingPolicy"
)

// GroupVersion gives group and version of every kind in this package.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: GroupName, Version: Version}
}

// AddToScheme registers the kinds of this package. It has the form that a
// runtime.SchemeBuilder takes.
func AddToScheme(scheme *runtime.Scheme) error {
	gv := GroupVersion()
	scheme.AddKnownTypes(gv,
		&AuthorizationPolicy{}, &AuthorizationPolicyList{},
		&PeerAuthentication{}, &PeerAuthenticationList{},
		&RetryPolicy{}, &RetryPolicyList{},
		&TimeoutPolicy{}, &TimeoutPolicyList{},
		&FaultInjection{}, &FaultInjectionList{},
		&RateLimitPolicy{}, &RateLimitPolicyList{},
		&LoadBalancingPolicy{}, &LoadBalancingPolicyList{},
		&CircuitBreakerPolicy{}, &CircuitBreakerPolicyList{},
		&OutlierDetectionPolicy{}, &OutlierDetectionPolicyList{},
		&HealthCheckPolicy{}, &HealthCheckPolicyList{},
		&SessionPersistencePolicy{}, &SessionPersistencePolicyList{},
		&JWTAuthentication{}, &JWTAuthenticationList{},
		&ExternalAuthorizationPolicy{}, &ExternalAuthorizationPolicyList{},
		&TracingPolicy{}, &TracingPolicyList{},
		&ExternalService{}, &ExternalServiceList{},
	)
	metav1.AddToGroupVersion(scheme, gv)
	return nil
}
