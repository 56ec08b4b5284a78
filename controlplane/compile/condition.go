package compile

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// ConditionCaptured of a pod is True while peers reach it by tunnel, or did until a
// moment ago. With Options.CapturedByCondition it is all that is remembered of a
// capture, so that each replica, restarted or not, derives the same from it:
//
//	status, reason         wanted by label   not wanted
//	none, False            Enrolling         Plain
//	True, Captured         Captured          Releasing
//	True, CaptureLost      Captured          Releasing
//	True, Releasing        Released          Released
const ConditionCaptured corev1.PodConditionType = "ambit-mesh.io/Captured"

// Reasons of ConditionCaptured.
const (
	// ReasonCaptured: the node's agent holds the pod.
	ReasonCaptured = "Captured"
	// ReasonCaptureLost: it does not any more, and nobody has asked for that.
	ReasonCaptureLost = "CaptureLost"
	// ReasonReleasing: no peer uses a tunnel any more, the agent is to let go.
	ReasonReleasing = "Releasing"
	// ReasonReleased: the agent has let go.
	ReasonReleased = "Released"
	// ReasonCaptureFailed: the agent could not capture the pod; the message says why.
	ReasonCaptureFailed = "CaptureFailed"
)

// CapturedCondition gives the condition of a pod; the zero value is none.
func CapturedCondition(p *corev1.Pod) corev1.PodCondition {
	for _, c := range p.Status.Conditions {
		if c.Type == ConditionCaptured {
			return c
		}
	}
	return corev1.PodCondition{}
}

// read takes the state from the pod.
func (c *capture) read(p *corev1.Pod, want bool) {
	cond := CapturedCondition(p)
	before := c.phase
	c.reported, c.message = false, ""
	switch {
	case cond.Status != corev1.ConditionTrue:
		c.phase = plain
		if want {
			c.phase = enrolling
		}
		if cond.Reason == ReasonCaptureFailed {
			c.message = cond.Message
		}
	case cond.Reason == ReasonReleasing:
		c.phase, c.reported = released, true
	default:
		c.phase = releasing
		if want {
			c.phase = captured
		}
		if c.reported = cond.Reason != ReasonCaptureLost; !c.reported {
			c.message = cond.Message
		}
	}
	if c.phase == releasing && before != releasing {
		c.epoch++
	}
}

// PodState is what a capture of a pod depends on.
type PodState struct {
	Name types.NamespacedName
	UID  types.UID
	Node string
	// ResourceVersion of the pod when anything last changed that the mesh reads.
	ResourceVersion string
	// Wanted by label.
	Wanted bool
	// Releasing: peers have been told that there is no tunnel; Epoch is which time.
	Releasing bool
	Epoch     uint64
	Condition corev1.PodCondition
}

// PodState finds a pod that has not finished by its uid.
func (c *Compiler) PodState(uid types.UID) (PodState, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	n, ok := c.graph.PodByUID(uid)
	if !ok {
		return PodState{}, false
	}
	item, _ := c.graph.Pod(n)
	if graph.Finished(item.Object) {
		return PodState{}, false
	}
	return c.podState(n, item.Object), true
}

func (c *Compiler) podState(n types.NamespacedName, p *corev1.Pod) PodState {
	s := PodState{Name: n, UID: p.UID, Node: p.Spec.NodeName, ResourceVersion: p.ResourceVersion, Condition: CapturedCondition(p)}
	s.Wanted, _ = c.wanted(p)
	if state := c.captures.pods[p.UID]; state != nil {
		s.Releasing, s.Epoch = state.phase == releasing, state.epoch
	}
	return s
}

// CapturedOn gives the pods of a node whose condition says that they are captured.
func (c *Compiler) CapturedOn(node string) []PodState {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []PodState
	for _, n := range c.graph.PodsOn(node) {
		item, _ := c.graph.Pod(n)
		if !graph.Finished(item.Object) && CapturedCondition(item.Object).Status == corev1.ConditionTrue {
			out = append(out, c.podState(n, item.Object))
		}
	}
	return out
}

// Pod is what is known of a live pod that calls.
type Pod struct {
	UID                  types.UID
	Node, ServiceAccount string
	// Gateway that it is a waypoint's pod of, "" for others.
	Gateway string
}

// LivePod finds a pod that has not finished.
func (c *Compiler) LivePod(n types.NamespacedName) (Pod, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	item, ok := c.graph.Pod(n)
	if !ok || graph.Finished(item.Object) {
		return Pod{}, false
	}
	p := Pod{UID: item.Object.UID, Node: item.Object.Spec.NodeName, ServiceAccount: graph.ServiceAccount(item.Object)}
	if c.isWaypointPod(item.Object) {
		gw, _ := c.graph.WaypointFor(n.Namespace, item.Object.Labels)
		p.Gateway = gw.Name
	}
	return p, true
}

// Serving counts the addresses behind a service that serve, ready or ending. It
// reports false if nothing is known of them.
func (c *Compiler) Serving(svc types.NamespacedName) (int, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	slices := c.graph.EndpointSlicesOf(svc)
	pods := make(map[string]struct{})
	for _, n := range slices {
		item, _ := c.graph.EndpointSlice(n)
		for _, ep := range item.Object.Endpoints {
			if s := ep.Conditions.Serving; s != nil && !*s || len(ep.Addresses) == 0 {
				continue
			}
			id := ep.Addresses[0]
			if ep.TargetRef != nil { // of either family
				id = ep.TargetRef.Name
			}
			pods[id] = struct{}{}
		}
	}
	return len(pods), len(slices) > 0
}

// Namespaces gives the names of all, sorted.
func (c *Compiler) Namespaces() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.graph.Namespaces()
}
