package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// FaultInjection delays requests or answers them with an error, to learn how a
// system copes.
//
// The policy of the most specific target decides, whole: that of the rule, of
// the route, of the port of the Service, of the Service. Of two with the very
// same target the older one decides, and the other one is not accepted, with
// reason Conflicted.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=ambit,shortName=fault
// +kubebuilder:metadata:labels=gateway.networking.k8s.io/policy=Inherited
// +kubebuilder:printcolumn:name="Targets",type=string,JSONPath=`.spec.targetRefs[*].kind`
// +kubebuilder:printcolumn:name="Names",type=string,JSONPath=`.spec.targetRefs[*].name`,priority=1
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type FaultInjection struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	// +required
	Spec FaultInjectionSpec `json:"spec"`

	// Status is what became of it.
	// +optional
	Status PolicyStatus `json:"status,omitempty"`
}

// FaultInjectionList is a list of policies.
//
// +kubebuilder:object:root=true
type FaultInjectionList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []FaultInjection `json:"items"`
}

// FaultInjectionSpec is what a policy wants.
type FaultInjectionSpec struct {
	// TargetRefs are the Services, ports of Services, routes and rules that
	// the policy is about, all in its own namespace.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(t, self.exists_one(u, u.kind == t.kind && u.name == t.name && has(u.sectionName) == has(t.sectionName) && (!has(t.sectionName) || u.sectionName == t.sectionName)))",message="a target may be named only once"
	TargetRefs []TrafficTargetReference `json:"targetRefs"`

	// Rules are tried in order; each that matches a request is applied to it.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(r, !has(r.name) || self.exists_one(s, has(s.name) && s.name == r.name))",message="rule names must be unique in the policy"
	Rules []FaultRule `json:"rules"`
}

// FaultRule is a fault and the requests that get it: those that come from one of
// sources, match one of matches and go to one of backends.
//
// +kubebuilder:validation:XValidation:rule="has(self.delay) || has(self.abort)",message="needs delay or abort; without either it would do nothing"
type FaultRule struct {
	TrafficSelector `json:",inline"`

	// Delay holds requests back before they are sent.
	// +optional
	Delay *FaultDelay `json:"delay,omitempty"`

	// Abort answers requests instead of sending them.
	// +optional
	Abort *FaultAbort `json:"abort,omitempty"`
}

// FaultDelay is a delay.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.percent) && has(self.fraction))",message="percent and fraction exclude each other"
type FaultDelay struct {
	// Duration of the delay.
	// +required
	Duration gatewayv1.Duration `json:"duration"`

	Share `json:",inline"`
}

// FaultAbort is an answer.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.percent) && has(self.fraction))",message="percent and fraction exclude each other"
// +kubebuilder:validation:XValidation:rule="has(self.httpStatus) || has(self.grpcStatus)",message="needs httpStatus or grpcStatus"
type FaultAbort struct {
	Share `json:",inline"`

	// HTTPStatus is answered to requests that are not gRPC; 503 when left out.
	// +optional
	// +kubebuilder:validation:Minimum=200
	// +kubebuilder:validation:Maximum=599
	HTTPStatus *int32 `json:"httpStatus,omitempty"`

	// GRPCStatus is answered to gRPC calls; UNAVAILABLE when left out.
	// +optional
	GRPCStatus *GRPCCode `json:"grpcStatus,omitempty"`
}

// PolicyKind gives the kind.
func (p *FaultInjection) PolicyKind() string { return KindFaultInjection }

// Targets gives what the policy is attached to.
func (p *FaultInjection) Targets() []TrafficTargetReference {
	return p.Spec.TargetRefs
}

// Backends gives the Services that the policy refers to.
func (p *FaultInjection) Backends() []gatewayv1.BackendObjectReference {
	var out []gatewayv1.BackendObjectReference
	for i := range p.Spec.Rules {
		out = append(out, p.Spec.Rules[i].backends()...)
	}
	return out
}
