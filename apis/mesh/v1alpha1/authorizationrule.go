package v1alpha1

import gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

// AuthorizationRule matches a connection when all of its parts do. A rule
// without parts matches every connection.
type AuthorizationRule struct {
	// Name of the rule, by which logs, metrics and refusals call it. Without a
	// name they use its position in the list, counted from 0.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`

	// Sources are who the connection may come from; one of them must match.
	// An empty list matches nobody; leaving the field out matches anybody.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Sources []AuthorizationSource `json:"sources,omitzero"`

	// NotSources are who the connection must not come from; none of them may
	// match. A peer without an identity matches no identity, so that it passes
	// here unless an address block excludes it.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	NotSources []AuthorizationSource `json:"notSources,omitempty"`

	// NetworkAttributes are further properties of the connection.
	// +optional
	NetworkAttributes *AuthorizationNetworkAttributes `json:"networkAttributes,omitempty"`

	// Application are properties of a request. Only a waypoint can see them; see
	// enforcementLevel.
	// +optional
	Application *AuthorizationApplicationAttributes `json:"application,omitempty"`
}

// AuthorizationSourceType says what a source is.
//
// +kubebuilder:validation:Enum=ServiceAccount;SPIFFE;Namespace;AddressBlock
type AuthorizationSourceType string

// Types of source.
const (
	SourceServiceAccount AuthorizationSourceType = "ServiceAccount"
	SourceSPIFFE         AuthorizationSourceType = "SPIFFE"
	SourceNamespace      AuthorizationSourceType = "Namespace"
	SourceAddressBlock   AuthorizationSourceType = "AddressBlock"
)

// AuthorizationSource is one peer, or a group of peers.
//
// +kubebuilder:validation:XValidation:rule="has(self.serviceAccount) == (self.type == 'ServiceAccount')",message="serviceAccount must be set exactly when type is ServiceAccount",fieldPath=".serviceAccount",reason=FieldValueInvalid
// +kubebuilder:validation:XValidation:rule="has(self.spiffe) == (self.type == 'SPIFFE')",message="spiffe must be set exactly when type is SPIFFE",fieldPath=".spiffe",reason=FieldValueInvalid
// +kubebuilder:validation:XValidation:rule="has(self.__namespace__) == (self.type == 'Namespace')",message="namespace must be set exactly when type is Namespace",fieldPath=".namespace",reason=FieldValueInvalid
// +kubebuilder:validation:XValidation:rule="self.type != 'AddressBlock' || has(self.addressBlock)",message="addressBlock must be set when type is AddressBlock",fieldPath=".addressBlock",reason=FieldValueRequired
type AuthorizationSource struct {
	// Type says which of the other fields names the source.
	// +unionDiscriminator
	// +required
	Type AuthorizationSourceType `json:"type"`

	// ServiceAccount is a service account of the mesh's own trust domain.
	// +optional
	ServiceAccount *AuthorizationSourceServiceAccount `json:"serviceAccount,omitempty"`

	// SPIFFE is an identity as its certificate has it:
	// spiffe://<trust domain>/ns/<namespace>/sa/<service account>. One * may
	// stand at the end (spiffe://cluster.local/ns/shop/*, everything that begins
	// so, with the whole trust domain given), or directly after spiffe://
	// (spiffe://*/ns/shop/sa/web, everything that ends so). spiffe://* is every
	// peer that has an identity.
	// +optional
	// +kubebuilder:validation:MinLength=10
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^spiffe://([a-z0-9._-]+/ns/[A-Za-z0-9._-]+/sa/[A-Za-z0-9._-]+|[a-z0-9._-]+/[A-Za-z0-9._/-]*[*]|[*][A-Za-z0-9._/-]*)$`
	// +kubebuilder:validation:XValidation:rule="self.startsWith('spiffe://')",message="must start with spiffe://"
	// +kubebuilder:validation:XValidation:rule="!self.contains('*') || (self.indexOf('*') == self.lastIndexOf('*') && (self.startsWith('spiffe://*') || self.endsWith('*')))",message="one * may stand at the end, or directly after spiffe://"
	// +kubebuilder:validation:XValidation:rule="self.contains('*') || (self.contains('/ns/') && self.contains('/sa/'))",message="an identity without * must be spiffe://<trust domain>/ns/<namespace>/sa/<service account>"
	// +kubebuilder:validation:XValidation:rule="!self.endsWith('*') || self == 'spiffe://*' || !self.startsWith('spiffe://') || self.substring(9).contains('/')",message="before a * at the end the whole trust domain must be given: spiffe://<trust domain>/...*"
	SPIFFE string `json:"spiffe,omitempty"`

	// Namespace is every identity of that namespace.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Namespace string `json:"namespace,omitempty"`

	// AddressBlock is an IP address or a CIDR block that the connection comes
	// from, as the destination sees it. With type AddressBlock it is the source,
	// whether or not the peer has an identity. With another type it narrows the
	// source: the peer must be the one named and come from the block.
	// +optional
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=43
	// +kubebuilder:validation:XValidation:rule="isCIDR(self) || isIP(self)",message="must be an IP address or a CIDR block, for example 10.0.0.0/8"
	AddressBlock string `json:"addressBlock,omitempty"`
}

// AuthorizationSourceServiceAccount names one service account, or all of a
// namespace.
type AuthorizationSourceServiceAccount struct {
	// Namespace of the service account; that of the policy when left out.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Namespace string `json:"namespace,omitempty"`

	// Name of the service account. "*" is every service account of the
	// namespace.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^([*]|[a-z0-9]([-.a-z0-9]*[a-z0-9])?)$`
	Name string `json:"name"`
}

// AuthorizationNetworkAttributes are properties of a connection beside its
// source.
//
// +kubebuilder:validation:XValidation:rule="has(self.ports) || has(self.notPorts)",message="needs ports or notPorts"
type AuthorizationNetworkAttributes struct {
	// Ports that the connection may go to: the ports that the workload listens
	// on (targetPort), not those of a Service in front of it.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Ports []PortNumber `json:"ports,omitempty"`

	// NotPorts that the connection must not go to.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	NotPorts []PortNumber `json:"notPorts,omitempty"`
}

// AuthorizationApplicationAttributes are properties of a request. All that are
// set must match; the values of one are alternatives.
//
// +kubebuilder:validation:XValidation:rule="has(self.methods) || has(self.paths) || has(self.hosts) || has(self.headers) || has(self.grpcMethods) || has(self.claims)",message="needs methods, paths, hosts, headers, grpcMethods or claims"
type AuthorizationApplicationAttributes struct {
	// Methods of HTTP requests, in capitals.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:Pattern=`^[A-Z]+$`
	// +kubebuilder:validation:items:MaxLength=32
	Methods []string `json:"methods,omitempty"`

	// Paths of HTTP requests, without query. For gRPC: /<service>/<method>.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Paths []AuthorizationPathMatch `json:"paths,omitempty"`

	// Hosts that the request is for, without port.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Hosts []gatewayv1.Hostname `json:"hosts,omitempty"`

	// Headers that the request must have; each of them must match. Where a header
	// is sent in several lines, an ALLOW policy wants each line to be one of the
	// values; a DENY policy is content with one of them, or with a member of a
	// comma-separated list.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Headers []AuthorizationHeaderMatch `json:"headers,omitempty"`

	// GRPCMethods of gRPC requests.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	GRPCMethods []AuthorizationGRPCMethodMatch `json:"grpcMethods,omitempty"`

	// Claims of the request's verified token; each of them must match. A request
	// without a token that is verified has none.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Claims []AuthorizationClaimMatch `json:"claims,omitempty"`
}

// AuthorizationGRPCMethodMatch matches the service and the method of a gRPC
// request; the one that is left out matches any.
//
// +kubebuilder:validation:XValidation:rule="has(self.service) || has(self.method)",message="needs service or method"
type AuthorizationGRPCMethodMatch struct {
	// Service with its package, for example shop.v1.Catalog.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)*$`
	Service string `json:"service,omitempty"`

	// Method of the service.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^[A-Za-z_][A-Za-z0-9_]*$`
	Method string `json:"method,omitempty"`
}

// AuthorizationClaimMatch matches a claim of a verified token.
type AuthorizationClaimMatch struct {
	// Issuer of the token (iss), exactly. Another issuer's claims do not count.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Issuer string `json:"issuer"`

	// Name of the claim.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Values are alternatives: the claim, or a member of it if it is a list, must
	// be one of them exactly.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=1024
	Values []string `json:"values"`
}

// AuthorizationPathMatch matches the path of a request.
type AuthorizationPathMatch struct {
	// Type says how the value is compared. A prefix ends at a / of the path.
	// +optional
	// +kubebuilder:default=Exact
	// +kubebuilder:validation:Enum=Exact;PathPrefix
	Type gatewayv1.PathMatchType `json:"type,omitempty"`

	// Value that the path is compared with.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^/[^?#]*$`
	Value string `json:"value"`
}

// AuthorizationHeaderMatch matches a header of a request.
type AuthorizationHeaderMatch struct {
	// Name of the header, in any case.
	// +required
	Name gatewayv1.HTTPHeaderName `json:"name"`

	// Values are alternatives; the header must have one of them exactly.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=4096
	Values []string `json:"values"`
}
