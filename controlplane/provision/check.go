package provision

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// Problem is one reason why there is no waypoint for a Gateway, or why it is not
// as it was asked for.
type Problem struct {
	Field string
	// Message says what is wrong and what to do.
	Message string
}

// String gives "field: message".
func (p Problem) String() string { return p.Field + ": " + p.Message }

// Verdict is what a Gateway of class ambit-waypoint amounts to.
type Verdict struct {
	// Problems: while there are any, there is no waypoint.
	Problems []Problem
	// Listener is the position of the listener for tunnels.
	Listener int
	// Services and Workloads say which addressing it is for.
	Services, Workloads bool
}

// Check reads a Gateway of class ambit-waypoint.
func Check(gw *gatewayv1.Gateway) Verdict {
	v := Verdict{Listener: -1}
	add := func(field, format string, args ...any) {
		v.Problems = append(v.Problems, Problem{field, fmt.Sprintf(format, args...)})
	}
	if len(validation.IsDNS1035Label(gw.Name)) > 0 {
		add("metadata.name", "%q cannot be the name of the waypoint's Service: use at most 63 of a-z 0-9 and -, beginning with a letter", gw.Name)
	}
	for i, l := range gw.Spec.Listeners {
		if l.Protocol == graph.ProtocolHBONE && l.Port == graph.WaypointPort {
			v.Listener = i
			break
		}
	}
	if v.Listener < 0 {
		add("spec.listeners", "a waypoint needs a listener with protocol: HBONE and port: %d", graph.WaypointPort)
	} else if _, err := admitted(gw, v.Listener); err != nil {
		add(fmt.Sprintf("spec.listeners[%d].allowedRoutes.namespaces", v.Listener), "%v", err)
	}
	switch value := gw.Labels[graph.LabelWaypointFor]; value {
	case "", graph.ForService:
		v.Services = true
	case graph.ForWorkload:
		v.Workloads = true
	case graph.ForAll:
		v.Services, v.Workloads = true, true
	case graph.ForNone:
	default:
		add("metadata.labels["+graph.LabelWaypointFor+"]", "%q is not possible: use service, workload, all or none", value)
	}
	v.Problems = append(v.Problems, checkSize(gw)...)
	v.Problems = append(v.Problems, checkBounds(gw)...)
	if ref := Parameters(gw); ref != nil && (ref.Group != "" || ref.Kind != "ConfigMap") {
		add("spec.infrastructure.parametersRef", "%s %q cannot be read: name a ConfigMap, of group \"\", in the Gateway's namespace", ref.Kind, ref.Name)
	}
	return v
}

// Admits says whether a namespace, with its labels, may use the waypoint. Check
// must have found no problem.
func Admits(gw *gatewayv1.Gateway, v Verdict, namespace string, namespaceLabels map[string]string) bool {
	if v.Listener < 0 {
		return false
	}
	admits, err := admitted(gw, v.Listener)
	return err == nil && admits(namespace, namespaceLabels)
}

// admitted reads a listener's allowedRoutes.namespaces; without it only the
// Gateway's own namespace is admitted.
func admitted(gw *gatewayv1.Gateway, listener int) (func(string, map[string]string) bool, error) {
	same := func(namespace string, _ map[string]string) bool { return namespace == gw.Namespace }
	allowed := gw.Spec.Listeners[listener].AllowedRoutes
	if allowed == nil || allowed.Namespaces == nil || allowed.Namespaces.From == nil {
		return same, nil
	}
	switch from := *allowed.Namespaces.From; from {
	case gatewayv1.NamespacesFromSame:
		return same, nil
	case gatewayv1.NamespacesFromAll:
		return func(string, map[string]string) bool { return true }, nil
	case gatewayv1.NamespacesFromNone:
		return func(string, map[string]string) bool { return false }, nil
	case gatewayv1.NamespacesFromSelector:
		if allowed.Namespaces.Selector == nil {
			return nil, fmt.Errorf("from: Selector needs a selector")
		}
		selector, err := metav1.LabelSelectorAsSelector(allowed.Namespaces.Selector)
		if err != nil {
			return nil, fmt.Errorf("selector: %w", err)
		}
		return func(_ string, l map[string]string) bool { return selector.Matches(labels.Set(l)) }, nil
	default:
		return nil, fmt.Errorf("from: %q is not possible: use Same, All, Selector or None", from)
	}
}

// checkSize reads the annotations about replicas and resources.
func checkSize(gw *gatewayv1.Gateway) []Problem {
	_, problems := replicas(gw)
	_, _, more := scaling(gw)
	problems = append(problems, more...)
	for _, a := range resourceAnnotations() {
		value, ok := setting(gw, a.key)
		if !ok {
			continue
		}
		if q, err := resource.ParseQuantity(value); err != nil || q.Sign() <= 0 {
			problems = append(problems, Problem{settingField(gw, a.key), fmt.Sprintf("%q is not an amount: write for example 100m or 64Mi", value)})
		}
	}
	return problems
}

// Parameters gives what a Gateway refers to for overlays, or nil.
func Parameters(gw *gatewayv1.Gateway) *gatewayv1.LocalParametersReference {
	if gw.Spec.Infrastructure == nil {
		return nil
	}
	return gw.Spec.Infrastructure.ParametersRef
}
