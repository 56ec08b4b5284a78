package traffic

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/waypoint"
)

// Providers gives the wire form of a policy.
func Providers(p *v1alpha1.JWTAuthentication, r *Report) []*waypoint.JWTProvider {
	if len(p.Spec.Providers) == 0 {
		r.Add("spec.providers", "at least one provider is needed")
	}
	r.atMost("spec.providers", len(p.Spec.Providers), 8)
	names := make(map[string]bool)
	var out []*waypoint.JWTProvider
	for i := range p.Spec.Providers {
		at, in := fmt.Sprintf("spec.providers[%d]", i), &p.Spec.Providers[i]
		if len(validation.IsDNS1123Label(in.Name)) > 0 || names[in.Name] {
			r.Add(at+".name", "%q must be a name that no other provider of the policy has, of a-z 0-9 and -", in.Name)
		}
		names[in.Name] = true
		if in.Issuer == "" {
			r.Add(at+".issuer", "an issuer is needed")
		}
		v := &waypoint.JWTProvider{
			Policy: Name(p), Issuer: in.Issuer, Audiences: in.Audiences, Forward: in.Forward, Required: p.Spec.Required,
		}
		r.jwtKeys(at+".jwks", &in.JWKS, v)
		for j, l := range in.Locations {
			v.Locations = append(v.Locations, r.jwtLocation(fmt.Sprintf("%s.locations[%d]", at, j), l))
		}
		for j, c := range in.OutputClaims {
			field := fmt.Sprintf("%s.outputClaims[%d]", at, j)
			r.headerName(field+".header", string(c.Header))
			if c.Claim == "" {
				r.Add(field+".claim", "a claim is needed")
			}
			v.OutputClaims = append(v.OutputClaims, &waypoint.ClaimHeader{Header: strings.ToLower(string(c.Header)), Claim: c.Claim})
		}
		out = append(out, v)
	}
	return out
}

func (r *Report) jwtKeys(at string, k *v1alpha1.JWTKeys, out *waypoint.JWTProvider) {
	switch {
	case (k.Inline == nil) == (k.URI == nil):
		r.Add(at, "exactly one of inline and uri must be set")
	case k.Inline != nil:
		var set struct {
			Keys []map[string]any `json:"keys"`
		}
		if err := json.Unmarshal([]byte(*k.Inline), &set); err != nil || len(set.Keys) == 0 {
			r.Add(at+".inline", "is not a JSON Web Key Set (RFC 7517) with at least one key")
		}
		if k.CacheDuration != nil {
			r.Add(at+".cacheDuration", "only what uri gives is cached")
		}
		out.Keys = &waypoint.JWTProvider_Jwks{Jwks: *k.Inline}
	default:
		u, err := url.Parse(*k.URI)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			r.Add(at+".uri", "%q is not a URL of http or https", *k.URI)
		}
		cache := gatewayv1.Duration("5m")
		out.CacheDuration = r.positive(at+".cacheDuration", k.CacheDuration, cache)
		out.Keys = &waypoint.JWTProvider_JwksUri{JwksUri: *k.URI}
	}
}

func (r *Report) jwtLocation(at string, l v1alpha1.JWTLocation) *waypoint.JWTLocation {
	out := &waypoint.JWTLocation{Prefix: l.Prefix}
	switch l.Type {
	case v1alpha1.JWTHeader:
		out.Type = &waypoint.JWTLocation_Header{Header: strings.ToLower(l.Name)}
	case v1alpha1.JWTQueryParam:
		out.Type = &waypoint.JWTLocation_QueryParam{QueryParam: l.Name}
	case v1alpha1.JWTCookie:
		out.Type = &waypoint.JWTLocation_Cookie{Cookie: l.Name}
	default:
		r.Add(at+".type", "%q is not a part of a request; use Header, QueryParam or Cookie", l.Type)
	}
	r.headerName(at+".name", l.Name)
	if l.Prefix != "" && l.Type != v1alpha1.JWTHeader {
		r.Add(at+".prefix", "only a Header may have a prefix")
	}
	return out
}
