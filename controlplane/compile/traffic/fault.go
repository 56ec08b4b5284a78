package traffic

import (
	"fmt"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/waypoint"
)

// Faults gives the wire form of a sound policy.
func Faults(mesh Mesh, p *v1alpha1.FaultInjection) []*waypoint.Fault {
	out := faults(p, &Report{})
	for i, f := range out {
		f.Backends = chosenBackends(mesh, p.Namespace, &p.Spec.Rules[i].TrafficSelector)
	}
	return out
}

func faults(p *v1alpha1.FaultInjection, r *Report) []*waypoint.Fault {
	if len(p.Spec.Rules) == 0 {
		r.Add("spec.rules", "at least one rule is needed; without rules the policy would do nothing")
	}
	r.atMost("spec.rules", len(p.Spec.Rules), maxRules)
	names := make(map[string]bool)
	var out []*waypoint.Fault
	for i := range p.Spec.Rules {
		at, rule := fmt.Sprintf("spec.rules[%d]", i), &p.Spec.Rules[i]
		s := r.selector(at, i, &rule.TrafficSelector, names)
		f := &waypoint.Fault{Policy: Name(p), Rule: s.rule, Sources: s.sources, Matches: s.matches}
		if rule.Delay == nil && rule.Abort == nil {
			r.Add(at, "needs delay or abort; without either it would do nothing")
		}
		if d := rule.Delay; d != nil {
			f.Delay = &waypoint.Delay{
				Duration: r.positive(at+".delay.duration", &d.Duration, ""),
				Share:    r.millionths(at+".delay", d.Share),
			}
		}
		if rule.Abort != nil {
			f.Abort = r.abort(at+".abort", rule.Abort)
		}
		out = append(out, f)
	}
	return out
}

func (r *Report) abort(at string, a *v1alpha1.FaultAbort) *waypoint.Abort {
	out := &waypoint.Abort{
		Share:      r.millionths(at, a.Share),
		HttpStatus: r.number(at+".httpStatus", a.HTTPStatus, 503, 200, 599),
		GrpcCode:   "UNAVAILABLE",
	}
	if a.GRPCStatus != nil {
		r.grpcCode(at+".grpcStatus", *a.GRPCStatus)
		out.GrpcCode = string(*a.GRPCStatus)
	}
	if a.HTTPStatus == nil && a.GRPCStatus == nil {
		r.Add(at, "needs httpStatus or grpcStatus")
	}
	return out
}
