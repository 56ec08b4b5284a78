package route

import (
	"fmt"
	"time"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
)

// million is what shares of faults and of tracing are parts of.
const million = 1_000_000

// Fault delays or aborts a share of the requests that it is about.
type Fault struct {
	// Policy is <namespace>/<name> of the object, Rule the rule in it.
	Policy, Rule string

	scope scope
	delay time.Duration
	// delayShare and abortShare are in millionths.
	delayShare, abortShare uint32
	status                 int
	code                   Code
}

// FaultDecision is what is done to a request. The delay comes first.
type FaultDecision struct {
	Delay time.Duration
	// DelayedBy and AbortedBy are <namespace>/<name> of the policy, and its rule
	// where it has a name; "" is nobody.
	DelayedBy, AbortedBy string
	// Status and Code are those of the abort.
	Status int
	Code   Code
}

// Fault decides whether a request for a service gets a fault, by a random number.
// Of several the first that strikes delays, and the first that strikes aborts.
func (r *Rule) Fault(client Client, req *message.Request, service string, random uint64) FaultDecision {
	var d FaultDecision
	if len(r.Faults) == 0 {
		return d
	}
	v := look(req)
	for i, f := range r.Faults {
		if !f.scope.holds(&client, &v, service) {
			continue
		}
		if d.DelayedBy == "" && below(mix(random, 2*i), million) < uint64(f.delayShare) {
			d.Delay, d.DelayedBy = f.delay, f.name()
		}
		if d.AbortedBy == "" && below(mix(random, 2*i+1), million) < uint64(f.abortShare) {
			d.Status, d.Code, d.AbortedBy = f.status, f.code, f.name()
		}
	}
	return d
}

func (f *Fault) name() string { return policyName(f.Policy, f.Rule) }

func policyName(policy, rule string) string {
	if rule == "" {
		return policy
	}
	return policy + "/" + rule
}

func (c *compiler) fault(at string, pb *waypoint.Fault) *Fault {
	f := &Fault{
		Policy: pb.GetPolicy(), Rule: pb.GetRule(),
		scope: c.scope(at, pb.GetSources(), pb.GetMatches(), pb.GetBackends()),
	}
	if d := pb.GetDelay(); d != nil {
		f.delay = c.duration(at+".delay.duration", d.GetDuration())
		f.delayShare = c.share(at+".delay.share", d.GetShare())
	}
	if a := pb.GetAbort(); a != nil {
		f.abortShare = c.share(at+".abort.share", a.GetShare())
		f.status, f.code = c.abortStatus(at+".abort", a)
	}
	return f
}

// abortStatus fills in what is not set: 503 and what it stands for.
func (c *compiler) abortStatus(at string, a *waypoint.Abort) (int, Code) {
	status := int(a.GetHttpStatus())
	switch {
	case status == 0:
		status = 503
	case status < 200 || status > 599:
		c.problem(at+".http_status", fmt.Sprintf("%d cannot be answered; use 200 to 599", status))
	}
	if a.GetGrpcCode() == "" {
		return status, CodeOfStatus(status)
	}
	return status, c.code(at+".grpc_code", a.GetGrpcCode())
}

// share reads a share in millionths.
func (c *compiler) share(at string, share uint32) uint32 {
	if share > million {
		c.problem(at, fmt.Sprintf("%d millionths are more than all; use 0 to 1000000", share))
	}
	return share
}

func (c *compiler) code(at, name string) Code {
	code, ok := ParseCode(name)
	if !ok {
		c.problem(at, fmt.Sprintf("%q is not a gRPC code; use a name such as UNAVAILABLE", name))
	}
	return code
}
