package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// CircuitBreakerPolicy bounds what a waypoint has under way to all endpoints of
// a Service together. Beyond it requests are answered with 503 at once, so that
// a Service which is slow is not buried.
//
// Of two policies with the very same target the older one decides, and the other
// one is not accepted, with reason Conflicted.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=ambit,shortName=breaker
// +kubebuilder:metadata:labels=gateway.networking.k8s.io/policy=Direct
// +kubebuilder:printcolumn:name="Requests",type=integer,JSONPath=`.spec.maxRequests`
// +kubebuilder:printcolumn:name="Targets",type=string,JSONPath=`.spec.targetRefs[*].kind`
// +kubebuilder:printcolumn:name="Names",type=string,JSONPath=`.spec.targetRefs[*].name`,priority=1
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type CircuitBreakerPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	// +required
	Spec CircuitBreakerPolicySpec `json:"spec"`

	// Status is what became of it.
	// +optional
	Status PolicyStatus `json:"status,omitempty"`
}

// CircuitBreakerPolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type CircuitBreakerPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []CircuitBreakerPolicy `json:"items"`
}

// CircuitBreakerPolicySpec is what a policy wants. A bound that is left out is
// the waypoint's default.
//
// +kubebuilder:validation:XValidation:rule="has(self.maxRequests) || has(self.maxPendingRequests) || has(self.maxConnections) || has(self.maxRetries)",message="needs maxRequests, maxPendingRequests, maxConnections or maxRetries; without any it would do nothing"
type CircuitBreakerPolicySpec struct {
	// TargetRefs are the Services that the policy is about, all in its own
	// namespace.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(t, self.exists_one(u, u.name == t.name))",message="a target may be named only once"
	TargetRefs []ServiceTargetReference `json:"targetRefs"`

	// MaxRequests that are under way.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxRequests *int32 `json:"maxRequests,omitempty"`

	// MaxPendingRequests that wait for a connection.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxPendingRequests *int32 `json:"maxPendingRequests,omitempty"`

	// MaxConnections that are open.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxConnections *int32 `json:"maxConnections,omitempty"`

	// MaxRetries that are under way.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxRetries *int32 `json:"maxRetries,omitempty"`
}

// PolicyKind gives the kind.
func (p *CircuitBreakerPolicy) PolicyKind() string { return KindCircuitBreakerPolicy }

// Targets gives what the policy is attached to.
func (p *CircuitBreakerPolicy) Targets() []TrafficTargetReference {
	return serviceTargets(p.Spec.TargetRefs)
}

// Backends gives the Services that the policy refers to.
func (p *CircuitBreakerPolicy) Backends() []gatewayv1.BackendObjectReference {
	return nil
}
