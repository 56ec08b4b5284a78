package policy

import (
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/ambit-mesh/ambit/apis/security"
)

// TargetKind says how workloads are chosen.
type TargetKind int

// Ways to choose workloads.
const (
	// TargetNone chooses nothing.
	TargetNone TargetKind = iota
	// TargetMesh chooses every workload.
	TargetMesh
	// TargetNamespace chooses every workload of Targets.Namespace.
	TargetNamespace
	// TargetSelector chooses pods of Targets.Namespace by Targets.Selector.
	TargetSelector
	// TargetServices chooses the workloads behind Targets.Services, and the hosts of
	// Targets.Externals.
	TargetServices
)

// Targets describes the workloads that a policy is for. Only those of kind
// TargetSelector and TargetServices have to list the policy; the node proxies
// find out about the others by its scope.
type Targets struct {
	Kind TargetKind
	// Namespace of the workloads; "" for TargetMesh.
	Namespace string
	// Selector is set for TargetSelector.
	Selector labels.Selector
	// Services are names in Namespace, sorted, of Services that exist.
	Services []string
	// Externals are names in Namespace, sorted, of ExternalServices that exist.
	Externals []string
}

// Listed says whether workloads have to list the policy.
func (t Targets) Listed() bool {
	return t.Kind == TargetSelector || t.Kind == TargetServices
}

// Selects says whether a pod is chosen by its namespace and labels. For
// TargetServices it is the caller who knows, by SelectsService of each Service
// that the pod serves.
func (t Targets) Selects(namespace string, podLabels map[string]string) bool {
	switch t.Kind {
	case TargetMesh:
		return true
	case TargetNamespace:
		return namespace == t.Namespace
	case TargetSelector:
		return namespace == t.Namespace && t.Selector.Matches(labels.Set(podLabels))
	default:
		return false
	}
}

// SelectsService says whether the workloads behind a Service are chosen because
// the policy names it.
func (t Targets) SelectsService(namespace, name string) bool {
	if t.Kind != TargetServices || namespace != t.Namespace {
		return false
	}
	_, found := slices.BinarySearch(t.Services, name)
	return found
}

func (t Targets) scope() security.Scope {
	switch t.Kind {
	case TargetMesh:
		return security.Scope_GLOBAL
	case TargetNamespace:
		return security.Scope_NAMESPACE
	default:
		return security.Scope_WORKLOAD_SELECTOR
	}
}
