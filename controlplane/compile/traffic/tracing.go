package traffic

import (
	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/waypoint"
)

// Tracing gives the wire form of a policy.
func Tracing(p *v1alpha1.TracingPolicy, r *Report) *waypoint.Tracing {
	s := p.Spec.Sampling
	if (s != nil) == p.Spec.Disabled {
		r.Add("spec", "needs sampling, or disabled: true instead of it")
	}
	out := &waypoint.Tracing{Disabled: p.Spec.Disabled}
	if s == nil {
		return out
	}
	if s.Percent == nil && s.Fraction == nil {
		r.Add("spec.sampling", "needs percent or fraction")
	}
	out.Sampling = r.millionths("spec.sampling", s.Share)
	return out
}
