package traffic

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/ambit-mesh/ambit/apis/gatewayx"
	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/controlplane/compile/policy"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// verdict is what the status says of one target, or of the whole policy: that it
// is accepted when reason is "".
type verdict struct {
	field           string
	reason, message string
}

// Status gives the status of a policy that is attached to services or routes, and
// what a person should put right.
func Status(mesh Mesh, obj graph.Object) (v1alpha1.PolicyStatus, []policy.Problem) {
	switch p := obj.(type) {
	case v1alpha1.TrafficPolicy:
		return statusOf(mesh, p)
	case *gatewayxv1alpha1.XBackendTrafficPolicy:
		return statusOfX(mesh, p)
	case *gatewayv1.BackendTLSPolicy:
		return statusOfTLS(mesh, p)
	case *gatewayx.XTelemetryPolicy:
		return statusOfTelemetry(mesh, p)
	}
	return v1alpha1.PolicyStatus{}, nil
}

func statusOf(mesh Mesh, p v1alpha1.TrafficPolicy) (v1alpha1.PolicyStatus, []policy.Problem) {
	problems := Validate(p)
	whole := verdict{}
	if len(problems) > 0 {
		whole = verdict{reason: string(gatewayv1.PolicyReasonInvalid), message: listed(problems) + consequence(p)}
	} else if missing := unresolved(mesh, p); len(missing) > 0 {
		problems = missing
		whole = verdict{reason: v1alpha1.ReasonBackendNotFound, message: listed(missing)}
	}
	b := builder{generation: p.GetGeneration(), problems: problems}
	for i, ref := range p.Targets() {
		v := whole
		if v.reason == "" {
			v = judge(mesh, p, targetOf(p, ref))
			v.field = fmt.Sprintf("spec.targetRefs[%d]", i)
		}
		b.target(parentRef(p.GetNamespace(), ref), v)
	}
	return b.finish(whole), b.problems
}

// consequence says what a refused policy does.
func consequence(p v1alpha1.TrafficPolicy) string {
	switch p.(type) {
	case *v1alpha1.RateLimitPolicy, *v1alpha1.JWTAuthentication, *v1alpha1.ExternalAuthorizationPolicy:
		return "; until that is put right, no request is let through where the policy is attached"
	}
	return "; the policy has no effect"
}

// unresolved says which Services that a policy refers to cannot be used, and what
// follows.
func unresolved(mesh Mesh, p v1alpha1.TrafficPolicy) []policy.Problem {
	r := &Report{}
	resolve := func(field string, ref *gatewayv1.BackendObjectReference, use Use, follows string) {
		if b := Resolve(mesh, p.GetNamespace(), ref, use); b.Reason != "" {
			r.Add(field, "%s; %s", b.Message, follows)
		}
	}
	switch p := p.(type) {
	case *v1alpha1.ExternalAuthorizationPolicy:
		resolve("spec.backendRef", &p.Spec.BackendRef, externalUse(p), "no request is let through where the policy is attached")
	case *v1alpha1.FaultInjection:
		for i := range p.Spec.Rules {
			missingBackends(mesh, p.Namespace, fmt.Sprintf("spec.rules[%d]", i), &p.Spec.Rules[i].TrafficSelector, r)
		}
	case *v1alpha1.RateLimitPolicy:
		for i := range p.Spec.Rules {
			at, rule := fmt.Sprintf("spec.rules[%d]", i), &p.Spec.Rules[i]
			missingBackends(mesh, p.Namespace, at, &rule.TrafficSelector, r)
			if rule.Global == nil {
				continue
			}
			follows := "no request is let through where the policy is attached"
			if rule.Global.FailOpen {
				follows = "every request that the rule counts is let through, because failOpen is set"
			}
			resolve(at+".global.backendRef", &rule.Global.BackendRef, UseGRPC, follows)
		}
	}
	return r.Problems
}

// judge says what becomes of a sound policy at one target.
func judge(mesh Mesh, p v1alpha1.TrafficPolicy, t Target) verdict {
	missing, bound := reach(mesh, p, t)
	switch decides := Deciding(mesh, p.PolicyKind(), t); {
	case missing != "":
		return verdict{reason: string(gatewayv1.PolicyReasonTargetNotFound), message: missing}
	case decides != nil && (decides.GetName() != p.GetName() || decides.GetNamespace() != p.GetNamespace()):
		return verdict{
			reason:  string(gatewayv1.PolicyReasonConflicted),
			message: decides.PolicyKind() + " " + Name(decides) + " is older, has the very same target and decides; remove one of the two",
		}
	case blind(mesh, p, t):
		return verdict{
			reason: string(gatewayv1.RouteReasonUnsupportedProtocol),
			message: "the ports of " + t.Key.String() + " that the policy is about are said to speak TCP or TLS (appProtocol or port name), " +
				"where a waypoint sees no requests; set appProtocol if they speak HTTP",
		}
	case !bound:
		return verdict{
			reason: v1alpha1.ReasonWaypointRequired,
			message: "no waypoint handles the requests of " + t.Key.String() + ", so the policy has no effect; bind its Service to one with the label " +
				graph.LabelUseWaypoint,
		}
	}
	return verdict{message: "enforced by the waypoints that handle the requests of " + t.Key.String()}
}

// reach says whether a target is there, and whether a waypoint sees its requests.
func reach(mesh Mesh, p v1alpha1.TrafficPolicy, t Target) (missing string, bound bool) {
	if s, of := addressed(mesh, t); of {
		n := t.Key.NamespacedName()
		if s == nil {
			return "there is no " + t.Key.Kind + " " + n.String(), false
		}
		if t.Section != "" {
			found := false
			for i := range s.Spec.Ports {
				found = found || s.Spec.Ports[i].Name == t.Section
			}
			if !found {
				return t.Key.Kind + " " + n.String() + " has no port named " + t.Section, false
			}
		}
		if t.Key.Kind == string(v1alpha1.TargetExternalService) {
			return "", mesh.ExternalBound(n)
		}
		return "", mesh.Bound(n) || receives(p, t) && Version(mesh, n)
	}
	if t.Key.Kind == string(v1alpha1.TargetNamespace) {
		return "", mesh.BoundIn(t.Key.Name)
	}
	route := mesh.Object(t.Key)
	if route == nil {
		return "there is no " + t.Key.String(), false
	}
	if t.Section != "" && !hasRule(route, t.Section) {
		return t.Key.String() + " has no rule named " + t.Section, false
	}
	for _, parent := range graph.Parents(route) {
		bound = bound || boundTo(mesh, parent)
	}
	return "", bound
}

// addressed gives the Service that a target is, or the ExternalService as one; false
// for other targets.
func addressed(mesh Mesh, t Target) (*corev1.Service, bool) {
	switch t.Key.Kind {
	case string(v1alpha1.TargetService):
		return mesh.Service(t.Key.NamespacedName()), true
	case string(v1alpha1.TargetExternalService):
		return mesh.External(t.Key.NamespacedName()), true
	}
	return nil, false
}

func boundTo(mesh Mesh, parent graph.Key) bool {
	if parent.Kind == v1alpha1.KindExternalService {
		return mesh.ExternalBound(parent.NamespacedName())
	}
	return mesh.Bound(parent.NamespacedName())
}

// blind says that a policy is about requests and is attached to ports in which
// none are seen.
func blind(mesh Mesh, p v1alpha1.TrafficPolicy, t Target) bool {
	s, of := addressed(mesh, t)
	if !of || s == nil || ofBackend(p) || p.PolicyKind() == v1alpha1.KindTimeoutPolicy {
		return false
	}
	found := false
	for i := range s.Spec.Ports {
		port := &s.Spec.Ports[i]
		if t.Section != "" && t.Section != port.Name || !TCP(port) && !UDP(port) {
			continue
		}
		if UDP(port) {
			found = true
			continue
		}
		if speaks := PortSpeaks(port); speaks != SpeaksTCP && speaks != SpeaksTLS {
			return false
		}
		found = true
	}
	return found
}

// receives says whether a policy holds for a Service to which routes of others
// send requests.
func receives(p v1alpha1.TrafficPolicy, t Target) bool {
	return ofBackend(p) || p.PolicyKind() == v1alpha1.KindRateLimitPolicy && t.Section == ""
}

// Version says whether routes of other Services, which a waypoint serves, may send
// requests to a Service.
func Version(mesh Mesh, n types.NamespacedName) bool {
	for _, obj := range mesh.Users(n) {
		for _, parent := range graph.Parents(obj) {
			if parent != graph.ServiceKey(n) && boundTo(mesh, parent) {
				return true
			}
		}
	}
	return false
}

func hasRule(route graph.Object, name string) bool {
	is := func(n *gatewayv1.SectionName) bool { return n != nil && string(*n) == name }
	switch o := route.(type) {
	case *gatewayv1.HTTPRoute:
		for i := range o.Spec.Rules {
			if is(o.Spec.Rules[i].Name) {
				return true
			}
		}
	case *gatewayv1.GRPCRoute:
		for i := range o.Spec.Rules {
			if is(o.Spec.Rules[i].Name) {
				return true
			}
		}
	}
	return false
}

func parentRef(namespace string, ref v1alpha1.TrafficTargetReference) gatewayv1.ParentReference {
	group, kind, ns := ref.Group, ref.Kind, gatewayv1.Namespace(namespace)
	if group == "core" {
		group = ""
	}
	if kind == v1alpha1.TargetNamespace {
		return gatewayv1.ParentReference{Group: &group, Kind: &kind, Name: gatewayv1.ObjectName(namespace)}
	}
	return gatewayv1.ParentReference{Group: &group, Kind: &kind, Namespace: &ns, Name: ref.Name, SectionName: ref.SectionName}
}

// builder puts a status together.
type builder struct {
	generation int64
	status     v1alpha1.PolicyStatus
	problems   []policy.Problem
	refused    []verdict
	// resolved is a second condition of each target, of kinds that have it.
	resolved *metav1.Condition
}

func (b *builder) target(ref gatewayv1.ParentReference, v verdict) {
	if v.reason != "" && v.field != "" {
		b.refused = append(b.refused, v)
		b.problems = append(b.problems, policy.Problem{Field: v.field, Message: v.message})
	}
	if len(b.status.Ancestors) == maxTargets {
		return
	}
	conditions := []metav1.Condition{v.condition(b.generation)}
	if b.resolved != nil {
		conditions = append(conditions, *b.resolved)
	}
	b.status.Ancestors = append(b.status.Ancestors, gatewayv1.PolicyAncestorStatus{
		AncestorRef: ref, ControllerName: v1alpha1.ControllerName, Conditions: conditions,
	})
}

// finish gives the status, whose summary is that of the first target that is
// refused.
func (b *builder) finish(whole verdict) v1alpha1.PolicyStatus {
	switch {
	case whole.reason != "":
	case len(b.refused) > 0:
		whole = b.refused[0]
		if len(b.refused) > 1 {
			whole.message += "; so it is for other targets"
		}
	case len(b.status.Ancestors) == 0:
		whole.message = "used where a route names it as a filter"
	default:
		whole.message = "enforced for each of its targets"
	}
	b.status.Conditions = []metav1.Condition{whole.condition(b.generation)}
	return b.status
}

func (v verdict) condition(generation int64) metav1.Condition {
	c := metav1.Condition{
		Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionTrue, ObservedGeneration: generation,
		Reason: string(gatewayv1.PolicyReasonAccepted), Message: v.message,
	}
	if v.reason != "" {
		c.Status, c.Reason = metav1.ConditionFalse, v.reason
	}
	const limit = 4096 // of the 32768 bytes that a condition may hold
	if len(c.Message) > limit {
		c.Message = strings.ToValidUTF8(c.Message[:limit], "") + "..."
	}
	return c
}

// statusOfX gives the status of a policy of GEP-3388. Its session persistence is
// deprecated by the GEP and is not carried out.
func statusOfX(mesh Mesh, p *gatewayxv1alpha1.XBackendTrafficPolicy) (v1alpha1.PolicyStatus, []policy.Problem) {
	r := &Report{}
	retryBudget(p, r)
	if p.Spec.SessionPersistence != nil {
		r.Add("spec.sessionPersistence", "is deprecated there and not carried out; use SessionPersistencePolicy")
	}
	whole := verdict{}
	if len(r.Problems) > 0 {
		whole = verdict{reason: string(gatewayv1.PolicyReasonInvalid), message: listed(r.Problems)}
	}
	b := builder{generation: p.GetGeneration(), problems: r.Problems}
	for i, ref := range p.Spec.TargetRefs {
		v := whole
		if v.reason == "" {
			v = judgeX(mesh, p, ref)
			v.field = fmt.Sprintf("spec.targetRefs[%d]", i)
		}
		b.target(parentRef(p.GetNamespace(), v1alpha1.TrafficTargetReference{Group: ref.Group, Kind: ref.Kind, Name: ref.Name}), v)
	}
	return b.finish(whole), b.problems
}

func judgeX(mesh Mesh, p *gatewayxv1alpha1.XBackendTrafficPolicy, ref gatewayv1.LocalPolicyTargetReference) verdict {
	n := types.NamespacedName{Namespace: p.Namespace, Name: string(ref.Name)}
	decides := decidingX(mesh, n)
	switch {
	case ref.Kind != v1alpha1.TargetService || ref.Group != "":
		return verdict{reason: string(gatewayv1.PolicyReasonInvalid), message: string(ref.Kind) + " cannot be targeted; use a Service, of group \"\""}
	case mesh.Service(n) == nil:
		return verdict{reason: string(gatewayv1.PolicyReasonTargetNotFound), message: "there is no Service " + n.String()}
	case decides != nil && decides.Name != p.Name:
		return verdict{
			reason:  string(gatewayv1.PolicyReasonConflicted),
			message: "XBackendTrafficPolicy " + decides.Namespace + "/" + decides.Name + " is older, has the very same target and decides; remove one of the two",
		}
	case !mesh.Bound(n) && !Version(mesh, n):
		return verdict{
			reason:  v1alpha1.ReasonWaypointRequired,
			message: "no waypoint sends requests to Service " + n.String() + ", so the policy has no effect; bind it to one with the label " + graph.LabelUseWaypoint,
		}
	}
	return verdict{message: "enforced by the waypoints that send requests to Service " + n.String()}
}
