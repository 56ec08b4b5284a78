package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// PeerAuthentication says whether enrolled workloads let connections in that
// are not mutual TLS. Between enrolled workloads every connection is, whatever
// the mode.
//
// The most specific policy decides: for a workload the one whose selector
// chooses it, then that of its namespace, then that of the mesh (a Namespace
// target in the root namespace), then PERMISSIVE. Where two are equally
// specific the older one decides, then the one whose name comes first. If the two
// have the very same target, the other one is never used, and its condition
// Accepted is False with reason Conflicted.
//
// A policy that is refused as Invalid counts as STRICT for the workloads that it
// targets.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=ambit,shortName=peerauth
// +kubebuilder:metadata:labels=gateway.networking.k8s.io/policy=Inherited
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mtls.mode`
// +kubebuilder:printcolumn:name="Targets",type=string,JSONPath=`.spec.targetRefs[*].kind`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type PeerAuthentication struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	// +required
	Spec PeerAuthenticationSpec `json:"spec"`

	// Status is what became of it.
	// +optional
	Status PolicyStatus `json:"status,omitempty"`
}

// PeerAuthenticationList is a list of policies.
//
// +kubebuilder:object:root=true
type PeerAuthenticationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PeerAuthentication `json:"items"`
}

// PeerAuthenticationSpec is what a policy wants.
//
// +kubebuilder:validation:XValidation:rule="has(self.mtls) || has(self.portLevel)",message="needs mtls or portLevel; without either it would do nothing"
// +kubebuilder:validation:XValidation:rule="!has(self.portLevel) || self.targetRefs.all(t, t.kind == 'Pod')",message="portLevel needs a Pod target; selector {} chooses every pod of the namespace",fieldPath=".portLevel",reason=FieldValueForbidden
type PeerAuthenticationSpec struct {
	// TargetRefs is the one target of the policy: pods of its namespace chosen
	// by label, or the namespace, which in the root namespace of the mesh is the
	// mesh.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1
	TargetRefs []PeerAuthenticationTargetReference `json:"targetRefs"`

	// MTLS is the mode of every port that portLevel does not name. When left out
	// it is what the next less specific policy says.
	// +optional
	MTLS *PeerAuthenticationMTLS `json:"mtls,omitempty"`

	// PortLevel are modes of single ports.
	// +optional
	// +listType=map
	// +listMapKey=port
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	PortLevel []PeerAuthenticationPort `json:"portLevel,omitempty"`
}

// PeerAuthenticationTargetReference names what a policy is about.
//
// +kubebuilder:validation:XValidation:rule="(self.kind == 'Pod') == has(self.selector)",message="a Pod target needs a selector, a Namespace target has none",fieldPath=".selector",reason=FieldValueInvalid
type PeerAuthenticationTargetReference struct {
	// Group is the group of the target; all targets are of the core group.
	// +optional
	// +kubebuilder:default=""
	// +kubebuilder:validation:Enum="";core
	Group gatewayv1.Group `json:"group"`

	// Kind of the target: Pod, or Namespace for all of the policy's namespace
	// or, in the root namespace, all of the mesh.
	// +required
	// +kubebuilder:validation:Enum=Pod;Namespace
	Kind gatewayv1.Kind `json:"kind"`

	// Selector chooses pods by label. An empty selector chooses every pod of the
	// namespace.
	// +optional
	Selector *PodSelector `json:"selector,omitempty"`
}

// PeerAuthenticationMTLS is a mode.
type PeerAuthenticationMTLS struct {
	// Mode says what happens to a connection that is not mutual TLS.
	// +optional
	// +kubebuilder:default=PERMISSIVE
	Mode MTLSMode `json:"mode,omitempty"`
}

// PeerAuthenticationPort is the mode of one port.
type PeerAuthenticationPort struct {
	// Port that the workload listens on.
	// +required
	Port PortNumber `json:"port"`

	// Mode of the port.
	// +required
	Mode MTLSMode `json:"mode"`
}

// MTLSMode says what happens to a connection that is not mutual TLS.
//
// +kubebuilder:validation:Enum=PERMISSIVE;STRICT
type MTLSMode string

// Modes.
const (
	// ModePermissive lets it in, counts it and names it.
	ModePermissive MTLSMode = "PERMISSIVE"
	// ModeStrict refuses it.
	ModeStrict MTLSMode = "STRICT"
)
