package traffic

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/controlplane/compile/policy"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

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
	out := builder{generation: p.Generation, problems: problems, resolved: &resolved}
	for i, ref := range p.Spec.TargetRefs {
		v := whole
		if v.reason == "" {
			v = judgeTLS(mesh, p, ref)
			v.field = fmt.Sprintf("spec.targetRefs[%d]", i)
		}
		out.target(parentRef(p.Namespace, v1alpha1.TrafficTargetReference{Group: ref.Group, Kind: ref.Kind, Name: ref.Name, SectionName: ref.SectionName}), v)
	}
	return out.status, out.problems
}

// judgeTLS says what becomes of a sound policy at one target.
func judgeTLS(mesh Mesh, p *gatewayv1.BackendTLSPolicy, ref gatewayv1.LocalPolicyTargetReferenceWithSectionName) verdict {
	t := tlsTarget(p, ref)
	n, what := t.Key.NamespacedName(), string(ref.Kind)+" "+t.Key.NamespacedName().String()
	if t.Key != graph.ServiceKey(n) && t.Key != graph.ExternalKey(n) {
		return verdict{
			reason:  string(gatewayv1.PolicyReasonInvalid),
			message: kindNamed(ref.Group, ref.Kind) + " cannot be targeted; use a Service, of group \"\", or an ExternalService, of group " + v1alpha1.GroupName,
		}
	}
	s, _ := addressed(mesh, t)
	switch decides := decidingTLS(mesh, t); {
	case s == nil:
		return verdict{reason: string(gatewayv1.PolicyReasonTargetNotFound), message: "there is no " + what}
	case t.Section != "" && !hasTCP(s, t.Section):
		return verdict{reason: string(gatewayv1.PolicyReasonTargetNotFound), message: what + " has no TCP port named " + t.Section + strayed(t)}
	case decides != nil && decides.Name != p.Name:
		return verdict{
			reason:  string(gatewayv1.PolicyReasonConflicted),
			message: "BackendTLSPolicy " + decides.Namespace + "/" + decides.Name + " is older, has the very same target and decides; remove one of the two",
		}
	case t.Key.Kind == v1alpha1.KindExternalService:
		return judgeHostTLS(mesh, p, n)
	case !mesh.Bound(n) && !Version(mesh, n):
		return verdict{
			reason:  v1alpha1.ReasonWaypointRequired,
			message: "no waypoint sends requests to " + what + ", so the policy has no effect; bind it to one with the label " + graph.LabelUseWaypoint,
		}
	}
	return verdict{message: "enforced by the waypoints that send requests to " + what}
}

// strayed says what follows from a port that is not there.
func strayed(t Target) string {
	if t.Key.Kind != v1alpha1.KindExternalService {
		return ""
	}
	return "; until that is put right, nothing is sent to its ports that no other BackendTLSPolicy is about"
}

func judgeHostTLS(mesh Mesh, p *gatewayv1.BackendTLSPolicy, n types.NamespacedName) verdict {
	if !mesh.ExternalBound(n) {
		return verdict{
			reason: v1alpha1.ReasonWaypointRequired,
			message: "ExternalService " + n.String() + " uses no waypoint, and only a waypoint can originate TLS: connections to its hosts are refused; label it or its Namespace " +
				graph.LabelUseWaypoint,
		}
	}
	return verdict{
		message: "enforced by the waypoint of ExternalService " + n.String() + ", for each of its hosts and every name below a wildcard alike: the server name is " +
			string(p.Spec.Validation.Hostname),
	}
}

func kindNamed(group gatewayv1.Group, kind gatewayv1.Kind) string {
	if group == "" {
		return string(kind) + " of group \"\""
	}
	return string(kind) + "." + string(group)
}
