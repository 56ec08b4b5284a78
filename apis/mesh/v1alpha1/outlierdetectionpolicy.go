package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// OutlierDetectionPolicy has a waypoint leave out endpoints of a Service that
// fail, for a while that grows each time. An endpoint fails when it cannot be
// connected to, breaks a connection, times out, or answers 500 or above
// (UNAVAILABLE, INTERNAL or UNKNOWN for gRPC).
//
// Of two policies with the very same target the older one decides, and the other
// one is not accepted, with reason Conflicted.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=ambit,shortName=outlier
// +kubebuilder:metadata:labels=gateway.networking.k8s.io/policy=Direct
// +kubebuilder:printcolumn:name="Failures",type=integer,JSONPath=`.spec.consecutiveFailures`
// +kubebuilder:printcolumn:name="Targets",type=string,JSONPath=`.spec.targetRefs[*].kind`
// +kubebuilder:printcolumn:name="Names",type=string,JSONPath=`.spec.targetRefs[*].name`,priority=1
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type OutlierDetectionPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	// +required
	Spec OutlierDetectionPolicySpec `json:"spec"`

	// Status is what became of it.
	// +optional
	Status PolicyStatus `json:"status,omitempty"`
}

// OutlierDetectionPolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type OutlierDetectionPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []OutlierDetectionPolicy `json:"items"`
}

// OutlierDetectionPolicySpec is what a policy wants.
//
// +kubebuilder:validation:XValidation:rule="!has(self.maxEjection) || !has(self.baseEjection) || duration(self.maxEjection) >= duration(self.baseEjection)",message="maxEjection must not be shorter than baseEjection",fieldPath=".maxEjection",reason=FieldValueInvalid
type OutlierDetectionPolicySpec struct {
	// TargetRefs are the Services that the policy is about, all in its own
	// namespace.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(t, self.exists_one(u, u.name == t.name))",message="a target may be named only once"
	TargetRefs []ServiceTargetReference `json:"targetRefs"`

	// ConsecutiveFailures after which an endpoint is left out.
	// +optional
	// +kubebuilder:default=5
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	ConsecutiveFailures *int32 `json:"consecutiveFailures,omitempty"`

	// BaseEjection is for how long an endpoint is left out the first time.
	// +optional
	// +kubebuilder:default="30s"
	BaseEjection *gatewayv1.Duration `json:"baseEjection,omitempty"`

	// MaxEjection is for how long it is left out at most.
	// +optional
	// +kubebuilder:default="5m"
	MaxEjection *gatewayv1.Duration `json:"maxEjection,omitempty"`

	// MaxEjectedPercent is how many of the endpoints are left out at most, and
	// never the last one.
	// +optional
	// +kubebuilder:default=50
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	MaxEjectedPercent *int32 `json:"maxEjectedPercent,omitempty"`
}

// PolicyKind gives the kind.
func (p *OutlierDetectionPolicy) PolicyKind() string { return KindOutlierDetectionPolicy }

// Targets gives what the policy is attached to.
func (p *OutlierDetectionPolicy) Targets() []TrafficTargetReference {
	return serviceTargets(p.Spec.TargetRefs)
}

// Backends gives the Services that the policy refers to.
func (p *OutlierDetectionPolicy) Backends() []gatewayv1.BackendObjectReference {
	return nil
}
