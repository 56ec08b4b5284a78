package policy

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
)

const (
	acceptedMessage    = "enforced on the node of every workload that it targets"
	acceptedAtWaypoint = "enforced by the waypoint of every Service that it targets"
	acceptedOutside    = "enforced by the waypoint of every ExternalService that it targets"
)

// verdict is what the status says of one target, or of the whole policy.
type verdict struct {
	ref gatewayv1.ParentReference
	// reason is set when the policy is refused; message goes with it, or with
	// acceptance.
	reason, message string
	// notFound says why the target does not exist.
	notFound string
}

func (v verdict) condition(generation int64) metav1.Condition {
	c := metav1.Condition{
		Type:               v1alpha1.ConditionAccepted,
		Status:             metav1.ConditionFalse,
		ObservedGeneration: generation,
		Reason:             v.reason,
		Message:            v.message,
	}
	switch {
	case v.reason != "":
	case v.notFound != "":
		c.Reason, c.Message = string(gatewayv1.PolicyReasonTargetNotFound), v.notFound
	default:
		c.Status, c.Reason = metav1.ConditionTrue, string(gatewayv1.PolicyReasonAccepted)
		if c.Message == "" {
			c.Message = acceptedMessage
		}
	}
	c.Message = clip(c.Message)
	return c
}

// status gives the conditions of a policy: summary for the whole, and one
// ancestor for each target.
func status(generation int64, summary verdict, targets []verdict) v1alpha1.PolicyStatus {
	out := v1alpha1.PolicyStatus{Conditions: []metav1.Condition{summary.condition(generation)}}
	for _, v := range targets {
		if len(out.Ancestors) == maxTargets {
			break
		}
		out.Ancestors = append(out.Ancestors, gatewayv1.PolicyAncestorStatus{
			AncestorRef:    v.ref,
			ControllerName: v1alpha1.ControllerName,
			Conditions:     []metav1.Condition{v.condition(generation)},
		})
	}
	return out
}

func namespaceRef(name string) gatewayv1.ParentReference {
	group, kind := gatewayv1.Group(""), v1alpha1.TargetNamespace
	return gatewayv1.ParentReference{Group: &group, Kind: &kind, Name: gatewayv1.ObjectName(name)}
}

func serviceRef(namespace, name string) gatewayv1.ParentReference {
	group, kind, ns := gatewayv1.Group(""), v1alpha1.TargetService, gatewayv1.Namespace(namespace)
	return gatewayv1.ParentReference{Group: &group, Kind: &kind, Namespace: &ns, Name: gatewayv1.ObjectName(name)}
}

func externalRef(namespace, name string) gatewayv1.ParentReference {
	ref := serviceRef(namespace, name)
	group, kind := gatewayv1.Group(v1alpha1.GroupName), v1alpha1.TargetExternalService
	ref.Group, ref.Kind = &group, &kind
	return ref
}

// clip keeps a message within what a condition may hold (32768 bytes).
func clip(s string) string {
	const limit = 4096
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "..."
}
