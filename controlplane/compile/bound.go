package compile

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/controlplane/compile/traffic"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// bounds remembers of which namespaces the waypoint that their label names is
// bound. One that is written down is from the start, one that is not when it is
// ready for the first time; from then on both are until the label names them no
// more. On Kubernetes it is not used: a condition of the Namespace says the same to
// all replicas (graph.ConditionWaypointBound).
type bounds struct {
	of      map[types.NamespacedName]struct{}
	changed bool
}

// applyBounds takes in what was restored and what has become ready, and marks what
// is bound by that.
func (c *Compiler) applyBounds(in Input, d *graph.Dirty) {
	for _, n := range in.RestoredWaypoints {
		c.bounds.of[n] = struct{}{}
		c.bounds.changed = true
		c.settleBound(n, d)
	}
	for n := range maps.Clone(d.Gateways) {
		c.settleBound(n, d)
	}
	// What has to stay closed may be another with routes and policies.
	for n := range d.Frontends {
		if item, ok := c.graph.Service(n); ok && c.bindingOf(n.Namespace, item.Object.Labels, item.Object.Annotations, byService).waiting {
			d.Services[n] = struct{}{}
		}
	}
}

func (c *Compiler) settleBound(n types.NamespacedName, d *graph.Dirty) {
	if c.options.CapturedByCondition {
		return
	}
	_, had := c.bounds.of[n]
	has := c.shouldBind(n)
	if had == has {
		return
	}
	c.bounds.changed = true
	if !has {
		delete(c.bounds.of, n)
		return // without the label nobody inherits it
	}
	c.bounds.of[n] = struct{}{}
	c.graph.MarkNamespace(n.Namespace, d)
}

// shouldBind says whether a waypoint that its namespace's label names is to count as
// bound from now on.
func (c *Compiler) shouldBind(n types.NamespacedName) bool {
	if !c.graph.AskedFor(n) {
		return false
	}
	_, written := c.graph.Gateway(n)
	return written || c.hasServed(n) || c.facts(n).Ready > 0
}

// hasServed says whether a waypoint is known to have been bound.
func (c *Compiler) hasServed(n types.NamespacedName) bool {
	if _, ok := c.bounds.of[n]; ok {
		return true
	}
	ns, ok := c.graph.Namespace(n.Namespace)
	return ok && graph.BoundWaypoint(ns.Object) == n.Name
}

// BoundWaypoints gives the waypoints to hand to a successor as
// Input.RestoredWaypoints, sorted.
func (c *Compiler) BoundWaypoints() []types.NamespacedName {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.SortedFunc(maps.Keys(c.bounds.of), func(a, b types.NamespacedName) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

// namespaceStatus gives the condition by which a namespace's waypoint stays bound.
func (c *Compiler) namespaceStatus(namespace string) (ObjectStatus, bool) {
	ns, ok := c.graph.Namespace(namespace)
	if !ok || !c.options.CapturedByCondition {
		return ObjectStatus{}, false
	}
	n, asked := c.graph.Asks(namespace)
	if !asked || !c.shouldBind(n) {
		return ObjectStatus{}, false
	}
	return ObjectStatus{Policy: meshv1alpha1.PolicyStatus{Conditions: conditions(metav1.Condition{
		Type: string(graph.ConditionWaypointBound), Status: metav1.ConditionTrue, Reason: reasonBound,
		Message: graph.BoundMessage(n.Name), ObservedGeneration: ns.Object.Generation,
	})}}, true
}

// bindingOfService gives the binding of a service, that of one that may not be
// reached around its waypoint closed from the start.
func (c *Compiler) bindingOfService(n types.NamespacedName, s *corev1.Service) binding {
	b := c.bindingOf(n.Namespace, s.Labels, s.Annotations, byService)
	b.waiting = b.waiting && !c.mustNotBypass(n, s)
	return b
}

// mustNotBypass says whether something decides about requests to a service that its
// waypoint alone can enforce.
func (c *Compiler) mustNotBypass(n types.NamespacedName, s *corev1.Service) bool {
	if s.Annotations[graph.AnnotationRequireWaypoint] == "true" || len(c.atWaypoint(n)) > 0 {
		return true
	}
	targets := []graph.Key{{Kind: "Namespace", Name: n.Namespace}, graph.ServiceKey(n)}
	for _, r := range c.graph.Routes(graph.ServiceKey(n)) {
		if authorizes(r) {
			return true
		}
		if k, ok := graph.KeyOf(r); ok {
			targets = append(targets, k)
		}
	}
	for _, t := range targets {
		for _, kind := range []string{meshv1alpha1.KindJWTAuthentication, meshv1alpha1.KindExternalAuthorizationPolicy} {
			for _, p := range (mesh{c}).Attached(kind, t) {
				if _, ok := p.(meshv1alpha1.TrafficPolicy); ok {
					return true
				}
			}
		}
	}
	return false
}

// authorizes says whether a route has a filter that asks whether requests are let
// through.
func authorizes(obj graph.Object) bool {
	r, ok := obj.(*gatewayv1.HTTPRoute)
	if !ok {
		return false
	}
	asks := func(f gatewayv1.HTTPRouteFilter) bool { return f.Type == gatewayv1.HTTPRouteFilterExternalAuth }
	return slices.ContainsFunc(r.Spec.Rules, func(rule gatewayv1.HTTPRouteRule) bool {
		return slices.ContainsFunc(rule.Filters, asks) || slices.ContainsFunc(rule.BackendRefs, func(b gatewayv1.HTTPBackendRef) bool {
			return slices.ContainsFunc(b.Filters, asks)
		})
	})
}

var _ traffic.Mesh = mesh{}

// announced names a waypoint that is going to be bound.
func (c *Compiler) announced(b binding) *workload.GatewayAddress {
	b.waiting = false
	return c.gatewayAddress(b)
}
