package policy

import (
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/protobuf/types/known/anypb"
	"k8s.io/apimachinery/pkg/util/validation"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/security"
)

// Bounds of the lists of application attributes, as in the CRD.
const (
	maxMethods = 16
	maxMany    = 64
	maxFew     = 16
)

// application checks what the CRD checks of application attributes.
func (r *report) application(path string, a *v1alpha1.AuthorizationApplicationAttributes) {
	if len(a.Methods)+len(a.Paths)+len(a.Hosts)+len(a.Headers)+len(a.GRPCMethods)+len(a.Claims) == 0 {
		r.add(path, "needs methods, paths, hosts, headers, grpcMethods or claims")
	}
	r.atMost(path+".methods", len(a.Methods), maxMethods)
	for i, m := range a.Methods {
		if m == "" || len(m) > 32 || strings.Trim(m, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			r.add(fmt.Sprintf("%s.methods[%d]", path, i), "%q is not a method; write it in capitals, such as GET", m)
		}
	}
	r.atMost(path+".paths", len(a.Paths), maxMany)
	for i, p := range a.Paths {
		r.path(fmt.Sprintf("%s.paths[%d]", path, i), p)
	}
	r.atMost(path+".hosts", len(a.Hosts), maxMany)
	for i, h := range a.Hosts {
		if name := strings.TrimPrefix(string(h), "*."); len(validation.IsDNS1123Subdomain(name)) > 0 {
			r.add(fmt.Sprintf("%s.hosts[%d]", path, i), "%q is not a host name; one may begin with *.", h)
		}
	}
	r.headers(path+".headers", a.Headers)
	r.grpcMethods(path+".grpcMethods", a.GRPCMethods)
	r.claims(path+".claims", a.Claims)
}

func (r *report) path(field string, p v1alpha1.AuthorizationPathMatch) {
	switch p.Type {
	case "", gatewayv1.PathMatchExact, gatewayv1.PathMatchPathPrefix:
	default:
		r.add(field+".type", "%q is not possible; use Exact or PathPrefix", p.Type)
	}
	if !strings.HasPrefix(p.Value, "/") || strings.ContainsAny(p.Value, "?#") || len(p.Value) > 1024 {
		r.add(field+".value", "%q is not a path; it begins with / and has no query", p.Value)
	}
}

func (r *report) headers(path string, headers []v1alpha1.AuthorizationHeaderMatch) {
	r.atMost(path, len(headers), maxFew)
	seen := map[string]bool{}
	for i, h := range headers {
		field := fmt.Sprintf("%s[%d]", path, i)
		name := strings.ToLower(string(h.Name))
		if len(validation.IsHTTPHeaderName(name)) > 0 {
			r.add(field+".name", "%q is not the name of a header", h.Name)
		}
		if seen[name] {
			r.add(field+".name", "%q is named twice", h.Name)
		}
		seen[name] = true
		r.values(field, h.Values, maxFew)
	}
}

func (r *report) values(field string, values []string, limit int) {
	if len(values) == 0 {
		r.add(field+".values", "needs a value")
	}
	r.atMost(field+".values", len(values), limit)
}

var (
	grpcServicePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)*$`)
	grpcMethodPattern  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

func (r *report) grpcMethods(path string, list []v1alpha1.AuthorizationGRPCMethodMatch) {
	r.atMost(path, len(list), maxMany)
	for i, g := range list {
		field := fmt.Sprintf("%s[%d]", path, i)
		if g.Service == "" && g.Method == "" {
			r.add(field, "needs service or method")
		}
		if g.Service != "" && !grpcServicePattern.MatchString(g.Service) {
			r.add(field+".service", "%q is not the name of a gRPC service, such as shop.v1.Catalog", g.Service)
		}
		if g.Method != "" && !grpcMethodPattern.MatchString(g.Method) {
			r.add(field+".method", "%q is not the name of a gRPC method", g.Method)
		}
	}
}

func (r *report) claims(path string, list []v1alpha1.AuthorizationClaimMatch) {
	r.atMost(path, len(list), maxFew)
	for i, c := range list {
		field := fmt.Sprintf("%s[%d]", path, i)
		if c.Issuer == "" {
			r.add(field+".issuer", "must say whose token the claim is of")
		}
		if c.Name == "" {
			r.add(field+".name", "must name a claim")
		}
		r.values(field, c.Values, maxMany)
	}
}

// withoutWaypoint says why no waypoint can enforce the policy: it is not about
// Services, or about one that uses no waypoint.
func (t *translator) withoutWaypoint() []Problem {
	r := &report{}
	if t.targets.Kind != TargetServices {
		if t.targets.Kind != TargetNone {
			r.add("spec.enforcementLevel", "Application is possible for Services that use a waypoint, because only a waypoint sees requests; target Services, or use sources and networkAttributes alone and enforcementLevel: Network")
		}
		return r.problems
	}
	t.waypoints = make(map[string]string)
	for i, ref := range t.policy.Spec.TargetRefs {
		name := string(*ref.Name)
		if t.verdicts[i].notFound != "" || ref.Kind == v1alpha1.TargetExternalService {
			continue
		}
		waypoint, ok := t.services.Waypoint(t.policy.Namespace, name)
		if !ok {
			r.add(fmt.Sprintf("spec.targetRefs[%d].name", i), "Service %s/%s uses no waypoint, and enforcementLevel: Application needs one; label the Service or its Namespace ambit-mesh.io/use-waypoint", t.policy.Namespace, name)
			continue
		}
		t.waypoints[name] = waypoint.String()
	}
	return r.problems
}

// requestClause gives what a request must be like.
func requestClause(a *v1alpha1.AuthorizationApplicationAttributes) *security.Clause {
	m := &security.RequestMatch{Methods: a.Methods}
	for _, p := range a.Paths {
		out := &security.RequestPath{Type: &security.RequestPath_Exact{Exact: p.Value}}
		if p.Type == gatewayv1.PathMatchPathPrefix {
			out.Type = &security.RequestPath_Prefix{Prefix: p.Value}
		}
		m.Paths = append(m.Paths, out)
	}
	for _, h := range a.Hosts {
		m.Hosts = append(m.Hosts, strings.ToLower(string(h)))
	}
	for _, h := range a.Headers {
		m.Headers = append(m.Headers, &security.RequestHeader{Name: strings.ToLower(string(h.Name)), Values: h.Values})
	}
	for _, g := range a.GRPCMethods {
		m.GrpcMethods = append(m.GrpcMethods, &security.RequestGRPC{Service: g.Service, Method: g.Method})
	}
	for _, c := range a.Claims {
		m.Claims = append(m.Claims, &security.RequestClaim{Issuer: c.Issuer, Name: c.Name, Values: c.Values})
	}
	match := &security.Match{}
	// As for an Origin, packing cannot fail.
	if config, err := anypb.New(m); err == nil {
		match.Extensions = []*security.Extension{{Name: security.RequestExtension, Config: config}}
	}
	return &security.Clause{Matches: []*security.Match{match}}
}
