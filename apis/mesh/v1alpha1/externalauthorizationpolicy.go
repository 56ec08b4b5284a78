package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// ExternalAuthorizationPolicy has a waypoint ask another service before it lets
// a request through.
//
// It is attached to Services and routes by targetRefs, or used for single rules
// of a route as a filter of type ExtensionRef. A policy of a Service or of its
// port holds beside those of routes and rules, so that whoever writes a route
// cannot get around what the Service's owner wants; of those of a route and of
// its rules the more specific one decides. Of two policies with the very same
// target the older one decides, and the other one is not accepted, with reason
// Conflicted.
//
// A policy that is refused as Invalid, or whose service does not exist, lets
// nothing through where it is attached.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=ambit,shortName=extauthz
// +kubebuilder:metadata:labels=gateway.networking.k8s.io/policy=Inherited
// +kubebuilder:printcolumn:name="Protocol",type=string,JSONPath=`.spec.protocol`
// +kubebuilder:printcolumn:name="Targets",type=string,JSONPath=`.spec.targetRefs[*].kind`
// +kubebuilder:printcolumn:name="Names",type=string,JSONPath=`.spec.targetRefs[*].name`,priority=1
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ExternalAuthorizationPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	// +required
	Spec ExternalAuthorizationPolicySpec `json:"spec"`

	// Status is what became of it.
	// +optional
	Status PolicyStatus `json:"status,omitempty"`
}

// ExternalAuthorizationPolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type ExternalAuthorizationPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ExternalAuthorizationPolicy `json:"items"`
}

// ExternalAuthorizationPolicySpec is what a policy wants.
//
// +kubebuilder:validation:XValidation:rule="!has(self.grpc) || self.protocol == 'GRPC'",message="grpc may be set only when protocol is GRPC",fieldPath=".grpc",reason=FieldValueInvalid
// +kubebuilder:validation:XValidation:rule="!has(self.http) || self.protocol == 'HTTP'",message="http may be set only when protocol is HTTP",fieldPath=".http",reason=FieldValueInvalid
type ExternalAuthorizationPolicySpec struct {
	// TargetRefs are the Services, ports of Services, routes and rules that
	// the policy is about, all in its own namespace.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(t, self.exists_one(u, u.kind == t.kind && u.name == t.name && has(u.sectionName) == has(t.sectionName) && (!has(t.sectionName) || u.sectionName == t.sectionName)))",message="a target may be named only once"
	TargetRefs []TrafficTargetReference `json:"targetRefs,omitempty"`

	// Protocol by which the service is asked. GRPC:
	// envoy.service.auth.v3.Authorization. HTTP: the request without its body; 2xx
	// lets it through.
	// +unionDiscriminator
	// +required
	// +kubebuilder:validation:Enum=GRPC;HTTP
	Protocol gatewayv1.HTTPRouteExternalAuthProtocol `json:"protocol"`

	// BackendRef is the service, a Service of any namespace and its port.
	// +required
	BackendRef gatewayv1.BackendObjectReference `json:"backendRef"`

	// GRPC has what is special to this protocol.
	// +optional
	GRPC *ExternalAuthorizationGRPC `json:"grpc,omitempty"`

	// HTTP has what is special to this protocol.
	// +optional
	HTTP *ExternalAuthorizationHTTP `json:"http,omitempty"`

	// MaxBodyBytes of a request are sent along; a request with a longer body is
	// refused. 0 sends none and refuses none.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1048576
	MaxBodyBytes *int32 `json:"maxBodyBytes,omitempty"`

	// Timeout of a question.
	// +optional
	// +kubebuilder:default="1s"
	Timeout *gatewayv1.Duration `json:"timeout,omitempty"`

	// FailOpen lets requests through while the service cannot be asked. They are
	// refused otherwise.
	// +optional
	FailOpen bool `json:"failOpen,omitempty"`
}

// ExternalAuthorizationGRPC is special to GRPC.
type ExternalAuthorizationGRPC struct {
	// AllowedHeaders are the headers of a request that are sent; all when left
	// out.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	AllowedHeaders []gatewayv1.HTTPHeaderName `json:"allowedHeaders,omitempty"`
}

// ExternalAuthorizationHTTP is special to HTTP.
type ExternalAuthorizationHTTP struct {
	// Path is put before that of the request.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^/[^?# ]*$`
	Path string `json:"path,omitempty"`

	// AllowedHeaders are the headers of a request that are sent, beside
	// Authorization; all when left out.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	AllowedHeaders []gatewayv1.HTTPHeaderName `json:"allowedHeaders,omitempty"`

	// AllowedResponseHeaders are the headers of the answer that go on with the
	// request.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	AllowedResponseHeaders []gatewayv1.HTTPHeaderName `json:"allowedResponseHeaders,omitempty"`
}

// PolicyKind gives the kind.
func (p *ExternalAuthorizationPolicy) PolicyKind() string { return KindExternalAuthorizationPolicy }

// Targets gives what the policy is attached to.
func (p *ExternalAuthorizationPolicy) Targets() []TrafficTargetReference {
	return p.Spec.TargetRefs
}

// Backends gives the Services that the policy refers to.
func (p *ExternalAuthorizationPolicy) Backends() []gatewayv1.BackendObjectReference {
	return []gatewayv1.BackendObjectReference{p.Spec.BackendRef}
}
