package v1alpha1

import gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

// TrafficSelector chooses requests.
type TrafficSelector struct {
	// Name of the rule, by which logs, metrics and answers call it. Without a
	// name they use its position in the list, counted from 0.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`

	// Sources are who a request comes from; one of them must match. Without
	// sources a request may come from anybody.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Sources []TrafficSource `json:"sources,omitempty"`

	// Matches are conditions as in a rule of an HTTPRoute; one of them must hold.
	// Without matches every request does. A gRPC call has the path
	// /<service>/<method>.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	Matches []gatewayv1.HTTPRouteMatch `json:"matches,omitempty"`

	// Backends are the Services that a request is sent to after a route has
	// chosen, such as one version; one of them must be it. Without backends it
	// may be any.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Backends []TrafficBackend `json:"backends,omitempty"`
}

// TrafficSource is a workload identity, or all of a namespace.
type TrafficSource struct {
	// Namespace of the client.
	// +required
	Namespace gatewayv1.Namespace `json:"namespace"`

	// ServiceAccount of the client; any when left out.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	ServiceAccount string `json:"serviceAccount,omitempty"`
}

// TrafficBackend names a Service.
type TrafficBackend struct {
	// Name of the Service.
	// +required
	Name gatewayv1.ObjectName `json:"name"`

	// Namespace of the Service; that of the policy when left out.
	// +optional
	Namespace *gatewayv1.Namespace `json:"namespace,omitempty"`
}

// backends gives the Services in general form.
func (s *TrafficSelector) backends() []gatewayv1.BackendObjectReference {
	out := make([]gatewayv1.BackendObjectReference, 0, len(s.Backends))
	for _, b := range s.Backends {
		out = append(out, gatewayv1.BackendObjectReference{Name: b.Name, Namespace: b.Namespace})
	}
	return out
}

// Share is a part of all requests; all of them when neither field is set.
type Share struct {
	// Percent of the requests.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Percent *int32 `json:"percent,omitempty"`

	// Fraction of the requests, for less than one percent.
	// +optional
	Fraction *gatewayv1.Fraction `json:"fraction,omitempty"`
}
