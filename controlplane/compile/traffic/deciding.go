package traffic

import (
	"cmp"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/controlplane/compile/policy"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// Target is what a policy is attached to: a Namespace, a Service or a route, or a
// section of it, which is the name of a port or of a rule.
type Target struct {
	Key     graph.Key
	Section string
}

// Older orders objects by age, then by name (GEP-713).
func Older(a, b graph.Object) int {
	return cmp.Or(a.GetCreationTimestamp().Compare(b.GetCreationTimestamp().Time),
		strings.Compare(a.GetNamespace(), b.GetNamespace()), strings.Compare(a.GetName(), b.GetName()))
}

// Deciding gives the policy of a kind that decides for a target, sound or not, or
// nil: the oldest of those with this very target.
func Deciding(mesh Mesh, kind string, target Target) v1alpha1.TrafficPolicy {
	var best v1alpha1.TrafficPolicy
	for _, obj := range mesh.Attached(kind, target.Key) {
		p, ok := obj.(v1alpha1.TrafficPolicy)
		if ok && names(p, target) && (best == nil || Older(p, best) < 0) {
			best = p
		}
	}
	return best
}

// Sections gives the sections of a target that policies of some kinds name.
func Sections(mesh Mesh, kinds []string, target graph.Key) map[string]bool {
	out := make(map[string]bool)
	for _, kind := range kinds {
		for _, obj := range mesh.Attached(kind, target) {
			p, ok := obj.(v1alpha1.TrafficPolicy)
			if !ok {
				continue
			}
			for _, ref := range p.Targets() {
				if targetOf(p, ref).Key == target && ref.SectionName != nil {
					out[string(*ref.SectionName)] = true
				}
			}
		}
	}
	return out
}

func names(p v1alpha1.TrafficPolicy, target Target) bool {
	return slices.ContainsFunc(p.Targets(), func(ref v1alpha1.TrafficTargetReference) bool {
		return targetOf(p, ref) == target
	})
}

func targetOf(p v1alpha1.TrafficPolicy, ref v1alpha1.TrafficTargetReference) Target {
	t := Target{Key: graph.TargetKey(p.GetNamespace(), string(ref.Group), string(ref.Kind), string(ref.Name))}
	if ref.SectionName != nil {
		t.Section = string(*ref.SectionName)
	}
	return t
}

// Name gives <namespace>/<name>, by which logs, metrics and answers call a policy.
func Name(p v1alpha1.TrafficPolicy) string { return p.GetNamespace() + "/" + p.GetName() }

// Refusal says in one line why a policy is refused, for those who are refused
// because of it; "" if it is not.
func Refusal(p v1alpha1.TrafficPolicy) string {
	problems := Validate(p)
	if len(problems) == 0 {
		return ""
	}
	return p.PolicyKind() + " " + Name(p) + " cannot be enforced: " + problems[0].String()
}

// maxListed bounds how many problems a condition spells out.
const maxListed = 3

func listed(problems []policy.Problem) string {
	var parts []string
	for i, p := range problems {
		if i == maxListed {
			parts = append(parts, "and more")
			break
		}
		parts = append(parts, p.String())
	}
	return strings.Join(parts, "; ")
}
