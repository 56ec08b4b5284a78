package traffic

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/controlplane/compile/policy"
)

// Bounds of the lists in a policy, as in its CRD.
const (
	maxTargets = 16
	maxRules   = 16
	maxSources = 16
	maxMatches = 8
)

// Validate checks what the CRD of a policy checks, for objects that did not come
// through an API server. It gives nil for a sound policy.
func Validate(p v1alpha1.TrafficPolicy) []policy.Problem {
	r := &Report{}
	r.targets(p)
	switch p := p.(type) {
	case *v1alpha1.RetryPolicy:
		Retry(p, r)
	case *v1alpha1.TimeoutPolicy:
		Timeouts(p, r)
	case *v1alpha1.FaultInjection:
		faults(p, r)
	case *v1alpha1.RateLimitPolicy:
		rateLimits(p, r)
	case *v1alpha1.SessionPersistencePolicy:
		Session(p, r)
	case *v1alpha1.TracingPolicy:
		Tracing(p, r)
	case *v1alpha1.JWTAuthentication:
		Providers(p, r)
	case *v1alpha1.ExternalAuthorizationPolicy:
		external(p, r)
	case *v1alpha1.LoadBalancingPolicy:
		loadBalancing(p, r)
	case *v1alpha1.CircuitBreakerPolicy:
		circuitBreaker(p, r)
	case *v1alpha1.OutlierDetectionPolicy:
		outlierDetection(p, r)
	case *v1alpha1.HealthCheckPolicy:
		healthCheck(p, r)
	}
	return r.Problems
}

// targets checks whether the policy says, in a form that can be read, what it is
// about.
func (r *Report) targets(p v1alpha1.TrafficPolicy) {
	refs := p.Targets()
	_, filter := p.(*v1alpha1.ExternalAuthorizationPolicy)
	if len(refs) == 0 && !filter {
		r.Add("spec.targetRefs", "a policy needs a target")
	}
	r.atMost("spec.targetRefs", len(refs), maxTargets)
	seen := make(map[Target]bool)
	for i, ref := range refs {
		at := fmt.Sprintf("spec.targetRefs[%d]", i)
		switch ref.Kind {
		case v1alpha1.TargetService:
			if ref.Group != "" && ref.Group != "core" {
				r.Add(at+".group", "%q is not the group of a Service, which is written \"\"", ref.Group)
			}
		case v1alpha1.TargetNamespace:
			r.namespaceTarget(at, p, ref)
		case v1alpha1.TargetExternalService:
			if ServiceOnly(p) || p.PolicyKind() == v1alpha1.KindTracingPolicy {
				r.Add(at+".kind", "%s cannot be targeted; use Service", ref.Kind)
			}
			if ref.Group != v1alpha1.GroupName {
				r.Add(at+".group", "%q is not the group of an ExternalService, which is %s", ref.Group, v1alpha1.GroupName)
			}
		case v1alpha1.TargetHTTPRoute, v1alpha1.TargetGRPCRoute:
			if ServiceOnly(p) {
				r.Add(at+".kind", "%s cannot be targeted; use Service", ref.Kind)
			}
			if ref.Group != gatewayv1.GroupName {
				r.Add(at+".group", "%q is not the group of a route, which is %s", ref.Group, gatewayv1.GroupName)
			}
		default:
			r.Add(at+".kind", "%q cannot be targeted; use Service, ExternalService, HTTPRoute or GRPCRoute", ref.Kind)
		}
		if ref.Name == "" && ref.Kind != v1alpha1.TargetNamespace {
			r.Add(at+".name", "a target needs a name")
		}
		t := targetOf(p, ref)
		if seen[t] {
			r.Add(at, "the target is named twice")
		}
		seen[t] = true
	}
}

// namespaceTarget checks a target that is the namespace of the policy.
func (r *Report) namespaceTarget(at string, p v1alpha1.TrafficPolicy, ref v1alpha1.TrafficTargetReference) {
	if _, ok := p.(*v1alpha1.TracingPolicy); !ok {
		r.Add(at+".kind", "%q cannot be targeted; use Service, HTTPRoute or GRPCRoute", ref.Kind)
	}
	if ref.Group != "" && ref.Group != "core" {
		r.Add(at+".group", "%q is not the group of a Namespace, which is written \"\"", ref.Group)
	}
	if ref.Name != "" || ref.SectionName != nil {
		r.Add(at+".name", "a Namespace target has no name and no section: it is the namespace of the policy")
	}
}

// ServiceOnly says whether a policy can be attached to Services only.
func ServiceOnly(p v1alpha1.TrafficPolicy) bool {
	return ofBackend(p) || p.PolicyKind() == v1alpha1.KindJWTAuthentication
}

// ofBackend says whether a policy is about how a Service is treated by those who
// send requests to it, whoever they are.
func ofBackend(p v1alpha1.TrafficPolicy) bool { return slices.Contains(backendKinds, p.PolicyKind()) }

var backendKinds = []string{
	v1alpha1.KindLoadBalancingPolicy, v1alpha1.KindCircuitBreakerPolicy,
	v1alpha1.KindOutlierDetectionPolicy, v1alpha1.KindHealthCheckPolicy,
}

func (r *Report) atMost(field string, n, limit int) {
	if n > limit {
		r.Add(field, "has %d entries, at most %d are possible", n, limit)
	}
}

// duration reads a duration; nil for none.
func (r *Report) duration(field string, d *gatewayv1.Duration) *durationpb.Duration {
	if d == nil {
		return nil
	}
	v, err := ParseDuration(*d)
	if err != nil {
		r.Add(field, "%v", err)
		return nil
	}
	return durationpb.New(v)
}

// durationOr reads a duration that has a default.
func (r *Report) durationOr(field string, d *gatewayv1.Duration, otherwise gatewayv1.Duration) *durationpb.Duration {
	if d == nil {
		d = &otherwise
	}
	return r.duration(field, d)
}

// positive is durationOr for one that must not be 0.
func (r *Report) positive(field string, d *gatewayv1.Duration, otherwise gatewayv1.Duration) *durationpb.Duration {
	v := r.durationOr(field, d, otherwise)
	if v != nil && v.AsDuration() == 0 {
		r.Add(field, "must be longer than 0s")
	}
	return v
}

// number reads a number that has a default and bounds.
func (r *Report) number(field string, n *int32, otherwise, low, high int32) uint32 {
	if n == nil {
		n = &otherwise
	}
	if *n < low || *n > high {
		r.Add(field, "%d is not possible; use %d to %d", *n, low, high)
		return 0
	}
	return uint32(*n) // #nosec G115 -- low is not negative
}

func (r *Report) headerName(field, name string) {
	if !Token(name) {
		r.Add(field, "%q is not the name of a header or cookie", name)
	}
}
