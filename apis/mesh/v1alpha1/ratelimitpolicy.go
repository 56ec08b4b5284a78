package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// RateLimitPolicy bounds how many requests are let through. Those beyond it are
// answered with 429 (RESOURCE_EXHAUSTED for gRPC) and told when to come back
// (Retry-After, RateLimit).
//
// A limit of a Service counts the requests that clients address to it and those
// that routes of other Services send to it as one of their backends, so that a
// limit can be set for one version. Limits of the Service, of its port, of the
// route and of the rule hold side by side: a request must be within each of
// them. Of two policies with the very same target the older one decides, and the
// other one is not accepted, with reason Conflicted.
//
// A policy that is refused as Invalid lets nothing through where it is attached.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=ambit,shortName=ratelimit
// +kubebuilder:metadata:labels=gateway.networking.k8s.io/policy=Inherited
// +kubebuilder:printcolumn:name="Targets",type=string,JSONPath=`.spec.targetRefs[*].kind`
// +kubebuilder:printcolumn:name="Names",type=string,JSONPath=`.spec.targetRefs[*].name`,priority=1
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type RateLimitPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	// +required
	Spec RateLimitPolicySpec `json:"spec"`

	// Status is what became of it.
	// +optional
	Status PolicyStatus `json:"status,omitempty"`
}

// RateLimitPolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type RateLimitPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []RateLimitPolicy `json:"items"`
}

// RateLimitPolicySpec is what a policy wants.
type RateLimitPolicySpec struct {
	// TargetRefs are the Services, ports of Services, routes and rules that
	// the policy is about, all in its own namespace.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(t, self.exists_one(u, u.kind == t.kind && u.name == t.name && has(u.sectionName) == has(t.sectionName) && (!has(t.sectionName) || u.sectionName == t.sectionName)))",message="a target may be named only once"
	TargetRefs []TrafficTargetReference `json:"targetRefs"`

	// Rules are limits; a request must be within each that matches it.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(r, !has(r.name) || self.exists_one(s, has(s.name) && s.name == r.name))",message="rule names must be unique in the policy"
	Rules []RateLimitRule `json:"rules"`
}

// RateLimitRule is a limit and the requests that it counts: those that come from
// one of sources, match one of matches and go to one of backends.
type RateLimitRule struct {
	TrafficSelector `json:",inline"`

	// Key says which requests are counted together: those that agree in all of
	// it. Without a key all are.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=4
	Key []RateLimitKey `json:"key,omitempty"`

	// Requests that are let through in a unit of time.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000000
	Requests int32 `json:"requests"`

	// Unit of time.
	// +optional
	// +kubebuilder:default=Second
	Unit RateLimitUnit `json:"unit,omitempty"`

	// Burst is how many requests may come at once after a pause; as many as
	// requests when left out.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000000
	Burst *int32 `json:"burst,omitempty"`

	// Global has all waypoints count together, at a service that speaks
	// envoy.service.ratelimit.v3. Without it each waypoint counts for itself.
	// +optional
	Global *RateLimitGlobal `json:"global,omitempty"`
}

// RateLimitUnit is a unit of time.
//
// +kubebuilder:validation:Enum=Second;Minute;Hour;Day
type RateLimitUnit string

// Units.
const (
	UnitSecond RateLimitUnit = "Second"
	UnitMinute RateLimitUnit = "Minute"
	UnitHour   RateLimitUnit = "Hour"
	UnitDay    RateLimitUnit = "Day"
)

// RateLimitKeyType is a property of a request.
//
// +kubebuilder:validation:Enum=Identity;Namespace;Header;Path;Address
type RateLimitKeyType string

// Properties of a request.
const (
	// KeyIdentity is the identity of the client.
	KeyIdentity RateLimitKeyType = "Identity"
	// KeyNamespace is the namespace of the client.
	KeyNamespace RateLimitKeyType = "Namespace"
	// KeyHeader is the value of a header.
	KeyHeader RateLimitKeyType = "Header"
	// KeyPath is the path, without query.
	KeyPath RateLimitKeyType = "Path"
	// KeyAddress is the address of the client.
	KeyAddress RateLimitKeyType = "Address"
)

// RateLimitKey is one property by which requests are told apart.
//
// +kubebuilder:validation:XValidation:rule="has(self.header) == (self.type == 'Header')",message="header must be set exactly when type is Header",fieldPath=".header",reason=FieldValueInvalid
type RateLimitKey struct {
	// Type of the property.
	// +unionDiscriminator
	// +required
	Type RateLimitKeyType `json:"type"`

	// Header is the name of the header.
	// +optional
	Header *gatewayv1.HTTPHeaderName `json:"header,omitempty"`
}

// RateLimitGlobal is a service that counts for the whole mesh.
type RateLimitGlobal struct {
	// BackendRef is the service, a Service of any namespace and its port.
	// +required
	BackendRef gatewayv1.BackendObjectReference `json:"backendRef"`

	// Domain that the service is asked about; <namespace>/<name> of the policy
	// when left out.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Domain string `json:"domain,omitempty"`

	// Timeout of a question.
	// +optional
	// +kubebuilder:default="100ms"
	Timeout *gatewayv1.Duration `json:"timeout,omitempty"`

	// FailOpen lets requests through while the service cannot be asked. They are
	// refused otherwise.
	// +optional
	FailOpen bool `json:"failOpen,omitempty"`
}

// PolicyKind gives the kind.
func (p *RateLimitPolicy) PolicyKind() string { return KindRateLimitPolicy }

// Targets gives what the policy is attached to.
func (p *RateLimitPolicy) Targets() []TrafficTargetReference {
	return p.Spec.TargetRefs
}

// Backends gives the Services that the policy refers to.
func (p *RateLimitPolicy) Backends() []gatewayv1.BackendObjectReference {
	var out []gatewayv1.BackendObjectReference
	for i := range p.Spec.Rules {
		rule := &p.Spec.Rules[i]
		out = append(out, rule.backends()...)
		if rule.Global != nil {
			out = append(out, rule.Global.BackendRef)
		}
	}
	return out
}
