package route

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/controlplane/compile/traffic"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// ruleKinds are the policies that rules inherit.
func ruleKinds() []string {
	return []string{
		v1alpha1.KindRetryPolicy, v1alpha1.KindTimeoutPolicy, v1alpha1.KindFaultInjection, v1alpha1.KindRateLimitPolicy,
		v1alpha1.KindSessionPersistencePolicy, v1alpha1.KindExternalAuthorizationPolicy, v1alpha1.KindTracingPolicy,
	}
}

// findSections notes the ports that have policies of their own: only for these
// the rules of a route have to be compiled apart.
func (t *translation) findSections() {
	t.sections = traffic.Sections(t.mesh, ruleKinds(), t.parent())
}

func (t *translation) section(p *corev1.ServicePort) string {
	if t.sections[p.Name] {
		return p.Name
	}
	return ""
}

// providers translates who issues the tokens that are believed. What is wrong
// with that closes every rule.
func (t *translation) providers() {
	p, ok := traffic.Deciding(t.mesh, v1alpha1.KindJWTAuthentication, traffic.Target{Key: t.parent()}).(*v1alpha1.JWTAuthentication)
	if !ok {
		return
	}
	if t.closed = traffic.Refusal(p); t.closed != "" {
		return
	}
	t.out.Providers = traffic.Providers(p, &traffic.Report{})
	if p.Spec.Required {
		t.signedIn = "JWTAuthentication " + traffic.Name(p) + " requires a token of every request, and none is seen where the port is passed through as TCP, TLS or UDP"
	}
}

// trace settles what is recorded where no rule says more.
func (t *translation) trace() {
	t.out.Tracing = t.tracing(traffic.Target{Key: t.parent()}, traffic.Target{Key: graph.NamespaceKey(t.in.Name.Namespace)})
}

// chain is where a rule inherits from, the most specific target first: GEP-713.
type chain struct {
	t      *translation
	route  []traffic.Target // of the rule, of the route
	parent []traffic.Target // of the port, of the Service
	all    []traffic.Target
}

func (t *translation) chain(route *graph.Key, rule, section string) chain {
	c := chain{t: t}
	if route != nil {
		if rule != "" {
			c.route = append(c.route, traffic.Target{Key: *route, Section: rule})
		}
		c.route = append(c.route, traffic.Target{Key: *route})
	}
	svc := t.parent()
	if section != "" {
		c.parent = append(c.parent, traffic.Target{Key: svc, Section: section})
	}
	c.parent = append(c.parent, traffic.Target{Key: svc})
	c.all = slices.Concat(c.route, c.parent)
	return c
}

// decides gives the policy of a kind of the most specific target that has one.
func (c chain) decides(kind string, targets ...traffic.Target) v1alpha1.TrafficPolicy {
	for _, target := range targets {
		if p := traffic.Deciding(c.t.mesh, kind, target); p != nil {
			return p
		}
	}
	return nil
}

// inherited gives the policy of a kind that a rule inherits, if it is sound.
func inherited[P v1alpha1.TrafficPolicy](c chain, kind string) (P, bool) {
	p, ok := c.decides(kind, c.all...).(P)
	return p, ok && traffic.Refusal(p) == ""
}

// inherit puts into a rule what it has no setting of its own for. route and name
// are nil and "" for a rule that is of no route.
func (t *translation) inherit(rule *waypoint.Rule, route *graph.Key, name, section string, layer7 bool) {
	c := t.chain(route, name, section)
	if p, ok := inherited[*v1alpha1.TimeoutPolicy](c, v1alpha1.KindTimeoutPolicy); ok {
		rule.Timeouts = mergeTimeouts(rule.GetTimeouts(), traffic.Timeouts(p, &traffic.Report{}), layer7)
	}
	shut(rule, t.closed)
	if !layer7 {
		shut(rule, t.signedIn)
		for _, p := range t.external(c, nil) {
			shut(rule, "ExternalAuthorizationPolicy "+traffic.Name(p)+" is about requests, and none is seen where the port is passed through as TCP, TLS or UDP")
		}
		return
	}
	if p, ok := inherited[*v1alpha1.RetryPolicy](c, v1alpha1.KindRetryPolicy); ok && rule.GetRetry() == nil {
		rule.Retry = traffic.Retry(p, &traffic.Report{})
	}
	if p, ok := inherited[*v1alpha1.SessionPersistencePolicy](c, v1alpha1.KindSessionPersistencePolicy); ok && rule.GetSessionPersistence() == nil {
		rule.SessionPersistence = traffic.Session(p, &traffic.Report{})
	}
	if p, ok := inherited[*v1alpha1.FaultInjection](c, v1alpha1.KindFaultInjection); ok {
		rule.Faults = traffic.Faults(t.mesh, p)
	}
	// What the Service and its namespace say is told once, in the frontend.
	rule.Tracing = t.tracing(c.all[:len(c.all)-1]...)
	t.limit(rule, c)
	t.authorize(rule, c)
}

// tracing gives the setting of the first of some targets that has a policy. One
// that is refused has no effect, on this side of the frontend as on the other.
func (t *translation) tracing(targets ...traffic.Target) *waypoint.Tracing {
	for _, target := range targets {
		if p, ok := traffic.Deciding(t.mesh, v1alpha1.KindTracingPolicy, target).(*v1alpha1.TracingPolicy); ok && traffic.Refusal(p) == "" {
			return traffic.Tracing(p, &traffic.Report{})
		}
	}
	return nil
}

// shut makes a rule answer with an error.
func shut(rule *waypoint.Rule, why string) {
	if rule.GetInvalid() == "" {
		rule.Invalid = why
	}
}

// mergeTimeouts fills in what a rule does not say itself.
func mergeTimeouts(own, inherited *waypoint.Timeouts, layer7 bool) *waypoint.Timeouts {
	out := inherited
	if !layer7 {
		out.Request, out.BackendRequest = nil, nil
		return out
	}
	if own.GetRequest() != nil {
		out.Request = own.GetRequest()
	}
	if own.GetBackendRequest() != nil {
		out.BackendRequest = own.GetBackendRequest()
	}
	return out
}

// limit adds the rate limits of all levels, which hold side by side.
func (t *translation) limit(rule *waypoint.Rule, c chain) {
	for _, target := range c.all {
		p, ok := traffic.Deciding(t.mesh, v1alpha1.KindRateLimitPolicy, target).(*v1alpha1.RateLimitPolicy)
		if !ok {
			continue
		}
		limits, why := traffic.RateLimits(t.mesh, p)
		shut(rule, why)
		if t.in.Version && target == (traffic.Target{Key: t.parent()}) {
			limits = t.narrow(limits, rule)
		}
		rule.RateLimits = append(rule.RateLimits, limits...)
	}
}

// refusedLimit says why nothing may be sent to a Service because of its limits,
// which its Backend would have if they were sound.
func (t *translation) refusedLimit(n types.NamespacedName) string {
	p, ok := traffic.Deciding(t.mesh, v1alpha1.KindRateLimitPolicy, traffic.Target{Key: graph.ServiceKey(n)}).(*v1alpha1.RateLimitPolicy)
	if !ok {
		return ""
	}
	_, why := traffic.RateLimits(t.mesh, p)
	return why
}

// narrow takes limits of the Service off the requests that go to the Service
// itself, as far as its Backend has them.
func (t *translation) narrow(limits []*waypoint.RateLimit, rule *waypoint.Rule) []*waypoint.RateLimit {
	self := t.self()
	var all []string
	for _, b := range rule.GetBackends() {
		all = append(all, b.GetBackend().GetService())
	}
	if !slices.Contains(all, self) {
		return limits
	}
	return traffic.ForBackends(limits, self, all)
}

// external gives the policies by which others are asked about the requests of a
// rule: that of the Service, and beside it that of the route. inline are those
// that the rule names as filters.
func (t *translation) external(c chain, inline []graph.Key) []*v1alpha1.ExternalAuthorizationPolicy {
	var out []*v1alpha1.ExternalAuthorizationPolicy
	for _, targets := range [][]traffic.Target{c.parent, c.route} {
		p, ok := c.decides(v1alpha1.KindExternalAuthorizationPolicy, targets...).(*v1alpha1.ExternalAuthorizationPolicy)
		if !ok {
			continue
		}
		if key, _ := graph.KeyOf(p); !slices.Contains(inline, key) && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// authorize puts the questions to others before all filters but CORS, whose
// preflight requests carry no credentials.
func (t *translation) authorize(rule *waypoint.Rule, c chain) {
	var asked []*waypoint.Filter
	for _, p := range t.external(c, t.inline[rule]) {
		f, why, _ := t.externalFilter(p)
		shut(rule, why)
		if f != nil {
			asked = append(asked, f)
		}
	}
	if len(asked) == 0 {
		return
	}
	var first, rest []*waypoint.Filter
	for _, f := range rule.GetFilters() {
		if f.GetCors() != nil {
			first = append(first, f)
		} else {
			rest = append(rest, f)
		}
	}
	rule.Filters = slices.Concat(first, asked, rest)
}

// externalFilter gives the filter of a policy, or why it lets nothing through.
func (t *translation) externalFilter(p *v1alpha1.ExternalAuthorizationPolicy) (f *waypoint.Filter, why string, reason gatewayv1.RouteConditionReason) {
	if why := traffic.Refusal(p); why != "" {
		return nil, why, v1alpha1.ReasonFilterInvalid
	}
	out, b := traffic.External(t.mesh, p)
	if b.Reason != "" {
		return nil, "ExternalAuthorizationPolicy " + traffic.Name(p) + " cannot be enforced: spec.backendRef: " + b.Message, gatewayv1.RouteConditionReason(b.Reason)
	}
	return &waypoint.Filter{Type: &waypoint.Filter_ExternalAuthorization{ExternalAuthorization: out}}, "", ""
}
