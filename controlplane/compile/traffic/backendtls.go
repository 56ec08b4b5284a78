package traffic

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/controlplane/compile/policy"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// caKey is the key of a ConfigMap that holds certificates.
const caKey = "ca.crt"

// decidingTLS gives the BackendTLSPolicy that decides for a port of a Service: the
// oldest of those that name it, or else of those that name the Service.
func decidingTLS(mesh Mesh, n types.NamespacedName, section string) *gatewayv1.BackendTLSPolicy {
	var best *gatewayv1.BackendTLSPolicy
	for _, obj := range mesh.Attached(graph.KindBackendTLSPolicy, graph.ServiceKey(n)) {
		p, ok := obj.(*gatewayv1.BackendTLSPolicy)
		if !ok || best != nil && Older(p, best) >= 0 {
			continue
		}
		if slices.ContainsFunc(p.Spec.TargetRefs, func(ref gatewayv1.LocalPolicyTargetReferenceWithSectionName) bool {
			return tlsTarget(ref) && string(ref.Name) == n.Name && sectionOf(ref) == section
		}) {
			best = p
		}
	}
	return best
}

func tlsTarget(ref gatewayv1.LocalPolicyTargetReferenceWithSectionName) bool {
	return ref.Kind == v1alpha1.TargetService && (ref.Group == "" || ref.Group == "core")
}

func sectionOf(ref gatewayv1.LocalPolicyTargetReferenceWithSectionName) string {
	if ref.SectionName == nil {
		return ""
	}
	return string(*ref.SectionName)
}

// TLSPolicy gives the BackendTLSPolicy of a port, or nil.
func TLSPolicy(mesh Mesh, n types.NamespacedName, port *corev1.ServicePort) *gatewayv1.BackendTLSPolicy {
	if port.Name != "" {
		if p := decidingTLS(mesh, n, port.Name); p != nil {
			return p
		}
	}
	return decidingTLS(mesh, n, "")
}

// backendTLS gives the TLS of a Service's ports. A policy that is wrong closes them:
// what should have been encrypted and verified is never sent otherwise.
func backendTLS(mesh Mesh, n types.NamespacedName, s *corev1.Service) []*waypoint.BackendTLS {
	var out []*waypoint.BackendTLS
	for i := range s.Spec.Ports {
		port := &s.Spec.Ports[i]
		if !TCP(port) {
			continue
		}
		if p := TLSPolicy(mesh, n, port); p != nil {
			t, _ := translateTLS(mesh, p)
			t.Port = uint32(port.Port) // #nosec G115 -- validated
			out = append(out, t)
		}
	}
	return out
}

// tlsVerdict is what the conditions of a BackendTLSPolicy say of all its targets.
type tlsVerdict struct {
	problems []policy.Problem // that make it invalid
	// reason of ResolvedRefs where it is not "", with what is wrong with references.
	reason     gatewayv1.PolicyConditionReason
	references []policy.Problem
	noCA       bool
}

func translateTLS(mesh Mesh, p *gatewayv1.BackendTLSPolicy) (*waypoint.BackendTLS, tlsVerdict) {
	in, r := &p.Spec.Validation, &Report{}
	out := &waypoint.BackendTLS{Policy: p.Namespace + "/" + p.Name, Hostname: string(in.Hostname)}
	if in.Hostname == "" || strings.Contains(string(in.Hostname), "*") {
		r.Add("spec.validation.hostname", "%q is not the name of a host", in.Hostname)
	}
	if len(p.Spec.Options) > 0 {
		r.Add("spec.options", "no option is known: what one demands would not be done")
	}
	for i, san := range in.SubjectAltNames {
		switch at := fmt.Sprintf("spec.validation.subjectAltNames[%d]", i); {
		case san.Type == gatewayv1.HostnameSubjectAltNameType && san.Hostname != "":
			out.DnsNames = append(out.DnsNames, string(san.Hostname))
		case san.Type == gatewayv1.URISubjectAltNameType && san.URI != "":
			out.Uris = append(out.Uris, string(san.URI))
		default:
			r.Add(at, "needs type Hostname with hostname, or type URI with uri")
		}
	}
	v := tlsVerdict{}
	wellKnown := ""
	if in.WellKnownCACertificates != nil {
		wellKnown = string(*in.WellKnownCACertificates)
	}
	switch {
	case (wellKnown != "") == (len(in.CACertificateRefs) > 0):
		r.Add("spec.validation", "needs caCertificateRefs or wellKnownCACertificates, and not both")
	case wellKnown == string(gatewayv1.WellKnownCACertificatesSystem):
		out.SystemCertificates = true
	case wellKnown != "":
		r.Add("spec.validation.wellKnownCACertificates", "%q is not known; use System", wellKnown)
	default:
		out.CaCertificates = v.certificates(mesh, p)
	}
	v.problems = r.Problems
	switch {
	case len(v.problems) > 0:
		out.Invalid = listed(v.problems)
	case v.noCA:
		out.Invalid = listed(v.references)
	}
	return out, v
}

// certificates gathers the certificates that a policy refers to.
func (v *tlsVerdict) certificates(mesh Mesh, p *gatewayv1.BackendTLSPolicy) string {
	var all strings.Builder
	for i, ref := range p.Spec.Validation.CACertificateRefs {
		reason, message := gatewayv1.BackendTLSPolicyReasonInvalidCACertificateRef, ""
		name := p.Namespace + "/" + string(ref.Name)
		obj, _ := mesh.Object(graph.Key{Kind: graph.KindConfigMap, Namespace: p.Namespace, Name: string(ref.Name)}).(*corev1.ConfigMap)
		switch {
		case ref.Kind != graph.KindConfigMap || ref.Group != "" && ref.Group != "core":
			reason, message = gatewayv1.BackendTLSPolicyReasonInvalidKind, "certificates are not read of kind "+string(ref.Kind)+"; use a ConfigMap, of group \"\""
		case obj == nil:
			message = "there is no ConfigMap " + name
		case obj.Data[caKey] == "":
			message = "ConfigMap " + name + " has no key " + caKey
		default:
			if message = wrongPEM(obj.Data[caKey]); message != "" {
				message = "ConfigMap " + name + ", key " + caKey + ": " + message
			}
		}
		if message == "" {
			all.WriteString(strings.TrimRight(obj.Data[caKey], "\n") + "\n")
			continue
		}
		v.references = append(v.references, policy.Problem{Field: fmt.Sprintf("spec.validation.caCertificateRefs[%d]", i), Message: message})
		if v.reason == "" {
			v.reason = reason
		}
	}
	v.noCA = all.Len() == 0
	return all.String()
}

// wrongPEM says what is wrong with certificates; "" if nothing is.
func wrongPEM(text string) string {
	found := false
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return "has a block of type " + block.Type + "; only certificates belong there"
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return "has a certificate that cannot be read: " + err.Error()
		}
		found = true
	}
	if !found {
		return "has no certificate in PEM"
	}
	return ""
}

// statusOfTLS gives the status of a BackendTLSPolicy: for each target whether it is
// accepted, and whether its references could be resolved.
func statusOfTLS(mesh Mesh, p *gatewayv1.BackendTLSPolicy) (v1alpha1.PolicyStatus, []policy.Problem) {
	_, tls := translateTLS(mesh, p)
	problems := append(slices.Clone(tls.problems), tls.references...)
	const closed = "; until that is put right, no request is sent to the backend"
	whole := verdict{}
	switch {
	case len(tls.problems) > 0:
		whole = verdict{reason: string(gatewayv1.PolicyReasonInvalid), message: listed(tls.problems) + closed}
	case tls.noCA:
		whole = verdict{reason: string(gatewayv1.BackendTLSPolicyReasonNoValidCACertificate), message: listed(tls.references) + closed}
	}
	resolved := metav1.Condition{
		Type: string(gatewayv1.BackendTLSPolicyConditionResolvedRefs), Status: metav1.ConditionTrue, ObservedGeneration: p.Generation,
		Reason: string(gatewayv1.BackendTLSPolicyReasonResolvedRefs), Message: "all references are resolved",
	}
	if tls.reason != "" {
		resolved.Status, resolved.Reason, resolved.Message = metav1.ConditionFalse, string(tls.reason), listed(tls.references)
	}
	var out v1alpha1.PolicyStatus
	for i, ref := range p.Spec.TargetRefs {
		v := whole
		if v.reason == "" {
			v = judgeTLS(mesh, p, ref)
			if v.reason != "" {
				problems = append(problems, policy.Problem{Field: fmt.Sprintf("spec.targetRefs[%d]", i), Message: v.message})
			}
		}
		if len(out.Ancestors) == maxTargets {
			continue
		}
		out.Ancestors = append(out.Ancestors, gatewayv1.PolicyAncestorStatus{
			AncestorRef:    parentRef(p.Namespace, v1alpha1.TrafficTargetReference{Group: ref.Group, Kind: ref.Kind, Name: ref.Name, SectionName: ref.SectionName}),
			ControllerName: v1alpha1.ControllerName, Conditions: []metav1.Condition{v.condition(p.Generation), resolved},
		})
	}
	return out, problems
}

func judgeTLS(mesh Mesh, p *gatewayv1.BackendTLSPolicy, ref gatewayv1.LocalPolicyTargetReferenceWithSectionName) verdict {
	n, section := types.NamespacedName{Namespace: p.Namespace, Name: string(ref.Name)}, sectionOf(ref)
	if !tlsTarget(ref) {
		return verdict{reason: string(gatewayv1.PolicyReasonInvalid), message: string(ref.Kind) + " cannot be targeted; use a Service, of group \"\""}
	}
	s, decides := mesh.Service(n), decidingTLS(mesh, n, section)
	switch {
	case s == nil:
		return verdict{reason: string(gatewayv1.PolicyReasonTargetNotFound), message: "there is no Service " + n.String()}
	case section != "" && !slices.ContainsFunc(s.Spec.Ports, func(port corev1.ServicePort) bool { return port.Name == section && TCP(&port) }):
		return verdict{reason: string(gatewayv1.PolicyReasonTargetNotFound), message: "Service " + n.String() + " has no TCP port named " + section}
	case decides != nil && decides.Name != p.Name:
		return verdict{
			reason:  string(gatewayv1.PolicyReasonConflicted),
			message: "BackendTLSPolicy " + decides.Namespace + "/" + decides.Name + " is older, has the very same target and decides; remove one of the two",
		}
	case !mesh.Bound(n) && !Version(mesh, n):
		return verdict{
			reason:  v1alpha1.ReasonWaypointRequired,
			message: "no waypoint sends requests to Service " + n.String() + ", so the policy has no effect; bind it to one with the label " + graph.LabelUseWaypoint,
		}
	}
	return verdict{message: "enforced by the waypoints that send requests to Service " + n.String()}
}
