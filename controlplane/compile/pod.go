package compile

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/apis/node"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// compilePod gives what the mesh is told of a pod: the workload to everybody,
// the wanted capture to its node.
func (c *Compiler) compilePod(n types.NamespacedName) {
	owner := podKey(n)
	item, ok := c.graph.Pod(n)
	if !ok || graph.Finished(item.Object) {
		c.dropCapture(n, "")
		c.store.put(owner, nil, nil)
		return
	}
	p := item.Object
	want, reason := c.wanted(p)
	addrs, findings := podAddresses(owner, p)
	findings = append(findings, modeFindings(owner, p.Labels, "the namespace decides")...)
	findings = append(findings, transportFindings(owner, p.Annotations, "counts as the mesh's default, whatever the Namespace says")...)
	findings = append(findings, dnsFindings(owner, p.Annotations)...)
	findings = append(findings, misplaced(owner, "labels", graph.LabelOutbound, p.Labels, "the Namespace")...)
	findings = append(findings, misplaced(owner, "annotations", graph.AnnotationRequireWaypoint, p.Annotations, "a Service")...)
	b := c.bindingOf(n.Namespace, p.Labels, p.Annotations, byWorkload)
	findings = append(findings, c.waypointFindings(owner, p.Labels, p.Annotations, b)...)
	findings = append(findings, c.claimFindings(owner, n, p, addrs)...)
	if gw, ok := c.graph.WaypointFor(n.Namespace, p.Labels); ok && !c.isWaypointPod(p) {
		findings = append(findings, Finding{
			Object: owner, Field: "metadata.labels[" + graph.LabelGatewayName + "]",
			Message: "the pod is labelled as one of waypoint " + gw.String() + " and does not run as its service account, " + gw.Name + ", without hostNetwork: nobody sends it tunnels; remove the label",
		})
	}
	var resources []*Resource
	state := &capture{}
	if holder, _ := c.graph.PodByUID(p.UID); holder == n && p.Spec.NodeName != "" {
		state = c.settle(n, p, want)
		resources = append(resources, nodePod(p, addrs, state, reason, c.dnsLeftAlone(p)))
		findings = append(findings, captureFindings(owner, p, state)...)
	} else {
		c.dropCapture(n, "")
	}
	if len(addrs) > 0 {
		resources = append(resources, c.workload(n, p, addrs, state, b))
	}
	c.store.put(owner, resources, findings)
}

// wanted says whether labels enroll a pod, and why not if something else
// forbids it.
func (c *Compiler) wanted(p *corev1.Pod) (bool, string) {
	mode := p.Labels[graph.LabelDataplaneMode]
	if mode != graph.ModeAmbient && mode != graph.ModeNone {
		mode = ""
		if ns, ok := c.graph.Namespace(p.Namespace); ok {
			mode = ns.Object.Labels[graph.LabelDataplaneMode]
		}
	}
	if mode != graph.ModeAmbient {
		return false, ""
	}
	if c.graph.IsWaypoint(p.Namespace, p.Labels) {
		return false, "a waypoint: it speaks HBONE itself and is never captured"
	}
	if p.Spec.HostNetwork {
		return false, "hostNetwork: the pod shares the node's network, which is never captured"
	}
	return true, ""
}

// settle brings a pod's capture state up to date.
func (c *Compiler) settle(n types.NamespacedName, p *corev1.Pod, want bool) *capture {
	c.dropCapture(n, p.UID)
	c.podUID[n] = p.UID
	_, existed := c.captures.pods[p.UID]
	state := c.captures.of(p.UID, p.Spec.NodeName)
	before := state.phase
	kept := existed && state.keep()
	if c.options.CapturedByCondition {
		state.read(p, want)
	} else {
		state.settle(want)
	}
	if state.phase == releasing && before != releasing {
		c.begun = append(c.begun, Release{UID: p.UID, Epoch: state.epoch})
	}
	c.captures.changed = c.captures.changed || kept != state.keep()
	return state
}

// dropCapture forgets the state of the pod that had this name, unless its uid is
// still that one.
func (c *Compiler) dropCapture(n types.NamespacedName, uid types.UID) {
	old, ok := c.podUID[n]
	if !ok || old == uid {
		return
	}
	delete(c.podUID, n)
	if holder, ok := c.graph.PodByUID(old); ok && holder != n {
		return
	}
	c.captures.drop(old)
}

func nodePod(p *corev1.Pod, addrs []netip.Addr, state *capture, reason string, dnsLeftAlone bool) *Resource {
	body := &node.Pod{
		Uid: string(p.UID), Name: p.Name, Namespace: p.Namespace, ServiceAccount: graph.ServiceAccount(p),
		Captured: state.wanted(), Reason: reason, DnsLeftAlone: dnsLeftAlone,
	}
	for _, a := range addrs {
		body.Addresses = append(body.Addresses, a.AsSlice())
	}
	r := resource(TypePod, string(p.UID), body)
	r.Node = p.Spec.NodeName
	return r
}

// podAddresses gives the addresses that a pod can be reached at.
func podAddresses(owner graph.Key, p *corev1.Pod) ([]netip.Addr, []Finding) {
	var addrs []netip.Addr
	var findings []Finding
	for _, a := range graph.Addresses(p) {
		if !routable(a) {
			findings = append(findings, Finding{
				Object: owner, Field: "status.podIPs",
				Message: a.String() + " cannot be the address of a pod and is left out",
			})
			continue
		}
		addrs = append(addrs, a)
	}
	return addrs, findings
}

// routable says whether an address can mean the same on every node.
func routable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast()
}

// claimFindings says that another pod claims the same uid or address.
func (c *Compiler) claimFindings(owner graph.Key, n types.NamespacedName, p *corev1.Pod, addrs []netip.Addr) []Finding {
	var findings []Finding
	if p.UID == "" {
		findings = append(findings, Finding{
			Object: owner, Field: "metadata.uid",
			Message: "there is no uid: the pod cannot be enrolled; set one",
		})
	} else if holder, _ := c.graph.PodByUID(p.UID); holder != n {
		findings = append(findings, Finding{
			Object: owner, Field: "metadata.uid",
			Message: "Pod " + holder.String() + " has the same uid: this pod cannot be enrolled; give each its own",
		})
	}
	if p.Spec.HostNetwork {
		return findings
	}
	for _, a := range addrs {
		for _, other := range c.graph.PodsAt(a) {
			if other != n {
				findings = append(findings, Finding{
					Object: owner, Field: "status.podIPs",
					Message: fmt.Sprintf("Pod %s has the address %s too: traffic to it may reach either; correct one", other, a),
				})
			}
		}
	}
	return findings
}

// captureFindings says that a pod is not in the state that labels want.
func captureFindings(owner graph.Key, p *corev1.Pod, state *capture) []Finding {
	switch {
	case state.phase == enrolling && state.message != "":
		return []Finding{{Object: owner, Message: "node " + p.Spec.NodeName + " could not capture the pod, its traffic is plaintext: " + state.message}}
	case state.phase == captured && !state.reported:
		message := "node " + p.Spec.NodeName + " no longer holds the capture of the pod: connections to it are refused until it does"
		if state.message != "" {
			message += ": " + state.message
		}
		return []Finding{{Object: owner, Message: message}}
	}
	return nil
}
