package compile

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/controlplane/provision"
)

// compileGateway reports what keeps a Gateway from being a waypoint. That one is
// not ready is for nobody to put right, and in its status.
func (c *Compiler) compileGateway(n types.NamespacedName) {
	gw, ok := c.graph.Waypoint(n)
	if !ok || gw.Spec.GatewayClassName != graph.WaypointClass {
		c.store.report(graph.GatewayKey(n), nil)
		return
	}
	c.store.report(graph.GatewayKey(n), gatewayFindings(n, gw))
}

func gatewayFindings(n types.NamespacedName, gw *gatewayv1.Gateway) []Finding {
	var findings []Finding
	for _, p := range provision.Check(gw).Problems {
		findings = append(findings, Finding{
			Object: graph.GatewayKey(n), Field: p.Field,
			Message: p.Message + "; until then there is no waypoint, and connections that need it are refused",
		})
	}
	for _, p := range provision.Unknown(gw) {
		findings = append(findings, Finding{Object: graph.GatewayKey(n), Field: p.Field, Message: p.Message})
	}
	return findings
}

// facts gives what there is of a waypoint.
func (c *Compiler) facts(n types.NamespacedName) provision.Facts {
	f := provision.Facts{AttachedRoutes: c.attachedRoutes(n)}
	item, ok := c.graph.Service(n)
	if !ok || !c.graph.IsWaypoint(n.Namespace, item.Object.Labels) {
		return f
	}
	f.Hostname = c.hostname(n)
	for _, a := range graph.VirtualAddresses(item.Object) {
		f.Addresses = append(f.Addresses, a.String())
	}
	for _, pod := range c.graph.PodsOf(n) {
		p, _ := c.graph.Pod(pod)
		if graph.Finished(p.Object) || !c.isWaypointPod(p.Object) {
			continue
		}
		f.Pods++
		if ready(p.Object) && p.Object.DeletionTimestamp == nil {
			f.Ready++
		}
	}
	return f
}

// isWaypointPod says whether a pod is what it is labelled as, a waypoint's pod. It
// runs as the service account that is named after the waypoint, or else nobody
// takes it for one: it would speak for others with an identity that is not meant
// for that.
func (c *Compiler) isWaypointPod(p *corev1.Pod) bool {
	gw, ok := c.graph.WaypointFor(p.Namespace, p.Labels)
	return ok && !p.Spec.HostNetwork && graph.ServiceAccount(p) == gw.Name
}

// Waypoint is a Gateway of class ambit-waypoint and its status.
type Waypoint struct {
	Gateway *gatewayv1.Gateway
	// Implied: no Gateway was written, a namespace's label stands for it.
	Implied bool
	Verdict provision.Verdict
	Facts   provision.Facts
	Status  gatewayv1.GatewayStatus
}

// Waypoints gives all of them, sorted by name.
func (c *Compiler) Waypoints() []Waypoint {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []Waypoint
	for _, n := range c.graph.Waypoints() {
		w, _ := c.waypoint(n)
		out = append(out, w)
	}
	return out
}

// boundStatuses gives the condition of every service that is bound to a waypoint.
func (c *Compiler) boundStatuses() []Status {
	var out []Status
	for n := range c.graph.Services() {
		if s, bound := c.serviceStatus(n); bound {
			out = append(out, Status{Object: serviceKey(n), Origin: c.graph.Origin(serviceKey(n), ""), Status: s.Policy})
		}
	}
	return out
}

func (c *Compiler) boundCondition(generation int64, b binding) metav1.Condition {
	cond := metav1.Condition{Type: ConditionWaypointBound, Status: metav1.ConditionFalse, ObservedGeneration: generation}
	switch {
	case b.reason != "":
		cond.Reason, cond.Message = b.reason, b.message+": "+b.consequence()
	case b.waiting:
		cond.Reason = reasonWaiting
		cond.Message = "waypoint " + b.waypoint.String() + " is being made and has not been ready yet: until it is, connections go without it"
	case c.facts(b.waypoint).Ready == 0:
		cond.Reason, cond.Message = reasonNotReady, "no pod of waypoint "+b.waypoint.String()+" is ready: "+b.consequence()
	default:
		cond.Status, cond.Reason = metav1.ConditionTrue, reasonBound
		cond.Message = "connections take waypoint " + b.waypoint.String()
		if b.failOpen {
			cond.Message += ", and go around it while it is not ready (" + graph.AnnotationFailOpen + ")"
		}
	}
	return cond
}

// gatewayStatuses gives the conditions of all waypoints.
func (c *Compiler) gatewayStatuses() []Status {
	var out []Status
	for _, n := range c.graph.Waypoints() {
		w, _ := c.waypoint(n)
		if w.Implied {
			continue
		}
		out = append(out, Status{
			Object: graph.GatewayKey(n), Origin: c.graph.Origin(graph.GatewayKey(n), ""),
			Status: meshv1alpha1.PolicyStatus{Conditions: w.Status.Conditions},
		})
	}
	return out
}

func conditions(list ...metav1.Condition) []metav1.Condition { return list }

func accepted(list []metav1.Condition) bool {
	return meta.IsStatusConditionTrue(list, meshv1alpha1.ConditionAccepted)
}
