package policy

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/security"
)

// Translation is what became of an AuthorizationPolicy.
type Translation struct {
	// Authorization is what node proxies are told, or nil if there is nothing
	// to tell them. Its resource name is <namespace>/<name> of the policy.
	Authorization *security.Authorization
	// Targets are the workloads that Authorization is for.
	Targets Targets
	// AtWaypoint says that it is enforced by the waypoints of the Services in
	// Targets, for each request, and not by the workloads behind them.
	AtWaypoint bool
	// Status is what the policy's status should say.
	Status v1alpha1.PolicyStatus
	// Problems are why the policy is refused; empty if it is enforced as
	// written on every target that exists.
	Problems []Problem
}

// Translate gives what an AuthorizationPolicy means. The outcome depends on the
// policy, on the Services that it names, which are looked up in services, and
// on opts. It never fails: a policy that cannot be enforced as written is
// translated to one that opens nothing.
func Translate(p *v1alpha1.AuthorizationPolicy, services Services, opts Options) Translation {
	opts = opts.withDefaults()
	t := translator{policy: p, services: services, opts: opts}
	t.resolveTargets()
	if t.problems = Validate(p); len(t.problems) > 0 {
		return t.refused(string(gatewayv1.PolicyReasonInvalid))
	}
	if t.problems = t.unguarded(); len(t.problems) > 0 {
		return t.refused(v1alpha1.ReasonWaypointRequired)
	}
	if p.Spec.EnforcementLevel == v1alpha1.EnforcementApplication {
		if t.problems = t.withoutWaypoint(); len(t.problems) > 0 {
			return t.refused(v1alpha1.ReasonWaypointRequired)
		}
		t.atWaypoint = true
	}
	return t.accepted()
}

type translator struct {
	policy   *v1alpha1.AuthorizationPolicy
	services Services
	opts     Options

	targets  Targets
	missing  []Problem
	verdicts []verdict
	found    []*corev1.Service
	problems []Problem
	// waypoints of the Services in found.
	waypoints  map[string]string
	atWaypoint bool
}

// resolveTargets sets targets, and verdicts and missing for Services. Targets
// that cannot be read are taken for everything that they could have meant.
func (t *translator) resolveTargets() {
	ns, spec := t.policy.Namespace, &t.policy.Spec
	everything := namespaceTargets(ns, t.opts)
	if len(validateTargets(spec.TargetRefs)) > 0 {
		t.targets = everything
		t.verdicts = []verdict{{ref: namespaceRef(ns)}}
		return
	}
	switch first := spec.TargetRefs[0]; first.Kind {
	case v1alpha1.TargetNamespace:
		t.targets = everything
		t.verdicts = []verdict{{ref: namespaceRef(ns)}}
	case v1alpha1.TargetPod:
		t.targets = podTargets(ns, first.Selector)
		t.verdicts = []verdict{{ref: namespaceRef(ns)}}
	default:
		t.resolveServices()
	}
}

func (t *translator) resolveServices() {
	ns := t.policy.Namespace
	t.targets = Targets{Kind: TargetServices, Namespace: ns}
	for i, ref := range t.policy.Spec.TargetRefs {
		name := string(*ref.Name)
		if ref.Kind == v1alpha1.TargetExternalService {
			t.resolveExternal(i, name)
			continue
		}
		v := verdict{ref: serviceRef(ns, name)}
		svc := t.services.Service(ns, name)
		switch {
		case svc == nil:
			v.notFound = "there is no Service " + ns + "/" + name
		case svc.Spec.Type == corev1.ServiceTypeExternalName:
			v.notFound = "Service " + ns + "/" + name + " is an ExternalName: it has no workloads to protect"
		default:
			t.targets.Services = append(t.targets.Services, name)
			t.found = append(t.found, svc)
		}
		if v.notFound != "" {
			t.missing = append(t.missing, Problem{Field: fmt.Sprintf("spec.targetRefs[%d].name", i), Message: v.notFound})
		}
		t.verdicts = append(t.verdicts, v)
	}
	slices.Sort(t.targets.Services)
	slices.Sort(t.targets.Externals)
	if len(t.targets.Services)+len(t.targets.Externals) == 0 {
		t.targets = Targets{}
	}
}

// resolveExternal looks up a target that is an ExternalService.
func (t *translator) resolveExternal(i int, name string) {
	ns := t.policy.Namespace
	v := verdict{ref: externalRef(ns, name)}
	waypoint, found := t.services.External(ns, name)
	switch {
	case !found:
		v.notFound = "there is no ExternalService " + ns + "/" + name
		t.missing = append(t.missing, Problem{Field: fmt.Sprintf("spec.targetRefs[%d].name", i), Message: v.notFound})
	case waypoint.Name != "":
		v.message = "enforced by waypoint " + waypoint.String()
	}
	if found {
		t.targets.Externals = append(t.targets.Externals, name)
	}
	t.verdicts = append(t.verdicts, v)
}

// unguarded says which ExternalServices have no waypoint. Nobody else could enforce
// a policy about hosts outside: whoever binds none has their connections refused.
func (t *translator) unguarded() []Problem {
	r := &report{}
	for i, ref := range t.policy.Spec.TargetRefs {
		if ref.Kind != v1alpha1.TargetExternalService || t.verdicts[i].notFound != "" {
			continue
		}
		if waypoint, _ := t.services.External(t.policy.Namespace, string(*ref.Name)); waypoint.Name == "" {
			r.add(fmt.Sprintf("spec.targetRefs[%d].name", i), "ExternalService %s/%s uses no waypoint, and only a waypoint can enforce a policy about hosts outside; label the ExternalService or its Namespace ambit-mesh.io/use-waypoint", t.policy.Namespace, *ref.Name)
		}
	}
	return r.problems
}

func namespaceTargets(namespace string, opts Options) Targets {
	if namespace == opts.RootNamespace {
		return Targets{Kind: TargetMesh}
	}
	return Targets{Kind: TargetNamespace, Namespace: namespace}
}

// podTargets expects a selector that has passed validateSelector.
func podTargets(namespace string, selector *v1alpha1.PodSelector) Targets {
	sel, err := metav1.LabelSelectorAsSelector(selector.LabelSelector())
	if err != nil {
		sel = labels.Everything()
	}
	if sel.Empty() {
		return Targets{Kind: TargetNamespace, Namespace: namespace}
	}
	return Targets{Kind: TargetSelector, Namespace: namespace, Selector: sel}
}

func (t *translator) accepted() Translation {
	out := Translation{Targets: t.targets, Problems: t.missing, AtWaypoint: t.atWaypoint}
	if t.atWaypoint {
		for i, v := range t.verdicts {
			if v.notFound == "" && v.message == "" {
				t.verdicts[i].message = "enforced by waypoint " + t.waypoints[string(v.ref.Name)]
			}
		}
	}
	out.Status = status(t.policy.Generation, t.summary(), t.verdicts)
	if t.targets.Kind != TargetNone {
		out.Authorization = t.wire()
	}
	return out
}

// refused gives what stands in for a policy that cannot be enforced as written:
// whatever lets in no connection that the policy may have meant to refuse.
func (t *translator) refused(reason string) Translation {
	message := "refused as a whole: " + listed(t.problems)
	out := Translation{Targets: t.targets, Problems: t.problems}
	stand := t.skeleton()
	switch t.policy.Spec.Action {
	case v1alpha1.ActionAudit:
		stand = nil
		message += "; nothing is audited until then"
	case v1alpha1.ActionAllow:
		message += "; the policy allows nothing until then"
	default:
		stand.auth.Action = security.Action_DENY
		stand.auth.Rules = []*security.Rule{{}}
		message += "; everything to its targets is denied until then"
	}
	if t.targets.Kind == TargetNone {
		stand = nil
	}
	if stand != nil {
		stand.origin.Refusal = listed(t.problems)
		out.Authorization = stand.finish()
	} else {
		out.Targets = Targets{}
	}
	for i := range t.verdicts {
		t.verdicts[i].reason, t.verdicts[i].message = reason, message
	}
	out.Status = status(t.policy.Generation, verdict{reason: reason, message: message}, t.verdicts)
	return out
}

// summary judges the policy as a whole, given that its own text is all right.
func (t *translator) summary() verdict {
	if len(t.missing) == 0 {
		switch {
		case len(t.targets.Externals) > 0 && len(t.targets.Services) == 0:
			return verdict{message: acceptedOutside + t.portNote()}
		case t.atWaypoint:
			return verdict{message: acceptedAtWaypoint + t.portNote()}
		}
		return verdict{message: acceptedMessage + t.portNote()}
	}
	v := verdict{notFound: listed(t.missing)}
	if t.targets.Kind == TargetNone {
		v.notFound += "; the policy has no effect until then"
	} else {
		v.notFound += "; enforced on the other targets"
	}
	return v
}
