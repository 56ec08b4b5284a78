package traffic

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/gatewayx"
	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/controlplane/compile/policy"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/internal/trace/attr"
)

// Bounds of an XTelemetryPolicy, as in its CRD; that of attributes is ours.
const (
	maxTelemetryHeaders = 16
	maxAttributes       = 32
	maxServiceName      = 253
	maxTelemetryText    = 256
	maxLiteral          = 1024
)

// Telemetry gives what the Gateway of a waypoint says of the spans of all that it serves,
// and which requests are sampled where no TracingPolicy says it; nil where it says nothing.
// A policy that is refused has no effect.
func Telemetry(mesh Mesh, n types.NamespacedName) (*waypoint.Telemetry, *waypoint.Tracing) {
	p := decidingTelemetry(mesh, graph.GatewayKey(n))
	if p == nil {
		return nil, nil
	}
	r := &Report{}
	telemetry, tracing, _ := translateTelemetry(mesh, p, r)
	if len(r.Problems) > 0 {
		return nil, nil
	}
	return telemetry, tracing
}

// decidingTelemetry gives the policy that decides for a Gateway, sound or not: the oldest.
func decidingTelemetry(mesh Mesh, gateway graph.Key) *gatewayx.XTelemetryPolicy {
	var best *gatewayx.XTelemetryPolicy
	for _, obj := range mesh.Attached(gatewayx.KindTelemetryPolicy, gateway) {
		p, ok := obj.(*gatewayx.XTelemetryPolicy)
		if ok && (best == nil || Older(p, best) < 0) {
			best = p
		}
	}
	return best
}

// translateTelemetry gives the wire form of a policy, what is wrong with it, and what of
// the reference to its collector.
func translateTelemetry(mesh Mesh, p *gatewayx.XTelemetryPolicy, r *Report) (*waypoint.Telemetry, *waypoint.Tracing, Resolved) {
	r.gateways(p)
	t := p.Spec.Tracing
	if t == nil {
		r.Add("spec.tracing", "is all that the policy can be about; set it")
		return nil, nil, Resolved{}
	}
	switch t.Mode {
	case gatewayx.Enabled:
	case gatewayx.Disabled:
		r.onlyEnabled(t)
		return nil, &waypoint.Tracing{Disabled: true}, Resolved{}
	case gatewayx.ImplementationDefault, "":
		r.onlyEnabled(t)
		return nil, nil, Resolved{}
	default:
		r.Add("spec.tracing.mode", "%q is not a mode; use Enabled, Disabled or ImplementationDefault", t.Mode)
		return nil, nil, Resolved{}
	}
	out := &waypoint.Telemetry{ServiceName: t.ServiceName, SpanName: t.SpanName}
	r.text("spec.tracing.serviceName", t.ServiceName, maxServiceName, "")
	r.text("spec.tracing.spanName", t.SpanName, maxTelemetryText, " ")
	var b Resolved
	if t.Provider == nil {
		r.Add("spec.tracing.provider", "is required with mode Enabled: it says where the spans go")
	} else {
		out.Collector, b = r.collector(mesh, p.Namespace, t.Provider)
	}
	out.Attributes = r.attributes(t.Attributes)
	out.Parent = r.parent(t.ParentBasedSampling)
	var tracing *waypoint.Tracing
	if t.SamplingRate != nil {
		tracing = &waypoint.Tracing{Sampling: r.fraction("spec.tracing.samplingRate", t.SamplingRate)}
	}
	return out, tracing, b
}

// gateways checks what a policy is about.
func (r *Report) gateways(p *gatewayx.XTelemetryPolicy) {
	if len(p.Spec.TargetRefs) == 0 {
		r.Add("spec.targetRefs", "a policy needs a target")
	}
	r.atMost("spec.targetRefs", len(p.Spec.TargetRefs), maxTargets)
	for i, ref := range p.Spec.TargetRefs {
		if slices.Contains(p.Spec.TargetRefs[:i], ref) {
			r.Add(fmt.Sprintf("spec.targetRefs[%d]", i), "the target is named twice")
		}
	}
}

// onlyEnabled checks that nothing is set that a mode other than Enabled has no use for.
func (r *Report) onlyEnabled(t *gatewayx.TracingConfig) {
	for _, f := range []struct {
		field string
		set   bool
	}{
		{"provider", t.Provider != nil},
		{"samplingRate", t.SamplingRate != nil},
		{"parentBasedSampling", t.ParentBasedSampling != nil},
		{"serviceName", t.ServiceName != ""},
		{"spanName", t.SpanName != ""},
		{"attributes", len(t.Attributes) > 0},
	} {
		if f.set {
			r.Add("spec.tracing."+f.field, "may be set only when mode is Enabled")
		}
	}
}

// text checks a name of letters, digits and some marks, and of what more is allowed
// within it.
func (r *Report) text(field, s string, limit int, more string) {
	r.atMost(field, len(s), limit)
	const marks = "_.:/-"
	for i, c := range s {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.ContainsRune(marks, c):
		case strings.ContainsRune(more, c) && i > 0 && i < len(s)-1:
		default:
			r.Add(field, "%q has a character other than letters, digits and %s", s, marks)
			return
		}
	}
}

func (r *Report) collector(mesh Mesh, namespace string, p *gatewayx.TracingProvider) (*waypoint.Collector, Resolved) {
	b := Resolve(mesh, namespace, &p.BackendRef, UseGRPC)
	out := &waypoint.Collector{Service: b.Ref.GetService(), Port: b.Ref.GetPort(), Invalid: b.Ref.GetInvalid()}
	const at = "spec.tracing.provider.headers"
	r.atMost(at, len(p.Headers), maxTelemetryHeaders)
	for i, h := range p.Headers {
		name := strings.ToLower(string(h.Name))
		r.headerName(fmt.Sprintf("%s[%d].name", at, i), name)
		if attr.Framing(name) {
			r.Add(fmt.Sprintf("%s[%d].name", at, i), "%s is the call's own; remove it", name)
		}
		if strings.ContainsAny(h.Value, "\r\n\x00") {
			r.Add(fmt.Sprintf("%s[%d].value", at, i), "has a line break or NUL")
		}
		out.Headers = append(out.Headers, &waypoint.Header{Name: name, Value: h.Value})
	}
	return out, b
}

func (r *Report) parent(s *gatewayx.ParentBasedSampling) *waypoint.ParentSampling {
	const at = "spec.tracing.parentBasedSampling"
	if s == nil {
		return nil
	}
	if s.SamplingRate != nil && s.Mode != gatewayx.Enabled {
		r.Add(at+".samplingRate", "may be set only when mode is Enabled")
	}
	switch s.Mode {
	case gatewayx.Enabled:
		if s.SamplingRate == nil {
			return nil // all, as where nothing is said
		}
		return &waypoint.ParentSampling{Sampling: r.fraction(at+".samplingRate", s.SamplingRate)}
	case gatewayx.Disabled:
		return &waypoint.ParentSampling{Ignored: true}
	case gatewayx.ImplementationDefault, "":
	default:
		r.Add(at+".mode", "%q is not a mode; use Enabled, Disabled or ImplementationDefault", s.Mode)
	}
	return nil
}

func (r *Report) attributes(list []gatewayx.Attribute) []*waypoint.SpanAttribute {
	r.atMost("spec.tracing.attributes", len(list), maxAttributes)
	var out []*waypoint.SpanAttribute
	seen := make(map[string]bool)
	for i := range list {
		a, at := &list[i], fmt.Sprintf("spec.tracing.attributes[%d]", i)
		if a.Name == "" {
			r.Add(at+".name", "an attribute needs a name")
		}
		r.text(at+".name", a.Name, maxTelemetryText, "")
		if seen[a.Name] {
			r.Add(at+".name", "%q is there twice", a.Name)
		}
		seen[a.Name] = true
		out = append(out, r.attribute(at, a))
	}
	return out
}

// attribute reads one; of its sources the one must be set that its type says.
func (r *Report) attribute(at string, a *gatewayx.Attribute) *waypoint.SpanAttribute {
	out := &waypoint.SpanAttribute{Name: a.Name}
	for _, f := range []struct {
		of           gatewayx.SourceType
		field, value string
	}{
		{gatewayx.SourceHeader, "headerName", string(a.HeaderName)}, {gatewayx.SourceLiteral, "literalValue", a.LiteralValue}, {gatewayx.SourceAttribute, "attributeKey", a.AttributeKey},
	} {
		if (f.value != "") != (a.SourceType == f.of) {
			r.Add(at+"."+f.field, "must be set exactly when sourceType is %s", f.of)
		}
	}
	switch a.SourceType {
	case gatewayx.SourceHeader:
		name := strings.ToLower(string(a.HeaderName))
		r.headerName(at+".headerName", name)
		if attr.Secret(name) {
			r.Add(at+".headerName", "%s holds credentials, which do not belong into spans", name)
		}
		out.Source = &waypoint.SpanAttribute_Header{Header: name}
	case gatewayx.SourceLiteral:
		r.atMost(at+".literalValue", len(a.LiteralValue), maxLiteral)
		out.Source = &waypoint.SpanAttribute_Literal{Literal: a.LiteralValue}
	case gatewayx.SourceAttribute:
		if !attr.Known(a.AttributeKey) {
			r.Add(at+".attributeKey", "%q is not an attribute that spans have; use one of %s", a.AttributeKey, strings.Join(attr.Keys(), ", "))
		}
		out.Source = &waypoint.SpanAttribute_Attribute{Attribute: a.AttributeKey}
	default:
		r.Add(at+".sourceType", "%q is not a source; use Header, Literal or Attribute", a.SourceType)
	}
	return out
}

// statusOfTelemetry gives the status of a policy of GEP-4768: for each Gateway whether it
// is accepted, and whether its collector was found.
func statusOfTelemetry(mesh Mesh, p *gatewayx.XTelemetryPolicy) (v1alpha1.PolicyStatus, []policy.Problem) {
	r := &Report{}
	_, _, b := translateTelemetry(mesh, p, r)
	problems := r.Problems
	whole := verdict{}
	if len(problems) > 0 {
		whole = verdict{reason: string(gatewayv1.PolicyReasonInvalid), message: listed(problems) + "; the policy has no effect"}
	}
	resolved := metav1.Condition{
		Type: string(gatewayv1.RouteConditionResolvedRefs), Status: metav1.ConditionTrue, ObservedGeneration: p.Generation,
		Reason: string(gatewayv1.RouteReasonResolvedRefs), Message: "all references are resolved",
	}
	if b.Reason != "" {
		message := b.Message + "; until that is put right, no spans are made"
		resolved.Status, resolved.Reason, resolved.Message = metav1.ConditionFalse, b.Reason, "spec.tracing.provider.backendRef: "+message
		problems = append(problems, policy.Problem{Field: "spec.tracing.provider.backendRef", Message: message})
	}
	out := builder{generation: p.Generation, problems: problems, resolved: &resolved}
	for i, ref := range p.Spec.TargetRefs {
		v := whole
		if v.reason == "" {
			v = judgeTelemetry(mesh, p, ref)
			v.field = fmt.Sprintf("spec.targetRefs[%d]", i)
		}
		out.target(parentRef(p.Namespace, v1alpha1.TrafficTargetReference{Group: ref.Group, Kind: ref.Kind, Name: ref.Name}), v)
	}
	return out.status, out.problems
}

// judgeTelemetry says what becomes of a sound policy at one target.
func judgeTelemetry(mesh Mesh, p *gatewayx.XTelemetryPolicy, ref gatewayv1.LocalObjectReference) verdict {
	k := graph.TargetKey(p.Namespace, string(ref.Group), string(ref.Kind), string(ref.Name))
	n := k.NamespacedName()
	switch decides := decidingTelemetry(mesh, k); {
	case k != graph.GatewayKey(n):
		return verdict{
			reason:  string(gatewayv1.PolicyReasonInvalid),
			message: kindNamed(ref.Group, ref.Kind) + " cannot be targeted; use a Gateway, of group " + gatewayv1.GroupName,
		}
	case !mesh.Waypoint(n):
		return verdict{reason: string(gatewayv1.PolicyReasonTargetNotFound), message: "there is no Gateway " + n.String() + " of the class " + graph.WaypointClass}
	case decides != nil && decides.Name != p.Name:
		return verdict{
			reason:  string(gatewayv1.PolicyReasonConflicted),
			message: gatewayx.KindTelemetryPolicy + " " + decides.Namespace + "/" + decides.Name + " is older, has the very same target and decides; remove one of the two",
		}
	}
	return verdict{message: "the waypoint " + n.String() + " makes its spans by it; a TracingPolicy of a namespace, Service or route says for these what is sampled"}
}
