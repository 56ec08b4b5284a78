package route

import (
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
)

// problem is something wrong with a rule of a route.
type problem struct {
	rule  int
	field string
	// reference says that something which is referred to is missing, which is
	// told by ResolvedRefs; otherwise Accepted or PartiallyInvalid tell it.
	reference bool
	reason    gatewayv1.RouteConditionReason
	message   string
}

// report writes the statuses and findings of all routes.
func (t *translation) report() {
	for _, a := range t.routes {
		problems := t.problemsOf(a)
		for _, p := range problems.list {
			t.find(a, p.field, p.message)
		}
		for _, r := range a.refs {
			t.out.Parents = append(t.out.Parents, Parent{Route: a.key, Index: r.index, Status: t.status(a, r, problems)})
		}
	}
}

func (t *translation) find(a *attached, field, message string) {
	t.out.Findings = append(t.out.Findings, Finding{Object: a.key, Field: field, Message: message})
}

// problems is what is wrong with a route, however many ports it is compiled for.
type problems struct {
	list []problem
	// rules is how many there are, dead how many of them answer with an error or
	// are left out.
	rules, dead int
	note        string
}

func (t *translation) problemsOf(a *attached) problems {
	if len(a.compiled) == 0 {
		t.compile(a, nil) // a route without a port is told what else is wrong, too
	}
	var out problems
	seen := make(map[problem]bool)
	for _, c := range a.compiled {
		out.rules, out.dead, out.note = c.rules, len(c.dead), c.note
	}
	for _, section := range sortedKeys(a.compiled) {
		for _, p := range a.compiled[section].problems {
			if !seen[p] {
				seen[p] = true
				out.list = append(out.list, p)
			}
		}
	}
	return out
}

// status gives what is said of one parent.
func (t *translation) status(a *attached, r *reference, p problems) gatewayv1.RouteParentStatus {
	accepted := t.accepted(a, r, p)
	if accepted.Status == metav1.ConditionFalse {
		t.find(a, "spec.parentRefs["+strconv.Itoa(r.index)+"]", accepted.Message)
	}
	conditions := []metav1.Condition{accepted, resolved(p)}
	if broken := p.broken(); accepted.Status == metav1.ConditionTrue && len(broken) > 0 {
		conditions = append(conditions, metav1.Condition{
			Type: string(gatewayv1.RouteConditionPartiallyInvalid), Status: metav1.ConditionTrue,
			Reason: string(broken[0].reason), Message: "Dropped Rule: requests that it matches are answered with an error, and a match that cannot be read matches nothing: " + listed(broken),
		})
	}
	for i := range conditions {
		conditions[i].ObservedGeneration = a.object.GetGeneration()
	}
	return gatewayv1.RouteParentStatus{ParentRef: r.ref, ControllerName: v1alpha1.ControllerName, Conditions: conditions}
}

func (t *translation) accepted(a *attached, r *reference, p problems) metav1.Condition {
	c := metav1.Condition{Type: string(gatewayv1.RouteConditionAccepted), Status: metav1.ConditionFalse}
	switch broken := p.broken(); {
	case r.refused != "":
		c.Reason, c.Message = string(r.refused), r.message
	case len(r.lost) > 0 && len(r.lost) == len(r.ports):
		c.Reason, c.Message = v1alpha1.ReasonConflicted, t.lost(a, r)
	case p.rules > 0 && p.dead == p.rules:
		c.Reason, c.Message = string(broken[0].reason), "no rule can be carried out as written, so that requests are answered with an error: "+listed(broken)
	default:
		c.Status, c.Reason = metav1.ConditionTrue, string(gatewayv1.RouteReasonAccepted)
		c.Message = t.acceptedMessage(a, r, p)
	}
	return c
}

func (t *translation) acceptedMessage(a *attached, r *reference, p problems) string {
	parts := []string{"applies to requests from every namespace that has no routes of its own for the " + t.parent().Kind}
	if a.consumer(t.in.Name) {
		parts[0] = "applies to requests from namespace " + a.key.Namespace
	}
	if len(r.lost) > 0 {
		parts = append(parts, t.lost(a, r))
	}
	for _, note := range []string{r.note, p.note} {
		if note != "" {
			parts = append(parts, note)
		}
	}
	return strings.Join(parts, "; ")
}

// lost says where other routes have won.
func (t *translation) lost(a *attached, r *reference) string {
	var ports []string
	for _, i := range r.lost {
		ports = append(ports, itoa(t.in.Service.Spec.Ports[i].Port))
	}
	text := "no effect on port " + strings.Join(ports, ", ") + " of " + t.called() + ": "
	if a.consumer(t.in.Name) && layer4(a.kind) {
		return text + "routes of another kind decide there, or its owner has not said that it speaks TCP or TLS (appProtocol), which a " +
			a.key.Kind + " of another namespace needs"
	}
	return text + "routes of another kind decide there (the owner's before consumers', then GRPCRoute, HTTPRoute, TLSRoute, TCPRoute)"
}

// broken gives the problems that are not about references.
func (p problems) broken() []problem {
	var out []problem
	for _, x := range p.list {
		if !x.reference {
			out = append(out, x)
		}
	}
	return out
}

func resolved(p problems) metav1.Condition {
	c := metav1.Condition{
		Type: string(gatewayv1.RouteConditionResolvedRefs), Status: metav1.ConditionTrue,
		Reason: string(gatewayv1.RouteReasonResolvedRefs), Message: "everything that the route refers to is there",
	}
	var missing []problem
	for _, x := range p.list {
		if x.reference {
			missing = append(missing, x)
		}
	}
	if len(missing) > 0 {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, string(missing[0].reason), listed(missing)
	}
	return c
}

// maxListed bounds how many problems a condition spells out.
const maxListed = 3

func listed(list []problem) string {
	var parts []string
	for i, p := range list {
		if i == maxListed {
			parts = append(parts, "and more")
			break
		}
		parts = append(parts, p.field+": "+p.message)
	}
	return strings.Join(parts, "; ")
}
