package gatewayx

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Names of the API.
const (
	GroupName           = "gateway.networking.x-k8s.io"
	Version             = "v1alpha1"
	KindTelemetryPolicy = "XTelemetryPolicy"
)

// GroupVersion of the kinds of this package.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: GroupName, Version: Version}
}

// AddToScheme registers the kinds of this package. It has the form that a
// runtime.SchemeBuilder takes.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion(), &XTelemetryPolicy{}, &XTelemetryPolicyList{})
	return nil
}

// XTelemetryPolicy says which spans are made of the requests to a Gateway, and where they
// go (GEP-4768).
//
// +kubebuilder:object:root=true
type XTelemetryPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   TelemetryPolicySpec   `json:"spec"`
	Status TelemetryPolicyStatus `json:"status,omitzero"`
}

// XTelemetryPolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type XTelemetryPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []XTelemetryPolicy `json:"items"`
}

// TelemetryPolicySpec is what is wanted.
type TelemetryPolicySpec struct {
	// TargetRefs are Gateways of the policy's namespace, 1 to 16.
	TargetRefs []gatewayv1.LocalObjectReference `json:"targetRefs"`
	Tracing    *TracingConfig                   `json:"tracing,omitempty"`
}

// TelemetryPolicyStatus is what the controllers of the Gateways say.
type TelemetryPolicyStatus struct {
	Ancestors []gatewayv1.PolicyAncestorStatus `json:"ancestors"`
}

// Mode says whether something is on.
type Mode string

// Modes. An empty one is ImplementationDefault.
const (
	Enabled               Mode = "Enabled"
	Disabled              Mode = "Disabled"
	ImplementationDefault Mode = "ImplementationDefault"
)

// TracingConfig is about spans. All but Mode may be set with mode Enabled only.
type TracingConfig struct {
	Mode Mode `json:"mode,omitempty"`
	// Provider takes the spans; required with mode Enabled.
	Provider *TracingProvider `json:"provider,omitempty"`
	// SamplingRate is the share of the requests without a decision of their own.
	SamplingRate        *gatewayv1.Fraction  `json:"samplingRate,omitempty"`
	ParentBasedSampling *ParentBasedSampling `json:"parentBasedSampling,omitempty"`
	// ServiceName is the attribute service.name of the resource.
	ServiceName string `json:"serviceName,omitempty"`
	// SpanName is the name of each span of a request.
	SpanName   string      `json:"spanName,omitempty"`
	Attributes []Attribute `json:"attributes,omitempty"`
}

// TracingProvider takes spans by OTLP.
type TracingProvider struct {
	BackendRef gatewayv1.BackendObjectReference `json:"backendRef"`
	// Headers are sent with each export, for authentication for example.
	Headers []gatewayv1.HTTPHeader `json:"headers,omitempty"`
}

// ParentBasedSampling is what becomes of requests that carry a decision.
type ParentBasedSampling struct {
	// Mode Disabled does not look at the decision.
	Mode Mode `json:"mode,omitempty"`
	// SamplingRate is the share of the sampled ones of which spans are made.
	SamplingRate *gatewayv1.Fraction `json:"samplingRate,omitempty"`
}

// SourceType says where the value of an attribute comes from.
type SourceType string

// Sources of attributes.
const (
	SourceHeader    SourceType = "Header"
	SourceLiteral   SourceType = "Literal"
	SourceAttribute SourceType = "Attribute"
)

// Attribute is put into each span.
type Attribute struct {
	Name       string     `json:"name"`
	SourceType SourceType `json:"sourceType"`
	// Of these the one is set that SourceType says.
	HeaderName   gatewayv1.HTTPHeaderName `json:"headerName,omitempty"`
	LiteralValue string                   `json:"literalValue,omitempty"`
	// AttributeKey is that of another attribute of the span, by OpenTelemetry's names.
	AttributeKey string `json:"attributeKey,omitempty"`
}
