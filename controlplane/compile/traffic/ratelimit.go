package traffic

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// RateLimits gives the wire form of a policy, or why it lets nothing through: it is
// refused, or a service that counts cannot be found. A limit that fails open is
// left out then.
func RateLimits(mesh Mesh, p *v1alpha1.RateLimitPolicy) (limits []*waypoint.RateLimit, closed string) {
	if why := Refusal(p); why != "" {
		return nil, why
	}
	for i, l := range rateLimits(p, &Report{}) {
		rule := &p.Spec.Rules[i]
		l.Backends = chosenBackends(mesh, p.Namespace, &rule.TrafficSelector)
		if rule.Global != nil {
			b := Resolve(mesh, p.Namespace, &rule.Global.BackendRef, UseGRPC)
			switch {
			case b.Reason != "" && rule.Global.FailOpen:
				continue
			case b.Reason != "":
				return nil, "RateLimitPolicy " + Name(p) + " cannot be enforced: " + b.Message
			}
			l.Global.Backend = b.Ref
		}
		limits = append(limits, l)
	}
	return limits, ""
}

const maxRequests = 1_000_000_000

var units = map[v1alpha1.RateLimitUnit]time.Duration{
	"": time.Second, v1alpha1.UnitSecond: time.Second, v1alpha1.UnitMinute: time.Minute,
	v1alpha1.UnitHour: time.Hour, v1alpha1.UnitDay: 24 * time.Hour,
}

func rateLimits(p *v1alpha1.RateLimitPolicy, r *Report) []*waypoint.RateLimit {
	if len(p.Spec.Rules) == 0 {
		r.Add("spec.rules", "at least one rule is needed; without rules the policy would do nothing")
	}
	r.atMost("spec.rules", len(p.Spec.Rules), maxRules)
	names := make(map[string]bool)
	var out []*waypoint.RateLimit
	for i := range p.Spec.Rules {
		at, rule := fmt.Sprintf("spec.rules[%d]", i), &p.Spec.Rules[i]
		s := r.selector(at, i, &rule.TrafficSelector, names)
		unit, ok := units[rule.Unit]
		if !ok {
			r.Add(at+".unit", "%q is not a unit; use Second, Minute, Hour or Day", rule.Unit)
		}
		l := &waypoint.RateLimit{
			Policy: Name(p), Rule: s.rule, Sources: s.sources, Matches: s.matches,
			Requests: r.number(at+".requests", &rule.Requests, 0, 1, maxRequests), Unit: durationpb.New(unit),
			Key: r.rateKey(at+".key", rule.Key),
		}
		if rule.Burst != nil {
			l.Burst = r.number(at+".burst", rule.Burst, 0, 1, maxRequests)
		}
		if g := rule.Global; g != nil {
			l.Global = &waypoint.GlobalRateLimit{
				Domain: g.Domain, FailOpen: g.FailOpen, Timeout: r.positive(at+".global.timeout", g.Timeout, "100ms"),
			}
			if g.Domain == "" {
				l.Global.Domain = Name(p)
			}
		}
		out = append(out, l)
	}
	return out
}

var keys = map[v1alpha1.RateLimitKeyType]waypoint.RateLimitKey_Type{
	v1alpha1.KeyIdentity:  waypoint.RateLimitKey_TYPE_IDENTITY,
	v1alpha1.KeyNamespace: waypoint.RateLimitKey_TYPE_NAMESPACE,
	v1alpha1.KeyHeader:    waypoint.RateLimitKey_TYPE_HEADER,
	v1alpha1.KeyPath:      waypoint.RateLimitKey_TYPE_PATH,
	v1alpha1.KeyAddress:   waypoint.RateLimitKey_TYPE_ADDRESS,
}

func (r *Report) rateKey(at string, list []v1alpha1.RateLimitKey) []*waypoint.RateLimitKey {
	r.atMost(at, len(list), 4)
	var out []*waypoint.RateLimitKey
	for i, k := range list {
		field := fmt.Sprintf("%s[%d]", at, i)
		v, ok := keys[k.Type]
		if !ok {
			r.Add(field+".type", "%q is not a property; use Identity, Namespace, Header, Path or Address", k.Type)
		}
		key := &waypoint.RateLimitKey{Type: v}
		switch {
		case (k.Type == v1alpha1.KeyHeader) != (k.Header != nil):
			r.Add(field+".header", "must be set exactly when type is Header")
		case k.Header != nil:
			r.headerName(field+".header", string(*k.Header))
			key.Name = strings.ToLower(string(*k.Header))
		}
		out = append(out, key)
	}
	return out
}

// ForBackends narrows limits of a Service's policy to the backends other than the
// Service itself, whose own Backend has the limits already: no request may be
// counted twice. all is every backend of the rule that the limits are for.
func ForBackends(limits []*waypoint.RateLimit, self string, all []string) []*waypoint.RateLimit {
	others := slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == self })
	slices.Sort(others)
	others = slices.Compact(others)
	var out []*waypoint.RateLimit
	for _, l := range limits {
		mine := l.GetBackends()
		switch {
		case len(mine) == 0:
			l.Backends = others
		default:
			l.Backends = slices.DeleteFunc(slices.Clone(mine), func(s string) bool { return s == self })
		}
		if len(l.GetBackends()) > 0 {
			out = append(out, l)
		}
	}
	return out
}

// backendLimits gives the limits of a Service that hold for requests which routes
// of others send to it.
func backendLimits(mesh Mesh, n types.NamespacedName) []*waypoint.RateLimit {
	p, ok := Deciding(mesh, v1alpha1.KindRateLimitPolicy, Target{Key: graph.ServiceKey(n)}).(*v1alpha1.RateLimitPolicy)
	if !ok {
		return nil
	}
	self := mesh.ServiceName(n)
	limits, _ := RateLimits(mesh, p) // one that is closed closes the rules that lead here
	var out []*waypoint.RateLimit
	for _, l := range limits {
		if len(l.GetBackends()) > 0 && !slices.Contains(l.GetBackends(), self) {
			continue
		}
		l.Backends = nil
		out = append(out, l)
	}
	return out
}
