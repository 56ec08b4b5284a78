package route

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/controlplane/compile/traffic"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// defaultMaxAge is that of GEP-1767.
const defaultMaxAge = 5 * time.Second

func (w *worker) cors(field string, f *gatewayv1.HTTPCORSFilter) *waypoint.CORS {
	out := &waypoint.CORS{MaxAge: durationpb.New(defaultMaxAge)}
	for i, origin := range f.AllowOrigins {
		if !corsOrigin(string(origin)) {
			w.unsupported(fmt.Sprintf("%s.allowOrigins[%d]", field, i), "%q is not an origin; write https://shop.example, https://*.example or *", origin)
		}
		out.AllowOrigins = append(out.AllowOrigins, string(origin))
	}
	if f.AllowCredentials != nil {
		out.AllowCredentials = *f.AllowCredentials
	}
	for _, m := range f.AllowMethods {
		out.AllowMethods = append(out.AllowMethods, string(m))
	}
	for _, h := range f.AllowHeaders {
		out.AllowHeaders = append(out.AllowHeaders, string(h))
	}
	for _, h := range f.ExposeHeaders {
		out.ExposeHeaders = append(out.ExposeHeaders, string(h))
	}
	w.names(field+".allowMethods", out.GetAllowMethods())
	w.names(field+".allowHeaders", out.GetAllowHeaders())
	w.names(field+".exposeHeaders", out.GetExposeHeaders())
	if f.MaxAge > 0 {
		out.MaxAge = durationpb.New(time.Duration(f.MaxAge) * time.Second)
	}
	return out
}

func (w *worker) names(field string, list []string) {
	for i, s := range list {
		if !traffic.Token(s) {
			w.unsupported(fmt.Sprintf("%s[%d]", field, i), "%q is not a name", s)
		}
		if s == "*" && len(list) > 1 {
			w.unsupported(field, "* stands for all; remove the others, or *")
		}
	}
}

func corsOrigin(s string) bool {
	if s == "*" {
		return true
	}
	scheme, host, ok := strings.Cut(s, "://")
	return ok && traffic.Token(scheme) && host != "" && !strings.ContainsAny(host, "/?#@ \r\n\t")
}

// externalAuth translates the filter of GEP-1494.
func (w *worker) externalAuth(field string, f *gatewayv1.HTTPExternalAuthFilter) *waypoint.Filter {
	out := &waypoint.ExternalAuthorization{}
	use := traffic.UseHTTP
	switch {
	case f.ExternalAuthProtocol == gatewayv1.HTTPRouteExternalAuthGRPCProtocol && f.HTTPAuthConfig == nil:
		use = traffic.UseGRPC
		grpc := &waypoint.ExternalGRPC{}
		if f.GRPCAuthConfig != nil {
			grpc.AllowedHeaders = f.GRPCAuthConfig.AllowedRequestHeaders
		}
		out.Protocol = &waypoint.ExternalAuthorization_Grpc{Grpc: grpc}
	case f.ExternalAuthProtocol == gatewayv1.HTTPRouteExternalAuthHTTPProtocol && f.GRPCAuthConfig == nil:
		http := &waypoint.ExternalHTTP{}
		if c := f.HTTPAuthConfig; c != nil {
			http.Path, http.AllowedHeaders, http.AllowedResponseHeaders = c.Path, c.AllowedRequestHeaders, c.AllowedResponseHeaders
		}
		out.Protocol = &waypoint.ExternalAuthorization_Http{Http: http}
	default:
		w.unsupported(field+".protocol", "%q is not possible with these settings; use GRPC with grpc, or HTTP with http", f.ExternalAuthProtocol)
	}
	if f.ForwardBody != nil {
		out.MaxBodyBytes = uint32(f.ForwardBody.MaxSize)
	}
	b := traffic.Resolve(w.t.mesh, w.key.Namespace, &f.BackendRef, use)
	out.Backend = b.Ref
	if b.Reason != "" {
		w.invalid(field+".backendRef", true, gatewayv1.RouteConditionReason(b.Reason), b.Message)
	}
	return &waypoint.Filter{Type: &waypoint.Filter_ExternalAuthorization{ExternalAuthorization: out}}
}

// extension resolves a filter that is an object of its own. GEP-1364: one that
// cannot be resolved is not skipped.
func (w *worker) extension(field string, ref *gatewayv1.LocalObjectReference) *waypoint.Filter {
	if ref.Group != v1alpha1.GroupName || ref.Kind != v1alpha1.KindExternalAuthorizationPolicy {
		w.invalid(field, true, gatewayv1.RouteReasonInvalidKind, string(ref.Kind)+"."+string(ref.Group)+
			" is not a filter that a waypoint has; use "+v1alpha1.KindExternalAuthorizationPolicy+"."+v1alpha1.GroupName)
		return nil
	}
	key := graph.Key{Group: v1alpha1.GroupName, Kind: string(ref.Kind), Namespace: w.key.Namespace, Name: string(ref.Name)}
	p, ok := w.t.mesh.Object(key).(*v1alpha1.ExternalAuthorizationPolicy)
	if !ok {
		w.invalid(field, true, v1alpha1.ReasonFilterNotFound, "there is no "+key.String())
		return nil
	}
	w.t.inline[w.rule] = append(w.t.inline[w.rule], key)
	f, why, reason := w.t.externalFilter(p)
	if why != "" {
		w.invalid(field, true, reason, why)
	}
	return f
}
