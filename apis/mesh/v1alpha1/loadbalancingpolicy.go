package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// LoadBalancingPolicy says how a waypoint chooses among the endpoints of a
// Service. Without a policy it takes the less busy of two drawn at random,
// weighed by how fast they have answered.
//
// Of two policies with the very same target the older one decides, and the other
// one is not accepted, with reason Conflicted.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=ambit,shortName=lb
// +kubebuilder:metadata:labels=gateway.networking.k8s.io/policy=Direct
// +kubebuilder:printcolumn:name="Algorithm",type=string,JSONPath=`.spec.algorithm`
// +kubebuilder:printcolumn:name="Targets",type=string,JSONPath=`.spec.targetRefs[*].kind`
// +kubebuilder:printcolumn:name="Names",type=string,JSONPath=`.spec.targetRefs[*].name`,priority=1
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type LoadBalancingPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	// +required
	Spec LoadBalancingPolicySpec `json:"spec"`

	// Status is what became of it.
	// +optional
	Status PolicyStatus `json:"status,omitempty"`
}

// LoadBalancingPolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type LoadBalancingPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []LoadBalancingPolicy `json:"items"`
}

// LoadBalancingPolicySpec is what a policy wants.
//
// +kubebuilder:validation:XValidation:rule="has(self.hashOn) == (has(self.algorithm) && self.algorithm in ['RingHash', 'Maglev'])",message="hashOn must be set exactly when algorithm is RingHash or Maglev",fieldPath=".hashOn",reason=FieldValueInvalid
type LoadBalancingPolicySpec struct {
	// TargetRefs are the Services that the policy is about, all in its own
	// namespace.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(t, self.exists_one(u, u.name == t.name))",message="a target may be named only once"
	TargetRefs []ServiceTargetReference `json:"targetRefs"`

	// Algorithm by which an endpoint is chosen.
	// +optional
	// +kubebuilder:default=LeastRequest
	Algorithm LoadBalancingAlgorithm `json:"algorithm,omitempty"`

	// HashOn says which requests go to the same endpoint.
	// +optional
	HashOn *LoadBalancingHash `json:"hashOn,omitempty"`

	// SlowStart is for how long an endpoint that is new gets a growing share, from
	// a tenth of it on. What goes by a hash is not held back.
	// +optional
	SlowStart *gatewayv1.Duration `json:"slowStart,omitempty"`
}

// LoadBalancingAlgorithm is a way to choose an endpoint.
//
// +kubebuilder:validation:Enum=LeastRequest;RoundRobin;Random;RingHash;Maglev
type LoadBalancingAlgorithm string

// Ways to choose an endpoint.
const (
	LeastRequest LoadBalancingAlgorithm = "LeastRequest"
	RoundRobin   LoadBalancingAlgorithm = "RoundRobin"
	Random       LoadBalancingAlgorithm = "Random"
	RingHash     LoadBalancingAlgorithm = "RingHash"
	Maglev       LoadBalancingAlgorithm = "Maglev"
)

// LoadBalancingHash is what a hash is taken of.
//
// +kubebuilder:validation:XValidation:rule="has(self.header) == (self.type == 'Header')",message="header must be set exactly when type is Header",fieldPath=".header",reason=FieldValueInvalid
// +kubebuilder:validation:XValidation:rule="has(self.cookie) == (self.type == 'Cookie')",message="cookie must be set exactly when type is Cookie",fieldPath=".cookie",reason=FieldValueInvalid
type LoadBalancingHash struct {
	// Type says what the hash is taken of.
	// +unionDiscriminator
	// +required
	// +kubebuilder:validation:Enum=Header;Cookie;Address
	Type LoadBalancingHashType `json:"type"`

	// Header is the name of a header.
	// +optional
	Header *gatewayv1.HTTPHeaderName `json:"header,omitempty"`

	// Cookie is a cookie.
	// +optional
	Cookie *LoadBalancingCookie `json:"cookie,omitempty"`
}

// LoadBalancingHashType is a property of a request.
type LoadBalancingHashType string

// Properties of a request.
const (
	HashHeader  LoadBalancingHashType = "Header"
	HashCookie  LoadBalancingHashType = "Cookie"
	HashAddress LoadBalancingHashType = "Address"
)

// LoadBalancingCookie is a cookie that a client has, or is given.
type LoadBalancingCookie struct {
	// Name of the cookie.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9!#$%&'*+\-.^_|~]+$`
	Name string `json:"name"`

	// TTL is for how long the cookie is set for a client that does not have it.
	// Without it none is set, and such requests go anywhere.
	// +optional
	TTL *gatewayv1.Duration `json:"ttl,omitempty"`
}

// PolicyKind gives the kind.
func (p *LoadBalancingPolicy) PolicyKind() string { return KindLoadBalancingPolicy }

// Targets gives what the policy is attached to.
func (p *LoadBalancingPolicy) Targets() []TrafficTargetReference {
	return serviceTargets(p.Spec.TargetRefs)
}

// Backends gives the Services that the policy refers to.
func (p *LoadBalancingPolicy) Backends() []gatewayv1.BackendObjectReference {
	return nil
}
