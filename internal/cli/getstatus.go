package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/internal/local/control"
)

// routed is any route, as far as it is shown.
type routed struct {
	metav1.ObjectMeta `json:"metadata"`

	Spec struct {
		ParentRefs []reference `json:"parentRefs"`
		Rules      []struct {
			Name        string      `json:"name"`
			BackendRefs []reference `json:"backendRefs"`
		} `json:"rules"`
	} `json:"spec"`
	Status gatewayv1.RouteStatus `json:"status"`
}

// reference is a parent, a backend or a target.
type reference struct {
	Kind        string `json:"kind"`
	Name        string `json:"name"`
	SectionName string `json:"sectionName"`
	Weight      *int32 `json:"weight"`
}

func references(all []reference) string {
	var parts []string
	for _, r := range all {
		text := strings.TrimSpace(r.Kind + " " + r.Name)
		if r.SectionName != "" {
			text += "/" + r.SectionName
		}
		if r.Weight != nil {
			text += fmt.Sprintf(" x %d", *r.Weight)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// backends says where the rules of a route send requests.
func (o *routed) backends() string {
	var rules []string
	for i, r := range o.Spec.Rules {
		rules = append(rules, fmt.Sprintf("%s: %s", cmp.Or(r.Name, strconv.Itoa(i)), cmp.Or(references(r.BackendRefs), "none")))
	}
	return strings.Join(rules, "; ")
}

// routeRows gives a row for each parent.
func routeRows(o *routed) [][]any {
	var rows [][]any
	for _, p := range o.Status.Parents {
		accepted := meta.FindStatusCondition(p.Conditions, string(gatewayv1.RouteConditionAccepted))
		resolved := meta.FindStatusCondition(p.Conditions, string(gatewayv1.RouteConditionResolvedRefs))
		partly := meta.FindStatusCondition(p.Conditions, string(gatewayv1.RouteConditionPartiallyInvalid))
		state := stateAndReason(accepted)
		if partly != nil && partly.Status == metav1.ConditionTrue {
			state = "in part (" + partly.Reason + ")"
		}
		rows = append(rows, []any{
			control.ParentName(o.Namespace, p.ParentRef), state, stateAndReason(resolved), o.backends(), worst(accepted, partly, resolved),
		})
	}
	if len(rows) == 0 {
		rows = append(rows, []any{references(o.Spec.ParentRefs), "", "", o.backends(), "no parent is a Service that the control plane has looked at"})
	}
	return rows
}

// stateAndReason says the reason where it is not the usual one.
func stateAndReason(c *metav1.Condition) string {
	switch {
	case c == nil:
		return ""
	case c.Status == metav1.ConditionTrue:
		return "yes"
	case c.Status == metav1.ConditionFalse:
		return "no (" + c.Reason + ")"
	}
	return string(c.Status) + " (" + c.Reason + ")"
}

// worst gives the message that matters most: of a route that is not accepted, of
// one that is not carried out in part, of one that refers to what is missing.
func worst(accepted, partly, resolved *metav1.Condition) string {
	switch {
	case accepted == nil:
		return ""
	case accepted.Status != metav1.ConditionTrue:
		return accepted.Message
	case partly != nil && partly.Status == metav1.ConditionTrue:
		return partly.Message
	case resolved != nil && resolved.Status != metav1.ConditionTrue:
		return resolved.Message
	}
	return accepted.Message
}

// isPolicy says whether objects of a kind are attached to others.
func isPolicy(kind string) bool {
	return strings.HasSuffix(kind, "Policy") || slices.Contains([]string{"PeerAuthentication", "JWTAuthentication", "FaultInjection"}, kind)
}

// attached is any policy, as far as it is shown.
type attached struct {
	metav1.ObjectMeta `json:"metadata"`

	Spec struct {
		TargetRefs []reference `json:"targetRefs"`
	} `json:"spec"`
	Status struct {
		Conditions []metav1.Condition               `json:"conditions"`
		Ancestors  []gatewayv1.PolicyAncestorStatus `json:"ancestors"`
	} `json:"status"`
}

// policyRows gives a row for each target.
func policyRows(o *attached) [][]any {
	show := func(target string, conditions []metav1.Condition) []any {
		c := meta.FindStatusCondition(conditions, string(gatewayv1.PolicyConditionAccepted))
		return []any{target, stateAndReason(c), worst(c, nil, nil)}
	}
	var rows [][]any
	for _, a := range o.Status.Ancestors {
		rows = append(rows, show(control.ParentName(o.Namespace, a.AncestorRef), a.Conditions))
	}
	if len(rows) == 0 {
		rows = append(rows, show(references(o.Spec.TargetRefs), o.Status.Conditions))
	}
	return rows
}
