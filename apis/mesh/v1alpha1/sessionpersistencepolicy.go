package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// SessionPersistencePolicy keeps a client with the backend and the endpoint that
// answered it first, so that a user stays on a version while traffic is split.
// It is for clusters whose routes do not have the experimental field
// sessionPersistence, and can be set for a whole Service.
//
// The policy of the most specific target decides, whole: that of the rule, of
// the route, of the port of the Service, of the Service. Of two with the very
// same target the older one decides, and the other one is not accepted, with
// reason Conflicted. What a route says itself in the field sessionPersistence of
// a rule comes before any policy.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=ambit,shortName=session
// +kubebuilder:metadata:labels=gateway.networking.k8s.io/policy=Inherited
// +kubebuilder:printcolumn:name="Type",type=string,JSONPath=`.spec.type`
// +kubebuilder:printcolumn:name="Targets",type=string,JSONPath=`.spec.targetRefs[*].kind`
// +kubebuilder:printcolumn:name="Names",type=string,JSONPath=`.spec.targetRefs[*].name`,priority=1
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type SessionPersistencePolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	// +required
	Spec SessionPersistencePolicySpec `json:"spec"`

	// Status is what became of it.
	// +optional
	Status PolicyStatus `json:"status,omitempty"`
}

// SessionPersistencePolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type SessionPersistencePolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []SessionPersistencePolicy `json:"items"`
}

// SessionPersistencePolicySpec is what a policy wants.
//
// +kubebuilder:validation:XValidation:rule="!has(self.cookie) || !has(self.type) || self.type == 'Cookie'",message="cookie may be set only when type is Cookie",fieldPath=".cookie",reason=FieldValueInvalid
// +kubebuilder:validation:XValidation:rule="!has(self.cookie) || !has(self.cookie.lifetime) || self.cookie.lifetime != 'Permanent' || has(self.absoluteTimeout)",message="a Permanent cookie needs absoluteTimeout: it is how long the cookie lives",fieldPath=".absoluteTimeout",reason=FieldValueRequired
type SessionPersistencePolicySpec struct {
	// TargetRefs are the Services, ports of Services, routes and rules that
	// the policy is about, all in its own namespace.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(t, self.exists_one(u, u.kind == t.kind && u.name == t.name && has(u.sectionName) == has(t.sectionName) && (!has(t.sectionName) || u.sectionName == t.sectionName)))",message="a target may be named only once"
	TargetRefs []TrafficTargetReference `json:"targetRefs"`

	// Type says how a session is known again.
	// +optional
	// +kubebuilder:default=Cookie
	// +kubebuilder:validation:Enum=Cookie;Header
	Type gatewayv1.SessionPersistenceType `json:"type,omitempty"`

	// SessionName is the name of the cookie or header; made of the policy's name
	// when left out.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9!#$%&'*+\-.^_|~]+$`
	SessionName *string `json:"sessionName,omitempty"`

	// AbsoluteTimeout is after how long a session ends.
	// +optional
	AbsoluteTimeout *gatewayv1.Duration `json:"absoluteTimeout,omitempty"`

	// IdleTimeout is after how long a session ends in which nothing was asked.
	// +optional
	IdleTimeout *gatewayv1.Duration `json:"idleTimeout,omitempty"`

	// Cookie is what the cookie is like.
	// +optional
	Cookie *SessionCookie `json:"cookie,omitempty"`
}

// SessionCookie is a cookie.
type SessionCookie struct {
	// Lifetime says whether the cookie ends with the client's session (Session)
	// or with absoluteTimeout (Permanent).
	// +optional
	// +kubebuilder:default=Session
	// +kubebuilder:validation:Enum=Session;Permanent
	Lifetime gatewayv1.CookieLifetimeType `json:"lifetime,omitempty"`
}

// PolicyKind gives the kind.
func (p *SessionPersistencePolicy) PolicyKind() string { return KindSessionPersistencePolicy }

// Targets gives what the policy is attached to.
func (p *SessionPersistencePolicy) Targets() []TrafficTargetReference {
	return p.Spec.TargetRefs
}

// Backends gives the Services that the policy refers to.
func (p *SessionPersistencePolicy) Backends() []gatewayv1.BackendObjectReference {
	return nil
}
