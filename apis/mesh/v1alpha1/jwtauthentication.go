package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// JWTAuthentication says which bearer tokens are believed. A waypoint refuses a
// request whose token none of the providers accepts with 401, and one without a
// token if it is required. Claims of a token that is accepted can be used by an
// AuthorizationPolicy.
//
// Of two policies with the very same target the older one decides, and the other
// one is not accepted, with reason Conflicted. A policy that is refused as
// Invalid lets no request through.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=ambit,shortName=jwt
// +kubebuilder:metadata:labels=gateway.networking.k8s.io/policy=Direct
// +kubebuilder:printcolumn:name="Required",type=boolean,JSONPath=`.spec.required`
// +kubebuilder:printcolumn:name="Targets",type=string,JSONPath=`.spec.targetRefs[*].kind`
// +kubebuilder:printcolumn:name="Names",type=string,JSONPath=`.spec.targetRefs[*].name`,priority=1
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type JWTAuthentication struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	// +required
	Spec JWTAuthenticationSpec `json:"spec"`

	// Status is what became of it.
	// +optional
	Status PolicyStatus `json:"status,omitempty"`
}

// JWTAuthenticationList is a list of policies.
//
// +kubebuilder:object:root=true
type JWTAuthenticationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []JWTAuthentication `json:"items"`
}

// JWTAuthenticationSpec is what a policy wants.
type JWTAuthenticationSpec struct {
	// TargetRefs are the Services that the policy is about, all in its own
	// namespace.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(t, self.exists_one(u, u.name == t.name))",message="a target may be named only once"
	TargetRefs []ServiceTargetReference `json:"targetRefs"`

	// Required refuses requests without a token. Otherwise they go on as requests
	// that nobody has signed in for.
	// +optional
	Required bool `json:"required,omitempty"`

	// Providers are who issues tokens.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Providers []JWTProvider `json:"providers"`
}

// JWTProvider is an issuer of tokens.
type JWTProvider struct {
	// Name by which logs and refusals call it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name"`

	// Issuer that a token must name in iss.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	Issuer string `json:"issuer"`

	// Audiences of which a token must name one in aud; any when left out.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=2048
	Audiences []string `json:"audiences,omitempty"`

	// JWKS are the keys by which tokens are verified.
	// +required
	JWKS JWTKeys `json:"jwks"`

	// Locations are where a token is looked for, in order; the bearer token of
	// the header Authorization when left out.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	Locations []JWTLocation `json:"locations,omitempty"`

	// OutputClaims are claims that go on to the backend as headers. A client's
	// own headers of these names are removed.
	// +optional
	// +listType=map
	// +listMapKey=header
	// +kubebuilder:validation:MaxItems=16
	OutputClaims []JWTClaimHeader `json:"outputClaims,omitempty"`

	// Forward lets the token go on to the backend. It is removed otherwise.
	// +optional
	Forward bool `json:"forward,omitempty"`
}

// JWTKeys are keys as of RFC 7517.
//
// +kubebuilder:validation:XValidation:rule="has(self.inline) != has(self.uri)",message="exactly one of inline and uri must be set"
// +kubebuilder:validation:XValidation:rule="!has(self.cacheDuration) || has(self.uri)",message="only what uri gives is cached",fieldPath=".cacheDuration",reason=FieldValueForbidden
type JWTKeys struct {
	// Inline is the key set itself, as JSON.
	// +optional
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=65536
	Inline *string `json:"inline,omitempty"`

	// URI is where a waypoint fetches the key set.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:Pattern=`^https?://[^/?#@ ]+(/[!-~]*)?$`
	URI *string `json:"uri,omitempty"`

	// CacheDuration is for how long a key set is used before it is fetched
	// again; 5m when left out.
	// +optional
	CacheDuration *gatewayv1.Duration `json:"cacheDuration,omitempty"`
}

// JWTLocation is where a token may be.
//
// +kubebuilder:validation:XValidation:rule="!has(self.prefix) || self.type == 'Header'",message="only a Header may have a prefix",fieldPath=".prefix",reason=FieldValueForbidden
type JWTLocation struct {
	// Type says what carries the token.
	// +required
	// +kubebuilder:validation:Enum=Header;QueryParam;Cookie
	Type JWTLocationType `json:"type"`

	// Name of the header, query parameter or cookie.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9!#$%&'*+\-.^_|~]+$`
	Name string `json:"name"`

	// Prefix that stands before the token, such as "Bearer ".
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Prefix string `json:"prefix,omitempty"`
}

// JWTLocationType is a part of a request.
type JWTLocationType string

// Parts of a request.
const (
	JWTHeader     JWTLocationType = "Header"
	JWTQueryParam JWTLocationType = "QueryParam"
	JWTCookie     JWTLocationType = "Cookie"
)

// JWTClaimHeader is a claim that becomes a header.
type JWTClaimHeader struct {
	// Header that is set.
	// +required
	Header gatewayv1.HTTPHeaderName `json:"header"`

	// Claim whose value it has; parts of a nested claim are joined by a dot.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Claim string `json:"claim"`
}

// PolicyKind gives the kind.
func (p *JWTAuthentication) PolicyKind() string { return KindJWTAuthentication }

// Targets gives what the policy is attached to.
func (p *JWTAuthentication) Targets() []TrafficTargetReference {
	return serviceTargets(p.Spec.TargetRefs)
}

// Backends gives the Services that the policy refers to.
func (p *JWTAuthentication) Backends() []gatewayv1.BackendObjectReference {
	return nil
}
