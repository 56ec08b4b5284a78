package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// HealthCheckPolicy has a waypoint ask the endpoints of a Service regularly
// whether they are well, and leave out those that are not. What Kubernetes says
// of their readiness holds beside it.
//
// Of two policies with the very same target the older one decides, and the other
// one is not accepted, with reason Conflicted.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=ambit,shortName=healthcheck
// +kubebuilder:metadata:labels=gateway.networking.k8s.io/policy=Direct
// +kubebuilder:printcolumn:name="Type",type=string,JSONPath=`.spec.type`
// +kubebuilder:printcolumn:name="Targets",type=string,JSONPath=`.spec.targetRefs[*].kind`
// +kubebuilder:printcolumn:name="Names",type=string,JSONPath=`.spec.targetRefs[*].name`,priority=1
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type HealthCheckPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	// +required
	Spec HealthCheckPolicySpec `json:"spec"`

	// Status is what became of it.
	// +optional
	Status PolicyStatus `json:"status,omitempty"`
}

// HealthCheckPolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type HealthCheckPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []HealthCheckPolicy `json:"items"`
}

// HealthCheckPolicySpec is what a policy wants.
//
// +kubebuilder:validation:XValidation:rule="has(self.http) == (self.type == 'HTTP')",message="http must be set exactly when type is HTTP",fieldPath=".http",reason=FieldValueInvalid
// +kubebuilder:validation:XValidation:rule="!has(self.grpc) || self.type == 'GRPC'",message="grpc may be set only when type is GRPC",fieldPath=".grpc",reason=FieldValueInvalid
// +kubebuilder:validation:XValidation:rule="!(has(self.timeout) && has(self.interval)) || duration(self.timeout) <= duration(self.interval)",message="timeout must not be longer than interval",fieldPath=".timeout",reason=FieldValueInvalid
type HealthCheckPolicySpec struct {
	// TargetRefs are the Services that the policy is about, all in its own
	// namespace.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(t, self.exists_one(u, u.name == t.name))",message="a target may be named only once"
	TargetRefs []ServiceTargetReference `json:"targetRefs"`

	// Type says how an endpoint is asked. HTTP: a GET that is answered with 2xx.
	// GRPC: grpc.health.v1 answers SERVING. TCP: a connection can be opened.
	// +unionDiscriminator
	// +required
	// +kubebuilder:validation:Enum=HTTP;GRPC;TCP
	Type HealthCheckType `json:"type"`

	// HTTP is what is asked for.
	// +optional
	HTTP *HealthCheckHTTP `json:"http,omitempty"`

	// GRPC is what is asked about.
	// +optional
	GRPC *HealthCheckGRPC `json:"grpc,omitempty"`

	// Interval between two questions.
	// +optional
	// +kubebuilder:default="10s"
	Interval *gatewayv1.Duration `json:"interval,omitempty"`

	// Timeout of a question.
	// +optional
	// +kubebuilder:default="1s"
	Timeout *gatewayv1.Duration `json:"timeout,omitempty"`

	// UnhealthyThreshold is after how many bad answers in a row an endpoint is
	// left out.
	// +optional
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	UnhealthyThreshold *int32 `json:"unhealthyThreshold,omitempty"`

	// HealthyThreshold is after how many good answers in a row it is back.
	// +optional
	// +kubebuilder:default=2
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	HealthyThreshold *int32 `json:"healthyThreshold,omitempty"`
}

// HealthCheckType is a way to ask.
type HealthCheckType string

// Ways to ask.
const (
	HealthHTTP HealthCheckType = "HTTP"
	HealthGRPC HealthCheckType = "GRPC"
	HealthTCP  HealthCheckType = "TCP"
)

// HealthCheckHTTP is a question of HTTP.
type HealthCheckHTTP struct {
	// Path that is asked for.
	// +required
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^/[!-~]*$`
	Path string `json:"path"`
}

// HealthCheckGRPC is a question of grpc.health.v1.
type HealthCheckGRPC struct {
	// Service that is asked about; the whole server when left out.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Service string `json:"service,omitempty"`
}

// PolicyKind gives the kind.
func (p *HealthCheckPolicy) PolicyKind() string { return KindHealthCheckPolicy }

// Targets gives what the policy is attached to.
func (p *HealthCheckPolicy) Targets() []TrafficTargetReference {
	return serviceTargets(p.Spec.TargetRefs)
}

// Backends gives the Services that the policy refers to.
func (p *HealthCheckPolicy) Backends() []gatewayv1.BackendObjectReference {
	return nil
}
