package traffic

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/controlplane/compile/policy"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// caKey is the key of a ConfigMap that holds certificates.
const caKey = "ca.crt"

// decidingTLS gives the BackendTLSPolicy that decides for a port of a Service or an
// ExternalService: the oldest of those that name it, or else of those that name the
// whole.
func decidingTLS(mesh Mesh, target Target) *gatewayv1.BackendTLSPolicy {
	var best *gatewayv1.BackendTLSPolicy
	for _, obj := range mesh.Attached(graph.KindBackendTLSPolicy, target.Key) {
		p, ok := obj.(*gatewayv1.BackendTLSPolicy)
		if !ok || best != nil && Older(p, best) >= 0 {
			continue
		}
		if slices.ContainsFunc(p.Spec.TargetRefs, func(ref gatewayv1.LocalPolicyTargetReferenceWithSectionName) bool {
			return tlsTarget(p, ref) == target
		}) {
			best = p
		}
	}
	return best
}

// tlsTarget gives what a reference of a policy names, whether it can be targeted or not.
func tlsTarget(p *gatewayv1.BackendTLSPolicy, ref gatewayv1.LocalPolicyTargetReferenceWithSectionName) Target {
	t := Target{Key: graph.TargetKey(p.Namespace, string(ref.Group), string(ref.Kind), string(ref.Name))}
	if ref.SectionName != nil {
		t.Section = string(*ref.SectionName)
	}
	return t
}

// TLSPolicy gives the BackendTLSPolicy of a port of a Service or an ExternalService,
// or nil.
func TLSPolicy(mesh Mesh, of graph.Key, port *corev1.ServicePort) *gatewayv1.BackendTLSPolicy {
	if port.Name != "" {
		if p := decidingTLS(mesh, Target{Key: of, Section: port.Name}); p != nil {
			return p
		}
	}
	return decidingTLS(mesh, Target{Key: of})
}

// backendTLS gives the TLS of a Service's ports. A policy that is wrong closes them:
// what should have been encrypted and verified is never sent otherwise.
func backendTLS(mesh Mesh, of graph.Key, s *corev1.Service) []*waypoint.BackendTLS {
	var out []*waypoint.BackendTLS
	for i := range s.Spec.Ports {
		port := &s.Spec.Ports[i]
		if !TCP(port) {
			continue
		}
		if p := TLSPolicy(mesh, of, port); p != nil {
			t, _ := translateTLS(mesh, p)
			t.Port = uint32(port.Port) // #nosec G115 -- validated
			out = append(out, t)
		}
	}
	return out
}

// HostTLS gives the TLS to the ports of an ExternalService; s has them. A policy that
// names a port that is not there closes those that none is about: nobody can say which
// was meant, and the way to a host outside is not encrypted otherwise.
func HostTLS(mesh Mesh, s *corev1.Service) []*waypoint.BackendTLS {
	of := graph.ExternalKey(types.NamespacedName{Namespace: s.Namespace, Name: s.Name})
	out := backendTLS(mesh, of, s)
	p, section := strayTLS(mesh, of, s)
	if p == nil {
		return out
	}
	for i := range s.Spec.Ports {
		number := uint32(s.Spec.Ports[i].Port) // #nosec G115 -- validated
		if !slices.ContainsFunc(out, func(t *waypoint.BackendTLS) bool { return t.GetPort() == number }) {
			out = append(out, &waypoint.BackendTLS{
				Port: number, Policy: p.Namespace + "/" + p.Name, Hostname: string(p.Spec.Validation.Hostname),
				Invalid: "it is about a port named " + section + ", which ExternalService " + s.Namespace + "/" + s.Name + " has not",
			})
		}
	}
	slices.SortFunc(out, func(a, b *waypoint.BackendTLS) int { return cmp.Compare(a.GetPort(), b.GetPort()) })
	return out
}

// strayTLS gives the oldest policy that names a port which is not there, and the name.
func strayTLS(mesh Mesh, of graph.Key, s *corev1.Service) (best *gatewayv1.BackendTLSPolicy, section string) {
	for _, obj := range mesh.Attached(graph.KindBackendTLSPolicy, of) {
		p, ok := obj.(*gatewayv1.BackendTLSPolicy)
		if !ok || best != nil && Older(p, best) >= 0 {
			continue
		}
		for _, ref := range p.Spec.TargetRefs {
			if t := tlsTarget(p, ref); t.Key == of && t.Section != "" && !hasTCP(s, t.Section) {
				best, section = p, t.Section
			}
		}
	}
	return best, section
}

func hasTCP(s *corev1.Service, name string) bool {
	return slices.ContainsFunc(s.Spec.Ports, func(port corev1.ServicePort) bool { return port.Name == name && TCP(&port) })
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
