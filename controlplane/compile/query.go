package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/internal/identity"
)

// Captured gives the pods to hand to a successor as Input.Restored, sorted by
// uid.
func (c *Compiler) Captured() []CapturedPod {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []CapturedPod
	for n, uid := range c.podUID {
		item, ok := c.graph.Pod(n)
		if state := c.captures.pods[uid]; ok && state != nil && state.keep() {
			out = append(out, CapturedPod{UID: uid, Node: item.Object.Spec.NodeName})
		}
	}
	slices.SortFunc(out, func(a, b CapturedPod) int { return cmp.Compare(a.UID, b.UID) })
	return out
}

// Releasing gives all releases that await confirmation, sorted by uid.
func (c *Compiler) Releasing() []Release {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []Release
	for uid, state := range c.captures.pods {
		if state.phase == releasing {
			out = append(out, Release{UID: uid, Epoch: state.epoch})
		}
	}
	slices.SortFunc(out, func(a, b Release) int { return cmp.Compare(a.UID, b.UID) })
	return out
}

// Lookup finds one resource of the output.
func (c *Compiler) Lookup(k Key) (*Resource, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s, ok := c.store.slots[k]
	return s.resource, ok
}

// Resources gives all resources of a type, sorted by name.
func (c *Compiler) Resources(typeURL string) []*Resource {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []*Resource
	for k, s := range c.store.slots {
		if k.Type == typeURL {
			out = append(out, s.resource)
		}
	}
	slices.SortFunc(out, func(a, b *Resource) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// NodeRuns says whether a certificate for id may be given to a node: nil if a
// live pod of that namespace and service account is bound to the node, or an
// error wrapping ErrNotRunning that says why not. A pod is live until it has
// finished (Succeeded, Failed) or is deleted; one that is terminating is. Pods
// with hostNetwork do not count, because no tunnel speaks for them, nor do
// waypoints, which ask for themselves.
func (c *Compiler) NodeRuns(node string, id identity.ID) error {
	if id.TrustDomain != c.options.TrustDomain {
		return fmt.Errorf("%w: %s is of trust domain %q, this mesh is %q", ErrNotRunning, id, id.TrustDomain, c.options.TrustDomain)
	}
	if node == "" {
		return fmt.Errorf("%w: %s: no node given", ErrNotRunning, id)
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	pods := c.graph.PodsRunningAs(node, id.Namespace, id.ServiceAccount)
	for _, n := range pods {
		if item, _ := c.graph.Pod(n); !item.Object.Spec.HostNetwork && !c.graph.IsWaypoint(n.Namespace, item.Object.Labels) {
			return nil
		}
	}
	return fmt.Errorf("%w: %s: %s", ErrNotRunning, id, c.whyNot(node, id, pods))
}

// PodClaim is which pod a caller has proved to be.
type PodClaim struct {
	Node           string
	Name           types.NamespacedName
	UID            types.UID
	ServiceAccount string
	// Gateway of the pod's namespace that it was made for.
	Gateway string
}

// IsPod says whether a certificate for id may be given to a pod that asks for
// itself: nil if it is alive, as it claims to be, and id is its own identity, or
// an error wrapping ErrNotRunning that says why not.
func (c *Compiler) IsPod(claim PodClaim, id identity.ID) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s: pod %s: %s", ErrNotRunning, id, claim.Name, fmt.Sprintf(format, args...))
	}
	own := identity.ID{TrustDomain: c.options.TrustDomain, Namespace: claim.Name.Namespace, ServiceAccount: claim.ServiceAccount}
	if id != own {
		return fail("its own identity is %s", own)
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	item, ok := c.graph.Pod(claim.Name)
	switch {
	case !ok:
		return fail("there is no such pod")
	case graph.Finished(item.Object):
		return fail("it has finished")
	case item.Object.UID != claim.UID:
		return fail("it has another uid now")
	case item.Object.Spec.NodeName != claim.Node:
		return fail("it is on node %q and not on %q", item.Object.Spec.NodeName, claim.Node)
	case graph.ServiceAccount(item.Object) != claim.ServiceAccount:
		return fail("it runs as service account %s", graph.ServiceAccount(item.Object))
	}
	if gw, ok := c.graph.WaypointFor(claim.Name.Namespace, item.Object.Labels); !ok || gw.Name != claim.Gateway {
		return fail("it is not of waypoint %s", claim.Gateway)
	}
	return nil
}

func (c *Compiler) whyNot(node string, id identity.ID, here []types.NamespacedName) string {
	if len(here) > 0 {
		if item, _ := c.graph.Pod(here[0]); !item.Object.Spec.HostNetwork {
			return fmt.Sprintf("pod %s on node %s is a waypoint, which asks for itself", here[0], node)
		}
		return fmt.Sprintf("pod %s on node %s has hostNetwork, for which there is no tunnel", here[0], node)
	}
	elsewhere := c.graph.PodsRunningAs("", id.Namespace, id.ServiceAccount)
	if len(elsewhere) > 0 {
		item, _ := c.graph.Pod(elsewhere[0])
		return fmt.Sprintf("its %d live pods are not on node %s (one is on %s)", len(elsewhere), node, item.Object.Spec.NodeName)
	}
	if _, ok := c.graph.Namespace(id.Namespace); !ok {
		return fmt.Sprintf("there is no namespace %s", id.Namespace)
	}
	return "no live pod has this service account (finished and deleted pods do not count)"
}
