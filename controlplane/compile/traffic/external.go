package traffic

import (
	"fmt"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/waypoint"
)

// External gives the wire form of a sound policy, and whether the service that it
// asks can be found.
func External(mesh Mesh, p *v1alpha1.ExternalAuthorizationPolicy) (*waypoint.ExternalAuthorization, Resolved) {
	out := external(p, &Report{})
	b := Resolve(mesh, p.Namespace, &p.Spec.BackendRef, externalUse(p))
	out.Backend, out.Policy = b.Ref, Name(p)
	return out, b
}

func externalUse(p *v1alpha1.ExternalAuthorizationPolicy) Use {
	if p.Spec.Protocol == gatewayv1.HTTPRouteExternalAuthGRPCProtocol {
		return UseGRPC
	}
	return UseHTTP
}

const maxExternalBody = 1 << 20

func external(p *v1alpha1.ExternalAuthorizationPolicy, r *Report) *waypoint.ExternalAuthorization {
	s := &p.Spec
	out := &waypoint.ExternalAuthorization{
		MaxBodyBytes: r.number("spec.maxBodyBytes", s.MaxBodyBytes, 0, 0, maxExternalBody),
		Timeout:      r.positive("spec.timeout", s.Timeout, "1s"), FailOpen: s.FailOpen,
	}
	switch s.Protocol {
	case gatewayv1.HTTPRouteExternalAuthGRPCProtocol:
		grpc := &waypoint.ExternalGRPC{}
		if s.GRPC != nil {
			grpc.AllowedHeaders = r.headerNames("spec.grpc.allowedHeaders", s.GRPC.AllowedHeaders)
		}
		out.Protocol = &waypoint.ExternalAuthorization_Grpc{Grpc: grpc}
		if s.HTTP != nil {
			r.Add("spec.http", "may be set only when protocol is HTTP")
		}
	case gatewayv1.HTTPRouteExternalAuthHTTPProtocol:
		http := &waypoint.ExternalHTTP{}
		if s.HTTP != nil {
			http.Path = s.HTTP.Path
			http.AllowedHeaders = r.headerNames("spec.http.allowedHeaders", s.HTTP.AllowedHeaders)
			http.AllowedResponseHeaders = r.headerNames("spec.http.allowedResponseHeaders", s.HTTP.AllowedResponseHeaders)
			if http.GetPath() != "" && (http.GetPath()[0] != '/' || strings.ContainsAny(http.GetPath(), "?# \r\n")) {
				r.Add("spec.http.path", "%q is not a path", http.GetPath())
			}
		}
		out.Protocol = &waypoint.ExternalAuthorization_Http{Http: http}
		if s.GRPC != nil {
			r.Add("spec.grpc", "may be set only when protocol is GRPC")
		}
	default:
		r.Add("spec.protocol", "%q is not a protocol; use GRPC or HTTP", s.Protocol)
	}
	return out
}

func (r *Report) headerNames(field string, list []gatewayv1.HTTPHeaderName) []string {
	var out []string
	for i, name := range list {
		r.headerName(fmt.Sprintf("%s[%d]", field, i), string(name))
		out = append(out, strings.ToLower(string(name)))
	}
	return out
}
