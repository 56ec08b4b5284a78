package policy

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
)

// Bounds of the lists in a policy, as in its CRD.
const (
	maxTargets = 16
	maxRules   = 64
	maxSources = 64
	maxPorts   = 64
)

// report collects problems. Its methods take the path of the offending field.
type report struct{ problems []Problem }

func (r *report) add(field, format string, args ...any) {
	r.problems = append(r.problems, Problem{Field: field, Message: fmt.Sprintf(format, args...)})
}

func (r *report) atMost(field string, n, limit int) {
	if n > limit {
		r.add(field, "has %d entries, at most %d are possible; split the policy", n, limit)
	}
}

// Validate checks what the CRD of AuthorizationPolicy checks, for objects that
// did not come through an API server. It gives nil for a sound policy.
func Validate(p *v1alpha1.AuthorizationPolicy) []Problem {
	r := &report{}
	r.metadata(p.Name, p.Namespace)
	spec := &p.Spec
	r.problems = append(r.problems, validateTargets(spec.TargetRefs)...)
	switch spec.Action {
	case v1alpha1.ActionAllow:
	case v1alpha1.ActionDeny, v1alpha1.ActionAudit:
		if len(spec.Rules) == 0 {
			r.add("spec.rules", "a %s policy needs at least one rule; without rules it would do nothing", spec.Action)
		}
	default:
		r.add("spec.action", "%q is not an action; use ALLOW, DENY or AUDIT", spec.Action)
	}
	switch spec.EnforcementLevel {
	case "", v1alpha1.EnforcementNetwork, v1alpha1.EnforcementApplication:
	default:
		r.add("spec.enforcementLevel", "%q is not a level; use Network or Application", spec.EnforcementLevel)
	}
	r.atMost("spec.rules", len(spec.Rules), maxRules)
	names := map[string]bool{}
	for i := range spec.Rules {
		path := fmt.Sprintf("spec.rules[%d]", i)
		rule := &spec.Rules[i]
		if rule.Name != "" {
			r.dnsLabel(path+".name", rule.Name)
			if names[rule.Name] {
				r.add(path+".name", "there is another rule named %q; rule names must be unique in the policy", rule.Name)
			}
			names[rule.Name] = true
		}
		r.rule(path, rule)
		if rule.Application != nil && spec.EnforcementLevel != v1alpha1.EnforcementApplication {
			r.add(path+".application", "needs enforcementLevel: Application and a waypoint")
		}
	}
	return r.problems
}

func (r *report) metadata(name, namespace string) {
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		r.add("metadata.name", "%q is not a valid object name", name)
	}
	if len(validation.IsDNS1123Label(namespace)) > 0 {
		r.add("metadata.namespace", "%q is not a valid namespace name", namespace)
	}
}

func (r *report) dnsLabel(field, s string) {
	if len(validation.IsDNS1123Label(s)) > 0 {
		r.add(field, "%q must be at most 63 of a-z 0-9 and -, beginning and ending with a letter or digit", s)
	}
}

// validateTargets checks the targets alone: whether the policy says, in a form
// that can be read, what it is about.
func validateTargets(refs []v1alpha1.AuthorizationPolicyTargetReference) []Problem {
	r := &report{}
	if len(refs) == 0 {
		r.add("spec.targetRefs", "a policy needs a target: a Pod with a selector, a Namespace, Services or ExternalServices")
	}
	r.atMost("spec.targetRefs", len(refs), maxTargets)
	named := map[string]bool{}
	for i := range refs {
		path, ref := fmt.Sprintf("spec.targetRefs[%d]", i), &refs[i]
		if ref.Kind != v1alpha1.TargetExternalService {
			r.coreGroup(path, ref.Group)
		} else if ref.Group != v1alpha1.GroupName {
			r.add(path+".group", "%q is not the group of an ExternalService, which is %s", ref.Group, v1alpha1.GroupName)
		}
		if ref.Kind != v1alpha1.TargetService && ref.Kind != v1alpha1.TargetExternalService && len(refs) > 1 {
			r.add(path, "a Pod or a Namespace must be the only target; use one policy each")
		}
		r.target(path, ref)
		if ref.Name == nil {
			continue
		}
		name := string(ref.Kind) + "/" + string(*ref.Name)
		if named[name] {
			r.add(path+".name", "%q is named twice", *ref.Name)
		}
		named[name] = true
	}
	return r.problems
}

func (r *report) coreGroup(path string, group gatewayv1.Group) {
	if group != "" && group != "core" {
		r.add(path+".group", "%q is not possible; all targets are of the core group, written \"\"", group)
	}
}

func (r *report) target(path string, ref *v1alpha1.AuthorizationPolicyTargetReference) {
	switch ref.Kind {
	case v1alpha1.TargetPod:
		if ref.Name != nil {
			r.add(path+".name", "a Pod target is chosen by selector, not by name")
		}
		r.selector(path+".selector", ref.Selector)
		return
	case v1alpha1.TargetService, v1alpha1.TargetExternalService:
		if ref.Name == nil || *ref.Name == "" {
			r.add(path+".name", "a target of kind %s needs a name", ref.Kind)
		}
	case v1alpha1.TargetNamespace:
		if ref.Name != nil {
			r.add(path+".name", "a Namespace target has no name: it is the namespace of the policy")
		}
	default:
		r.add(path+".kind", "%q cannot be targeted; use Pod, Service, ExternalService or Namespace", ref.Kind)
	}
	if ref.Selector != nil {
		r.add(path+".selector", "only a Pod target may have a selector")
	}
}

func (r *report) selector(path string, s *v1alpha1.PodSelector) {
	if s == nil {
		r.add(path, "a Pod target needs a selector; {} selects every pod of the namespace")
		return
	}
	if _, err := metav1.LabelSelectorAsSelector(s.LabelSelector()); err != nil {
		r.add(path, "%v", err)
	}
}

func (r *report) rule(path string, rule *v1alpha1.AuthorizationRule) {
	r.sources(path+".sources", rule.Sources)
	r.sources(path+".notSources", rule.NotSources)
	if n := rule.NetworkAttributes; n != nil {
		if len(n.Ports)+len(n.NotPorts) == 0 {
			r.add(path+".networkAttributes", "needs ports or notPorts")
		}
		r.ports(path+".networkAttributes.ports", n.Ports)
		r.ports(path+".networkAttributes.notPorts", n.NotPorts)
	}
	if rule.Application != nil {
		r.application(path+".application", rule.Application)
	}
}

func (r *report) ports(path string, ports []v1alpha1.PortNumber) {
	r.atMost(path, len(ports), maxPorts)
	for i, p := range ports {
		r.port(fmt.Sprintf("%s[%d]", path, i), p)
	}
}

func (r *report) port(path string, p v1alpha1.PortNumber) {
	if p < 1 || p > 65535 {
		r.add(path, "%d is not a port; use 1 to 65535", p)
	}
}
