package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// TimeoutPolicy says how long a waypoint waits. A timeout of 0s is turned off;
// one that is left out is the waypoint's default.
//
// The policy of the most specific target decides, whole: that of the rule, of
// the route, of the port of the Service, of the Service. Of two with the very
// same target the older one decides, and the other one is not accepted, with
// reason Conflicted. What an HTTPRoute says itself in the field timeouts of a
// rule comes before any policy, for each of the two timeouts by itself.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=ambit,shortName=timeout
// +kubebuilder:metadata:labels=gateway.networking.k8s.io/policy=Inherited
// +kubebuilder:printcolumn:name="Request",type=string,JSONPath=`.spec.request`
// +kubebuilder:printcolumn:name="Targets",type=string,JSONPath=`.spec.targetRefs[*].kind`
// +kubebuilder:printcolumn:name="Names",type=string,JSONPath=`.spec.targetRefs[*].name`,priority=1
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type TimeoutPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	// +required
	Spec TimeoutPolicySpec `json:"spec"`

	// Status is what became of it.
	// +optional
	Status PolicyStatus `json:"status,omitempty"`
}

// TimeoutPolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type TimeoutPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TimeoutPolicy `json:"items"`
}

// TimeoutPolicySpec is what a policy wants.
//
// +kubebuilder:validation:XValidation:rule="has(self.request) || has(self.backendRequest) || has(self.idle) || has(self.connect)",message="needs request, backendRequest, idle or connect; without any it would do nothing"
// +kubebuilder:validation:XValidation:rule="!(has(self.request) && has(self.backendRequest)) || duration(self.request) == duration('0s') || duration(self.backendRequest) <= duration(self.request)",message="backendRequest must not be longer than request, which it is a part of",fieldPath=".backendRequest",reason=FieldValueInvalid
type TimeoutPolicySpec struct {
	// TargetRefs are the Services, ports of Services, routes and rules that
	// the policy is about, all in its own namespace.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(t, self.exists_one(u, u.kind == t.kind && u.name == t.name && has(u.sectionName) == has(t.sectionName) && (!has(t.sectionName) || u.sectionName == t.sectionName)))",message="a target may be named only once"
	TargetRefs []TrafficTargetReference `json:"targetRefs"`

	// Request bounds a request from its beginning to the end of its response,
	// retries included.
	// +optional
	Request *gatewayv1.Duration `json:"request,omitempty"`

	// BackendRequest bounds each try of a request to a backend.
	// +optional
	BackendRequest *gatewayv1.Duration `json:"backendRequest,omitempty"`

	// Idle is after how long a request or connection ends on which neither side
	// has sent anything.
	// +optional
	Idle *gatewayv1.Duration `json:"idle,omitempty"`

	// Connect bounds the establishment of a connection to an endpoint.
	// +optional
	Connect *gatewayv1.Duration `json:"connect,omitempty"`
}

// PolicyKind gives the kind.
func (p *TimeoutPolicy) PolicyKind() string { return KindTimeoutPolicy }

// Targets gives what the policy is attached to.
func (p *TimeoutPolicy) Targets() []TrafficTargetReference {
	return p.Spec.TargetRefs
}

// Backends gives the Services that the policy refers to.
func (p *TimeoutPolicy) Backends() []gatewayv1.BackendObjectReference {
	return nil
}
