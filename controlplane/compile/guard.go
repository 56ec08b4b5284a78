package compile

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ambit-mesh/ambit/apis/security"
	"github.com/ambit-mesh/ambit/controlplane/compile/policy"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// atWaypoint gives the policies that a service's waypoint enforces, sorted.
func (c *Compiler) atWaypoint(svc types.NamespacedName) []types.NamespacedName {
	var out []types.NamespacedName
	for p := range c.policies.byService[svc] {
		if t := c.policies.translations[p]; t.AtWaypoint && t.Authorization != nil {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b types.NamespacedName) int { return strings.Compare(a.String(), b.String()) })
	return out
}

// frontendPolicies gives the Authorizations that a waypoint enforces for a
// service beside those of its namespace and of the mesh, sorted. There are none
// unless a policy needs the waypoint: the workloads' nodes enforce all others, and
// know the client. If there is one, all policies about the service are among
// them, because ALLOW policies are alternatives.
func (c *Compiler) frontendPolicies(svc types.NamespacedName) []string {
	if len(c.atWaypoint(svc)) == 0 {
		return nil
	}
	var out []string
	for p := range c.policies.byService[svc] {
		if c.policies.translations[p].Authorization != nil {
			out = append(out, p.Namespace+"/"+p.Name)
		}
	}
	slices.Sort(out)
	return out
}

// guardService gives what keeps traffic from going around a service's waypoint,
// and marks the pods that have to list it or no longer do.
func (c *Compiler) guardService(n types.NamespacedName, s *corev1.Service, b binding, d *graph.Dirty) []*Resource {
	g := policy.Guarded{Service: n, Waypoint: b.waypoint, Policies: c.atWaypoint(n)}
	for _, p := range g.Policies {
		g.Allows = g.Allows || c.policies.translations[p].Authorization.Action == security.Action_ALLOW
	}
	var resources []*Resource
	var names []string
	if len(g.Policies) > 0 || s.Annotations[graph.AnnotationRequireWaypoint] == "true" {
		g.Ports = c.targetPorts(n, s)
		for _, a := range policy.Guards(g, c.policies.options) {
			r := authorization(a)
			resources, names = append(resources, r), append(names, r.Name)
		}
	}
	c.setGuards(n, names, d)
	return resources
}

// setGuards notes which guards the pods of a service list.
func (c *Compiler) setGuards(n types.NamespacedName, names []string, d *graph.Dirty) {
	if slices.Equal(c.policies.guards[n], names) {
		return
	}
	if len(names) == 0 {
		delete(c.policies.guards, n)
	} else {
		c.policies.guards[n] = names
	}
	for _, pod := range c.graph.PodsOf(n) {
		d.Pods[pod] = struct{}{}
	}
}

// targetPorts gives the ports on which pods serve a service, sorted.
func (c *Compiler) targetPorts(n types.NamespacedName, s *corev1.Service) []uint32 {
	found := make(map[uint32]struct{})
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if (tcp(p.Protocol) || udp(p.Protocol)) && p.TargetPort.Type == intstr.Int && len(s.Spec.Selector) > 0 {
			found[cmp.Or(uint32(p.TargetPort.IntVal), uint32(p.Port))] = struct{}{}
		}
	}
	for _, pod := range c.graph.PodsOf(n) {
		item, _ := c.graph.Pod(pod)
		for _, p := range c.podPorts(n, s, item.Object).GetPorts() {
			found[p.GetTargetPort()] = struct{}{}
		}
		for i := range s.Spec.Ports {
			if target := targetOf(&s.Spec.Ports[i], item.Object); udp(s.Spec.Ports[i].Protocol) && target != 0 && len(s.Spec.Selector) > 0 {
				found[target] = struct{}{}
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// guardFindings says what is wrong with a service's wish to be reached through a
// waypoint only.
func guardFindings(owner graph.Key, s *corev1.Service, b binding) []Finding {
	value, ok := s.Annotations[graph.AnnotationRequireWaypoint]
	field := "metadata.annotations[" + graph.AnnotationRequireWaypoint + "]"
	switch {
	case ok && value != "true" && value != "false":
		return []Finding{{Object: owner, Field: field, Message: "must be \"true\" or \"false\"; until then it counts as false"}}
	case value == "true" && !b.bound():
		return []Finding{{
			Object: owner, Field: field,
			Message: "the Service uses no waypoint: everything to it is refused; label it or its Namespace " + graph.LabelUseWaypoint + ", or remove the annotation",
		}}
	}
	return nil
}
