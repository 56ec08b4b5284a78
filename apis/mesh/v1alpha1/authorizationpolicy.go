package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// AuthorizationPolicy says who may open connections to the workloads that it
// targets.
//
// Of all policies that target a workload: a connection that matches a rule of a
// DENY policy is refused. Otherwise, if there is no ALLOW policy, it is let in;
// if there are some, it is let in when a rule of one of them matches, and
// refused when none does. AUDIT policies change nothing; a match is recorded.
//
// A policy that cannot be enforced as written is refused as a whole: its
// condition Accepted is False and says which field is the reason. Until that is
// put right nothing is opened that the policy may have been meant to close: a
// refused ALLOW policy allows nothing, a refused DENY policy denies everything
// towards its targets, and each connection that fails for that reason is told
// the policy's name. Connections that another ALLOW policy lets in are not
// affected by a refused ALLOW policy. A refused AUDIT policy has no effect.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=ambit,shortName=authz;authzpolicy
// +kubebuilder:metadata:labels=gateway.networking.k8s.io/policy=Inherited
// +kubebuilder:printcolumn:name="Action",type=string,JSONPath=`.spec.action`
// +kubebuilder:printcolumn:name="Targets",type=string,JSONPath=`.spec.targetRefs[*].kind`
// +kubebuilder:printcolumn:name="Names",type=string,JSONPath=`.spec.targetRefs[*].name`,priority=1
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type AuthorizationPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	// +required
	Spec AuthorizationPolicySpec `json:"spec"`

	// Status is what became of it.
	// +optional
	Status PolicyStatus `json:"status,omitempty"`
}

// AuthorizationPolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type AuthorizationPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AuthorizationPolicy `json:"items"`
}

// AuthorizationPolicySpec is what a policy wants.
//
// +kubebuilder:validation:XValidation:rule="self.action == 'ALLOW' || (has(self.rules) && size(self.rules) > 0)",message="a DENY or AUDIT policy needs at least one rule; without rules it would do nothing",fieldPath=".rules",reason=FieldValueRequired
// +kubebuilder:validation:XValidation:rule="self.enforcementLevel == 'Application' || !has(self.rules) || self.rules.all(r, !has(r.application))",message="application attributes need enforcementLevel: Application and a waypoint",fieldPath=".enforcementLevel",reason=FieldValueInvalid
type AuthorizationPolicySpec struct {
	// TargetRefs are the destinations that the policy is about: one Pod
	// reference with a selector, or one Namespace, or up to 16 Services and
	// ExternalServices, all in the namespace of the policy.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(t, t.kind in ['Service', 'ExternalService']) || size(self) == 1",message="a Pod or a Namespace must be the only target; use one policy each"
	// +kubebuilder:validation:XValidation:rule="self.all(t, self.exists_one(u, u.kind == t.kind && has(u.name) == has(t.name) && (!has(t.name) || u.name == t.name)))",message="a target may be named only once"
	TargetRefs []AuthorizationPolicyTargetReference `json:"targetRefs"`

	// Action says what happens to a connection that matches a rule.
	// +required
	Action AuthorizationPolicyAction `json:"action"`

	// Rules are alternatives: the action applies when one of them matches. An
	// ALLOW policy without rules lets nothing in.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:XValidation:rule="self.all(r, !has(r.name) || self.exists_one(s, has(s.name) && s.name == r.name))",message="rule names must be unique in the policy"
	Rules []AuthorizationRule `json:"rules,omitempty"`

	// EnforcementLevel says where the policy is enforced and with that which
	// attributes its rules may use. Network: by the destination's node, from
	// what is known when a connection is opened. Application: by a waypoint,
	// for each request.
	// +optional
	// +kubebuilder:default=Network
	EnforcementLevel EnforcementLevel `json:"enforcementLevel,omitempty"`
}

// AuthorizationPolicyAction says what happens to a connection that matches.
//
// +kubebuilder:validation:Enum=ALLOW;DENY;AUDIT
type AuthorizationPolicyAction string

// Actions of a policy.
const (
	ActionAllow AuthorizationPolicyAction = "ALLOW"
	ActionDeny  AuthorizationPolicyAction = "DENY"
	ActionAudit AuthorizationPolicyAction = "AUDIT"
)

// EnforcementLevel says where a policy is enforced.
//
// +kubebuilder:validation:Enum=Network;Application
type EnforcementLevel string

// Enforcement levels.
const (
	EnforcementNetwork     EnforcementLevel = "Network"
	EnforcementApplication EnforcementLevel = "Application"
)

// AuthorizationPolicyTargetReference names what a policy is about.
//
// +kubebuilder:validation:XValidation:rule="self.kind == 'Pod' || !has(self.selector)",message="only a Pod target may have a selector",fieldPath=".selector",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule="self.kind != 'Pod' || has(self.selector)",message="a Pod target needs a selector; {} selects every pod of the namespace",fieldPath=".selector",reason=FieldValueRequired
// +kubebuilder:validation:XValidation:rule="self.kind != 'Pod' || !has(self.name)",message="a Pod target is chosen by selector, not by name",fieldPath=".name",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule="self.kind != 'Service' || has(self.name)",message="a Service target needs a name",fieldPath=".name",reason=FieldValueRequired
// +kubebuilder:validation:XValidation:rule="self.kind != 'ExternalService' || has(self.name)",message="an ExternalService target needs a name",fieldPath=".name",reason=FieldValueRequired
// +kubebuilder:validation:XValidation:rule="(self.kind == 'ExternalService') == (self.group == 'ambit-mesh.io')",message="group is ambit-mesh.io for an ExternalService, and \"\" for the others",fieldPath=".group",reason=FieldValueInvalid
// +kubebuilder:validation:XValidation:rule="self.kind != 'Namespace' || !has(self.name)",message="a Namespace target has no name: it is the namespace of the policy",fieldPath=".name",reason=FieldValueForbidden
type AuthorizationPolicyTargetReference struct {
	// Group is the group of the target: ambit-mesh.io for an ExternalService, ""
	// for the others.
	// +optional
	// +kubebuilder:default=""
	// +kubebuilder:validation:Enum="";core;ambit-mesh.io
	Group gatewayv1.Group `json:"group"`

	// Kind of the target.
	//
	// Pod: the workloads that the selector chooses.
	//
	// Service: the workloads behind the Service, whichever way they are
	// reached. Ports are those that the workloads listen on.
	//
	// Namespace: every workload of the policy's namespace or, in the root
	// namespace of the mesh, every workload of the mesh.
	//
	// ExternalService: its hosts. The policy is enforced by its waypoint, without
	// which everything to it is refused.
	// +required
	// +kubebuilder:validation:Enum=Pod;Service;Namespace;ExternalService
	Kind gatewayv1.Kind `json:"kind"`

	// Name of the Service or ExternalService.
	// +optional
	Name *gatewayv1.ObjectName `json:"name,omitempty"`

	// Selector chooses pods by label. An empty selector chooses every pod of the
	// namespace.
	// +optional
	Selector *PodSelector `json:"selector,omitempty"`
}
