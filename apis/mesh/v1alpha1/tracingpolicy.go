package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// TracingPolicy says which requests a waypoint records in traces. A decision that
// comes with a request, in its trace context, stands; the policy is for requests
// that carry none.
//
// The policy of the most specific target decides, whole: that of the rule, of
// the route, of the port of the Service, of the Service, of the Service's
// namespace. Of two with the very same target the older one decides, and the other
// one is not accepted, with reason Conflicted. Without any, the setting of the
// waypoint holds.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=ambit,shortName=tracing
// +kubebuilder:metadata:labels=gateway.networking.k8s.io/policy=Inherited
// +kubebuilder:printcolumn:name="Percent",type=integer,JSONPath=`.spec.sampling.percent`
// +kubebuilder:printcolumn:name="Disabled",type=boolean,JSONPath=`.spec.disabled`
// +kubebuilder:printcolumn:name="Targets",type=string,JSONPath=`.spec.targetRefs[*].kind`
// +kubebuilder:printcolumn:name="Names",type=string,JSONPath=`.spec.targetRefs[*].name`,priority=1
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type TracingPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	// +required
	Spec TracingPolicySpec `json:"spec"`

	// Status is what became of it.
	// +optional
	Status PolicyStatus `json:"status,omitempty"`
}

// TracingPolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type TracingPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TracingPolicy `json:"items"`
}

// TracingPolicySpec is what a policy wants.
//
// +kubebuilder:validation:XValidation:rule="has(self.sampling) != (has(self.disabled) && self.disabled)",message="needs sampling, or disabled: true instead of it"
type TracingPolicySpec struct {
	// TargetRefs are the Services, ports of Services, routes and rules that the
	// policy is about, all in its own namespace, or that namespace.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(t, self.exists_one(u, u.kind == t.kind && has(u.name) == has(t.name) && (!has(t.name) || u.name == t.name) && has(u.sectionName) == has(t.sectionName) && (!has(t.sectionName) || u.sectionName == t.sectionName)))",message="a target may be named only once"
	TargetRefs []TracingTargetReference `json:"targetRefs"`

	// Sampling is the share of the requests that are recorded, of those whose
	// trace context says nothing about it.
	// +optional
	Sampling *TracingSampling `json:"sampling,omitempty"`

	// Disabled makes no spans, not even of requests that others record. Trace
	// contexts are passed on untouched.
	// +optional
	Disabled bool `json:"disabled,omitempty"`
}

// TracingSampling is a share of requests.
//
// +kubebuilder:validation:XValidation:rule="has(self.percent) != has(self.fraction)",message="needs percent or fraction, and not both"
type TracingSampling struct {
	Share `json:",inline"`
}

// TracingTargetReference names a namespace, a Service or one of its ports, or a
// route or one of its rules.
//
// +kubebuilder:validation:XValidation:rule="self.kind in ['Service', 'Namespace'] ? (size(self.group) == 0 || self.group == 'core') : self.group == 'gateway.networking.k8s.io'",message="group is \"\" for a Service or a Namespace and gateway.networking.k8s.io for a route",fieldPath=".group",reason=FieldValueInvalid
// +kubebuilder:validation:XValidation:rule="self.kind == 'Namespace' ? !has(self.name) && !has(self.sectionName) : true",message="a Namespace target has no name and no section: it is the namespace of the policy",fieldPath=".name",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule="self.kind == 'Namespace' || has(self.name)",message="a target needs a name",fieldPath=".name",reason=FieldValueRequired
type TracingTargetReference struct {
	// Group of the target: "" for a Service or a Namespace,
	// gateway.networking.k8s.io for a route.
	// +optional
	// +kubebuilder:default=""
	// +kubebuilder:validation:Enum="";core;gateway.networking.k8s.io
	Group gatewayv1.Group `json:"group"`

	// Kind of the target. Namespace is the namespace of the policy: all of its
	// Services.
	// +required
	// +kubebuilder:validation:Enum=Namespace;Service;HTTPRoute;GRPCRoute
	Kind gatewayv1.Kind `json:"kind"`

	// Name of the target, in the namespace of the policy.
	// +optional
	Name *gatewayv1.ObjectName `json:"name,omitempty"`

	// SectionName is a part of the target: the name of a port of the Service, or
	// of a rule of the route. Without it the policy is about all of the target.
	// +optional
	SectionName *gatewayv1.SectionName `json:"sectionName,omitempty"`
}

// PolicyKind gives the kind.
func (p *TracingPolicy) PolicyKind() string { return KindTracingPolicy }

// Targets gives what the policy is attached to.
func (p *TracingPolicy) Targets() []TrafficTargetReference {
	out := make([]TrafficTargetReference, 0, len(p.Spec.TargetRefs))
	for _, r := range p.Spec.TargetRefs {
		t := TrafficTargetReference{Group: r.Group, Kind: r.Kind, SectionName: r.SectionName}
		if r.Name != nil {
			t.Name = *r.Name
		}
		out = append(out, t)
	}
	return out
}

// Backends gives the Services that the policy refers to.
func (p *TracingPolicy) Backends() []gatewayv1.BackendObjectReference {
	return nil
}
