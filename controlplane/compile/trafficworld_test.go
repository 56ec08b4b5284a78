package compile_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/ambit-mesh/ambit/apis/gatewayx"
	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// TestTrafficIncremental is TestIncrementalEqualsFromScratch in a world of
// services that mostly have waypoints, routes and policies. It is the robustness
// test, too: much of what is drawn is wrong, and nothing may panic.
func TestTrafficIncremental(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.draw = drawTrafficWorld
		for range rapid.IntRange(1, 25).Draw(t, "batches") {
			w.edit(t)
		}
		w.compare(t)
	})
}

func drawTrafficWorld(t *rapid.T) graph.Object {
	switch rapid.IntRange(0, 14).Draw(t, "kind") {
	case 10:
		return drawExternal(t)
	case 11:
		return drawGateway(t)
	case 12:
		return drawAuthz(t)
	case 13:
		return drawTLS(t)
	case 14:
		return &corev1.ConfigMap{ObjectMeta: drawTrafficMeta(t, "c1", "c2"), Data: map[string]string{"ca.crt": pick(t, "certificate", "", "wrong", authority)}}
	case 0:
		n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: pick(t, "namespace", "a", "b"), Labels: map[string]string{}}}
		if rapid.IntRange(0, 2).Draw(t, "bound") > 0 {
			n.Labels[graph.LabelUseWaypoint] = "wp"
		}
		return n
	case 1, 2:
		s := drawService(t)
		s.Namespace, s.Labels = pick(t, "namespace", "a", "b"), nil
		if label := pick(t, "waypoint", "wp", "wp", "none", ""); label != "" {
			s.Labels = map[string]string{graph.LabelUseWaypoint: label}
		}
		return s
	case 3, 4, 5, 6:
		return drawRoute(t)
	}
	return drawPolicy(t)
}

// The names that routes and policies draw from are those of drawService, so that
// they meet all the time.

func drawTrafficMeta(t *rapid.T, names ...string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: pick(t, "namespace", "a", "b"), Name: pick(t, "name", names...),
		CreationTimestamp: metav1.Unix(int64(rapid.IntRange(0, 2).Draw(t, "created"))*int64(time.Hour/time.Second), 0),
	}
}

func drawTraffic(t *rapid.T) graph.Object {
	if rapid.Bool().Draw(t, "route") {
		return drawRoute(t)
	}
	return drawPolicy(t)
}

func drawTLS(t *rapid.T) *gatewayv1.BackendTLSPolicy {
	p := &gatewayv1.BackendTLSPolicy{ObjectMeta: drawTrafficMeta(t, "t1", "t2")}
	p.Spec.Validation.Hostname = pick[gatewayv1.PreciseHostname](t, "hostname", "a.example", "a.example", "*.example")
	for range rapid.IntRange(1, 2).Draw(t, "targets") {
		ref := gatewayv1.LocalPolicyTargetReferenceWithSectionName{}
		ref.Kind, ref.Name = "Service", pick[gatewayv1.ObjectName](t, "target", "s1", "s2")
		if rapid.IntRange(0, 2).Draw(t, "external") > 0 {
			ref.Group, ref.Kind = pick[gatewayv1.Group](t, "group", meshv1alpha1.GroupName, meshv1alpha1.GroupName, ""), meshv1alpha1.KindExternalService
		}
		if section := pick[gatewayv1.SectionName](t, "section", "", "", "p", "other"); section != "" {
			ref.SectionName = &section
		}
		p.Spec.TargetRefs = append(p.Spec.TargetRefs, ref)
	}
	if rapid.Bool().Draw(t, "system") {
		p.Spec.Validation.WellKnownCACertificates = new(gatewayv1.WellKnownCACertificatesSystem)
		return p
	}
	for range rapid.IntRange(0, 2).Draw(t, "authorities") {
		p.Spec.Validation.CACertificateRefs = append(p.Spec.Validation.CACertificateRefs, gatewayv1.LocalObjectReference{
			Kind: pick[gatewayv1.Kind](t, "kind", graph.KindConfigMap, graph.KindConfigMap, "Secret"), Name: pick[gatewayv1.ObjectName](t, "config", "c1", "c2"),
		})
	}
	return p
}

// authority is the certificate of testdata/traffic/backend-tls.txtar.
const authority = `-----BEGIN CERTIFICATE-----
MIIBiDCCAS+gAwIBAgIUCFRoMSoD9bO2R2vC4iTkIR1/dUkwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOdGVzdCBhdXRob3JpdHkwIBcNMjYxMTI2MDI1NzMyWhgPMjEy
NjExMDIwMjU3MzJaMBkxFzAVBgNVBAMMDnRlc3QgYXV0aG9yaXR5MFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAEQZTC2RoioVfikkFw1jrkr8HHQ5G/emV+h0ZuX/Zk
QHL7bLw1ZHa8n+odRUnow9t8u0vO/ESKFgAavbo42tyNSaNTMFEwHQYDVR0OBBYE
FJMi2q08GgS71HhJAY+S2RZ8fPbsMB8GA1UdIwQYMBaAFJMi2q08GgS71HhJAY+S
2RZ8fPbsMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIgNyf0pgJB
Oy7a2IF54z57bmqs9W77ayrdyYV5aSMeH/MCIEx3tH1orpgmdkSuKmPdCQ5qttyY
YUBLDXsqST+eSMbB
-----END CERTIFICATE-----
`

func drawParents(t *rapid.T) gatewayv1.CommonRouteSpec {
	var out gatewayv1.CommonRouteSpec
	for range rapid.IntRange(0, 2).Draw(t, "parents") {
		ref := gatewayv1.ParentReference{Kind: new(gatewayv1.Kind("Service")), Name: gatewayv1.ObjectName(pick(t, "service", "s1", "s2"))}
		if rapid.IntRange(0, 5).Draw(t, "group") > 0 {
			ref.Group = new(gatewayv1.Group(""))
		}
		if rapid.IntRange(0, 2).Draw(t, "external") == 0 {
			ref.Group, ref.Kind = new(gatewayv1.Group(meshv1alpha1.GroupName)), new(gatewayv1.Kind(meshv1alpha1.KindExternalService))
		}
		if ns := pick[gatewayv1.Namespace](t, "parent namespace", "", "a", "b"); ns != "" {
			ref.Namespace = &ns
		}
		if port := pick[gatewayv1.PortNumber](t, "port", 0, 0, 80, 81); port != 0 {
			ref.Port = &port
		}
		if section := pick[gatewayv1.SectionName](t, "section", "", "", "p", "q"); section != "" {
			ref.SectionName = &section
		}
		out.ParentRefs = append(out.ParentRefs, ref)
	}
	return out
}

func drawBackend(t *rapid.T) gatewayv1.BackendRef {
	ref := gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{
		Name: gatewayv1.ObjectName(pick(t, "service", "s1", "s2", "s3")),
	}}
	if ns := pick[gatewayv1.Namespace](t, "backend namespace", "", "a", "b"); ns != "" {
		ref.Namespace = &ns
	}
	if port := pick[gatewayv1.PortNumber](t, "port", 80, 80, 80, 81, 0); port != 0 {
		ref.Port = &port
	}
	if kind := pick[gatewayv1.Kind](t, "kind", "", "", "", "Other", meshv1alpha1.KindExternalService); kind != "" {
		ref.Kind = &kind
		if kind == meshv1alpha1.KindExternalService {
			ref.Group = new(gatewayv1.Group(meshv1alpha1.GroupName))
		}
	}
	if weight := rapid.Int32Range(-2, 3).Draw(t, "weight"); weight > -2 {
		ref.Weight = &weight
	}
	return ref
}

func drawRuleName(t *rapid.T) *gatewayv1.SectionName {
	if name := pick[gatewayv1.SectionName](t, "rule", "", "r1", "r2"); name != "" {
		return &name
	}
	return nil
}

func drawRoute(t *rapid.T) graph.Object {
	m, spec := drawTrafficMeta(t, "r1", "r2"), drawParents(t)
	rules := rapid.IntRange(0, 2).Draw(t, "rules")
	switch pick(t, "kind", "HTTP", "HTTP", "HTTP", "GRPC", "TLS", "TCP", "UDP") {
	case "GRPC":
		o := &gatewayv1.GRPCRoute{ObjectMeta: m, Spec: gatewayv1.GRPCRouteSpec{CommonRouteSpec: spec}}
		for range rules {
			o.Spec.Rules = append(o.Spec.Rules, gatewayv1.GRPCRouteRule{Name: drawRuleName(t), BackendRefs: []gatewayv1.GRPCBackendRef{{BackendRef: drawBackend(t)}}})
		}
		return o
	case "TLS":
		o := &gatewayv1.TLSRoute{ObjectMeta: m, Spec: gatewayv1.TLSRouteSpec{CommonRouteSpec: spec}}
		for range rules {
			o.Spec.Rules = append(o.Spec.Rules, gatewayv1.TLSRouteRule{BackendRefs: []gatewayv1.BackendRef{drawBackend(t)}})
		}
		return o
	case "TCP":
		o := &gatewayv1.TCPRoute{ObjectMeta: m, Spec: gatewayv1.TCPRouteSpec{CommonRouteSpec: spec}}
		for range rules {
			o.Spec.Rules = append(o.Spec.Rules, gatewayv1.TCPRouteRule{BackendRefs: []gatewayv1.BackendRef{drawBackend(t)}})
		}
		return o
	case "UDP":
		return &gatewayv1.UDPRoute{ObjectMeta: m, Spec: gatewayv1.UDPRouteSpec{CommonRouteSpec: spec}}
	}
	o := &gatewayv1.HTTPRoute{ObjectMeta: m, Spec: gatewayv1.HTTPRouteSpec{CommonRouteSpec: spec}}
	for range rules {
		o.Spec.Rules = append(o.Spec.Rules, drawHTTPRule(t))
	}
	return o
}

func drawHTTPRule(t *rapid.T) gatewayv1.HTTPRouteRule {
	r := gatewayv1.HTTPRouteRule{Name: drawRuleName(t)}
	if rapid.Bool().Draw(t, "match") {
		r.Matches = []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{
			Type:  new(pick(t, "type", gatewayv1.PathMatchExact, gatewayv1.PathMatchPathPrefix, gatewayv1.PathMatchRegularExpression, "Wrong")),
			Value: new(pick(t, "path", "/", "/a", "/a/", "a(", "")),
		}}}
	}
	for range rapid.IntRange(0, 2).Draw(t, "backends") {
		r.BackendRefs = append(r.BackendRefs, gatewayv1.HTTPBackendRef{BackendRef: drawBackend(t)})
	}
	for range rapid.IntRange(0, 2).Draw(t, "filters") {
		r.Filters = append(r.Filters, drawFilter(t))
	}
	if rapid.IntRange(0, 3).Draw(t, "retry") == 0 {
		r.Retry = &gatewayv1.HTTPRouteRetry{Attempts: new(rapid.IntRange(-1, 20).Draw(t, "attempts"))}
	}
	if rapid.IntRange(0, 3).Draw(t, "timeouts") == 0 {
		r.Timeouts = &gatewayv1.HTTPRouteTimeouts{Request: drawDuration(t), BackendRequest: drawDuration(t)}
	}
	return r
}

func drawDuration(t *rapid.T) *gatewayv1.Duration {
	return new(pick[gatewayv1.Duration](t, "duration", "1s", "0s", "500ms", "wrong", ""))
}

func drawFilter(t *rapid.T) gatewayv1.HTTPRouteFilter {
	switch rapid.IntRange(0, 4).Draw(t, "filter") {
	case 0:
		return gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterRequestMirror, RequestMirror: &gatewayv1.HTTPRequestMirrorFilter{
			BackendRef: drawBackend(t).BackendObjectReference, Percent: new(rapid.Int32Range(-1, 101).Draw(t, "percent")),
		}}
	case 1:
		return gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterExtensionRef, ExtensionRef: &gatewayv1.LocalObjectReference{
			Group: meshv1alpha1.GroupName, Kind: meshv1alpha1.KindExternalAuthorizationPolicy, Name: pick[gatewayv1.ObjectName](t, "policy", "x1", "x2"),
		}}
	case 2:
		return gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterURLRewrite, URLRewrite: &gatewayv1.HTTPURLRewriteFilter{
			Path: &gatewayv1.HTTPPathModifier{Type: gatewayv1.PrefixMatchHTTPPathModifier, ReplacePrefixMatch: new("/x")},
		}}
	case 3:
		return gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterCORS, CORS: &gatewayv1.HTTPCORSFilter{AllowOrigins: []gatewayv1.CORSOrigin{"*"}}}
	}
	return gatewayv1.HTTPRouteFilter{Type: pick(t, "type", gatewayv1.HTTPRouteFilterRequestHeaderModifier, gatewayv1.HTTPRouteFilterCORS, "Wrong")}
}

func drawTargets(t *rapid.T) []meshv1alpha1.TrafficTargetReference {
	var out []meshv1alpha1.TrafficTargetReference
	for range rapid.IntRange(0, 2).Draw(t, "targets") {
		kind := pick(t, "kind", meshv1alpha1.TargetService, meshv1alpha1.TargetService, meshv1alpha1.TargetExternalService, meshv1alpha1.TargetHTTPRoute, meshv1alpha1.TargetGRPCRoute)
		ref := meshv1alpha1.TrafficTargetReference{Kind: kind, Name: pick[gatewayv1.ObjectName](t, "target", "r1", "r2")}
		switch kind {
		case meshv1alpha1.TargetService:
			ref.Name = pick[gatewayv1.ObjectName](t, "target", "s1", "s2")
		case meshv1alpha1.TargetExternalService:
			ref.Name, ref.Group = pick[gatewayv1.ObjectName](t, "target", "s1", "s2"), meshv1alpha1.GroupName
		default:
			ref.Group = gatewayv1.GroupName
		}
		if section := pick[gatewayv1.SectionName](t, "section", "", "", "p", "r1"); section != "" {
			ref.SectionName = &section
		}
		out = append(out, ref)
	}
	return out
}

func drawServiceTargets(t *rapid.T) []meshv1alpha1.ServiceTargetReference {
	return []meshv1alpha1.ServiceTargetReference{{Kind: "Service", Name: pick[gatewayv1.ObjectName](t, "target", "s1", "s2")}}
}

func drawPolicy(t *rapid.T) graph.Object {
	m := drawTrafficMeta(t, "x1", "x2")
	switch rapid.IntRange(0, 13).Draw(t, "policy") {
	case 0:
		return &meshv1alpha1.RetryPolicy{ObjectMeta: m, Spec: meshv1alpha1.RetryPolicySpec{TargetRefs: drawTargets(t), Attempts: new(rapid.Int32Range(-1, 11).Draw(t, "attempts"))}}
	case 1:
		return &meshv1alpha1.TimeoutPolicy{ObjectMeta: m, Spec: meshv1alpha1.TimeoutPolicySpec{TargetRefs: drawTargets(t), Request: drawDuration(t), Idle: drawDuration(t)}}
	case 2:
		return &meshv1alpha1.FaultInjection{ObjectMeta: m, Spec: meshv1alpha1.FaultInjectionSpec{TargetRefs: drawTargets(t), Rules: []meshv1alpha1.FaultRule{{
			TrafficSelector: drawSelectorOfTraffic(t), Abort: &meshv1alpha1.FaultAbort{HTTPStatus: new(int32(503))},
		}}}}
	case 3, 4:
		rule := meshv1alpha1.RateLimitRule{TrafficSelector: drawSelectorOfTraffic(t), Requests: rapid.Int32Range(0, 2).Draw(t, "requests")}
		if rapid.Bool().Draw(t, "global") {
			rule.Global = &meshv1alpha1.RateLimitGlobal{BackendRef: drawBackend(t).BackendObjectReference}
		}
		return &meshv1alpha1.RateLimitPolicy{ObjectMeta: m, Spec: meshv1alpha1.RateLimitPolicySpec{TargetRefs: drawTargets(t), Rules: []meshv1alpha1.RateLimitRule{rule}}}
	case 5:
		return &meshv1alpha1.LoadBalancingPolicy{ObjectMeta: m, Spec: meshv1alpha1.LoadBalancingPolicySpec{
			TargetRefs: drawServiceTargets(t),
			Algorithm:  pick(t, "algorithm", meshv1alpha1.RoundRobin, meshv1alpha1.Maglev),
		}}
	case 6:
		return &meshv1alpha1.CircuitBreakerPolicy{ObjectMeta: m, Spec: meshv1alpha1.CircuitBreakerPolicySpec{TargetRefs: drawServiceTargets(t), MaxRequests: new(int32(1))}}
	case 7:
		return &meshv1alpha1.HealthCheckPolicy{ObjectMeta: m, Spec: meshv1alpha1.HealthCheckPolicySpec{TargetRefs: drawServiceTargets(t), Type: meshv1alpha1.HealthTCP}}
	case 8:
		return &meshv1alpha1.SessionPersistencePolicy{ObjectMeta: m, Spec: meshv1alpha1.SessionPersistencePolicySpec{TargetRefs: drawTargets(t)}}
	case 9:
		return &meshv1alpha1.JWTAuthentication{ObjectMeta: m, Spec: meshv1alpha1.JWTAuthenticationSpec{
			TargetRefs: drawServiceTargets(t), Required: rapid.Bool().Draw(t, "required"),
			Providers: []meshv1alpha1.JWTProvider{{Name: "p", Issuer: "i", JWKS: meshv1alpha1.JWTKeys{Inline: new(pick(t, "keys", `{"keys":[{}]}`, `{`))}}},
		}}
	case 11:
		p := &meshv1alpha1.TracingPolicy{ObjectMeta: m, Spec: meshv1alpha1.TracingPolicySpec{Disabled: rapid.Bool().Draw(t, "disabled")}}
		if rapid.Bool().Draw(t, "sampling") {
			p.Spec.Sampling = &meshv1alpha1.TracingSampling{Share: meshv1alpha1.Share{Percent: new(rapid.Int32Range(-1, 101).Draw(t, "percent"))}}
		}
		for _, ref := range drawTargets(t) {
			p.Spec.TargetRefs = append(p.Spec.TargetRefs, meshv1alpha1.TracingTargetReference{Group: ref.Group, Kind: ref.Kind, Name: &ref.Name, SectionName: ref.SectionName})
		}
		if rapid.Bool().Draw(t, "namespace") {
			p.Spec.TargetRefs = append(p.Spec.TargetRefs, meshv1alpha1.TracingTargetReference{Kind: meshv1alpha1.TargetNamespace})
		}
		return p
	case 12:
		return drawTelemetry(t, m)
	case 10:
		return &gatewayxv1alpha1.XBackendTrafficPolicy{ObjectMeta: m, Spec: gatewayxv1alpha1.BackendTrafficPolicySpec{
			TargetRefs:      []gatewayv1.LocalPolicyTargetReference{{Kind: "Service", Name: pick[gatewayv1.ObjectName](t, "target", "s1", "s2")}},
			RetryConstraint: &gatewayxv1alpha1.RetryConstraint{},
		}}
	}
	return &meshv1alpha1.ExternalAuthorizationPolicy{ObjectMeta: m, Spec: meshv1alpha1.ExternalAuthorizationPolicySpec{
		TargetRefs: drawTargets(t),
		Protocol:   pick(t, "protocol", gatewayv1.HTTPRouteExternalAuthGRPCProtocol, "WRONG"), BackendRef: drawBackend(t).BackendObjectReference,
	}}
}

func drawTelemetry(t *rapid.T, m metav1.ObjectMeta) graph.Object {
	p := &gatewayx.XTelemetryPolicy{ObjectMeta: m}
	for range rapid.IntRange(0, 2).Draw(t, "targets") {
		p.Spec.TargetRefs = append(p.Spec.TargetRefs, gatewayv1.LocalObjectReference{
			Group: gatewayv1.GroupName, Kind: pick[gatewayv1.Kind](t, "kind", "Gateway", "Gateway", "Gateway", "HTTPRoute"), Name: pick[gatewayv1.ObjectName](t, "target", "wp", "r1"),
		})
	}
	tracing := &gatewayx.TracingConfig{Mode: pick(t, "mode", gatewayx.Enabled, gatewayx.Enabled, gatewayx.Disabled, gatewayx.ImplementationDefault)}
	if rapid.Bool().Draw(t, "provider") {
		tracing.Provider = &gatewayx.TracingProvider{BackendRef: drawBackend(t).BackendObjectReference}
	}
	if rapid.Bool().Draw(t, "sampling") {
		tracing.SamplingRate = &gatewayv1.Fraction{Numerator: rapid.Int32Range(-1, 101).Draw(t, "numerator")}
	}
	p.Spec.Tracing = tracing
	return p
}

func drawSelectorOfTraffic(t *rapid.T) meshv1alpha1.TrafficSelector {
	var s meshv1alpha1.TrafficSelector
	if rapid.Bool().Draw(t, "backends") {
		s.Backends = []meshv1alpha1.TrafficBackend{{Name: pick[gatewayv1.ObjectName](t, "backend", "s1", "s2", "s3")}}
	}
	return s
}
