package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// RetryPolicy says when a waypoint sends a request again that has failed.
//
// The policy of the most specific target decides, whole: that of the rule, of
// the route, of the port of the Service, of the Service. Of two with the very
// same target the older one decides, and the other one is not accepted, with
// reason Conflicted. What an HTTPRoute says itself in the field retry of a rule
// comes before any policy.
//
// A request is sent again only if that is safe: when it has not reached the
// application (ConnectFailure, RefusedStream), or when its method is idempotent
// (RFC 9110, section 9.2.2), or with unsafeMethods. Retries end with the timeout
// of the request, and are bounded by the retry budget of an
// XBackendTrafficPolicy where there is one.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=ambit,shortName=retry
// +kubebuilder:metadata:labels=gateway.networking.k8s.io/policy=Inherited
// +kubebuilder:printcolumn:name="Attempts",type=integer,JSONPath=`.spec.attempts`
// +kubebuilder:printcolumn:name="Targets",type=string,JSONPath=`.spec.targetRefs[*].kind`
// +kubebuilder:printcolumn:name="Names",type=string,JSONPath=`.spec.targetRefs[*].name`,priority=1
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type RetryPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	// +required
	Spec RetryPolicySpec `json:"spec"`

	// Status is what became of it.
	// +optional
	Status PolicyStatus `json:"status,omitempty"`
}

// RetryPolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type RetryPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []RetryPolicy `json:"items"`
}

// RetryPolicySpec is what a policy wants.
//
// +kubebuilder:validation:XValidation:rule="!has(self.backoff) || !has(self.backoff.max) || !has(self.backoff.base) || duration(self.backoff.max) >= duration(self.backoff.base)",message="max must not be shorter than base",fieldPath=".backoff",reason=FieldValueInvalid
type RetryPolicySpec struct {
	// TargetRefs are the Services, ports of Services, routes and rules that
	// the policy is about, all in its own namespace.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(t, self.exists_one(u, u.kind == t.kind && u.name == t.name && has(u.sectionName) == has(t.sectionName) && (!has(t.sectionName) || u.sectionName == t.sectionName)))",message="a target may be named only once"
	TargetRefs []TrafficTargetReference `json:"targetRefs"`

	// Attempts is how often a request is sent again, beside the first time; 0
	// turns off the retries that a less specific policy would bring.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10
	Attempts *int32 `json:"attempts,omitempty"`

	// RetryOn are the failures after which a request is sent again. An empty list is
	// for none; codes and grpcCodes are added in any case.
	// +optional
	// +listType=set
	// +kubebuilder:default={ConnectFailure,RefusedStream}
	// +kubebuilder:validation:MaxItems=4
	RetryOn []RetryFailure `json:"retryOn,omitzero"`

	// Codes are HTTP status codes after which a request is sent again.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:Minimum=400
	// +kubebuilder:validation:items:Maximum=599
	Codes []int32 `json:"codes,omitempty"`

	// GRPCCodes are gRPC status codes after which a call is made again, as long
	// as nothing but the status was answered.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	GRPCCodes []GRPCCode `json:"grpcCodes,omitempty"`

	// Backoff is how long to wait before a request is sent again. The wait
	// doubles each time, with jitter.
	// +optional
	Backoff *RetryBackoff `json:"backoff,omitempty"`

	// PerTryTimeout bounds each try, until the beginning of its response.
	// +optional
	PerTryTimeout *gatewayv1.Duration `json:"perTryTimeout,omitempty"`

	// MaxBodyBytes is how much of a body is kept to be sent again. A request with
	// a longer one is sent once.
	// +optional
	// +kubebuilder:default=65536
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=8388608
	MaxBodyBytes *int32 `json:"maxBodyBytes,omitempty"`

	// UnsafeMethods lets requests whose method is not idempotent, such as POST,
	// be sent again although they may have been processed.
	// +optional
	UnsafeMethods bool `json:"unsafeMethods,omitempty"`
}

// RetryFailure is a way to fail.
//
// +kubebuilder:validation:Enum=ConnectFailure;RefusedStream;Reset;Timeout
type RetryFailure string

// Ways to fail.
const (
	// RetryConnectFailure: no connection could be established.
	RetryConnectFailure RetryFailure = "ConnectFailure"
	// RetryRefusedStream: the endpoint says that it has not processed the request.
	RetryRefusedStream RetryFailure = "RefusedStream"
	// RetryReset: the connection broke before the response had begun.
	RetryReset RetryFailure = "Reset"
	// RetryTimeout: the try took longer than perTryTimeout, or than the timeout
	// of requests to backends.
	RetryTimeout RetryFailure = "Timeout"
)

// GRPCCode is the name of a gRPC status code other than OK.
//
// +kubebuilder:validation:Enum=CANCELLED;UNKNOWN;INVALID_ARGUMENT;DEADLINE_EXCEEDED;NOT_FOUND;ALREADY_EXISTS;PERMISSION_DENIED;RESOURCE_EXHAUSTED;FAILED_PRECONDITION;ABORTED;OUT_OF_RANGE;UNIMPLEMENTED;INTERNAL;UNAVAILABLE;DATA_LOSS;UNAUTHENTICATED
type GRPCCode string

// RetryBackoff is how long to wait.
type RetryBackoff struct {
	// Base is the first wait, before jitter.
	// +optional
	// +kubebuilder:default="25ms"
	Base *gatewayv1.Duration `json:"base,omitempty"`

	// Max is the longest wait; ten times base when left out.
	// +optional
	Max *gatewayv1.Duration `json:"max,omitempty"`
}

// PolicyKind gives the kind.
func (p *RetryPolicy) PolicyKind() string { return KindRetryPolicy }

// Targets gives what the policy is attached to.
func (p *RetryPolicy) Targets() []TrafficTargetReference {
	return p.Spec.TargetRefs
}

// Backends gives the Services that the policy refers to.
func (p *RetryPolicy) Backends() []gatewayv1.BackendObjectReference {
	return nil
}
