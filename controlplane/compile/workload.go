package compile

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// workload builds the resource of a live pod.
func (c *Compiler) workload(n types.NamespacedName, p *corev1.Pod, addrs []netip.Addr, state *capture, b binding) *Resource {
	kind, owner := ownerOf(p)
	w := &workload.Workload{
		Uid: c.workloadName(n), Name: n.Name, Namespace: n.Namespace,
		Network: c.options.Network, ClusterId: c.options.ClusterID,
		TrustDomain: c.trustDomain(), ServiceAccount: graph.ServiceAccount(p),
		Node: p.Spec.NodeName, Locality: c.locality(p.Spec.NodeName),
		WorkloadType: kind, WorkloadName: owner,
		CanonicalName: canonicalName(p.Labels, owner), CanonicalRevision: canonicalRevision(p.Labels),
		Services: c.servicesOf(n, p), AuthorizationPolicies: c.policiesOf(n, p.Labels),
		Waypoint: c.gatewayAddress(b), Extensions: append(c.waypointOptions(b), c.workloadOptions(p)...),
	}
	for _, a := range addrs {
		w.Addresses = append(w.Addresses, a.AsSlice())
	}
	// A waypoint needs nobody's report: it speaks HBONE itself.
	w.NativeTunnel = c.isWaypointPod(p)
	if state.tunnel() || w.NativeTunnel {
		w.TunnelProtocol = workload.TunnelProtocol_HBONE
	}
	switch {
	case w.NativeTunnel:
		w.Extensions = append(w.Extensions, c.waypointTransport(n.Namespace, p))
	case state.tunnel():
		w.Extensions = append(w.Extensions, c.transport(n.Namespace, p)...)
	}
	w.Extensions = append(w.Extensions, c.podUDPPorts(n, p)...)
	if p.DeletionTimestamp != nil || !ready(p) {
		w.Status = workload.WorkloadStatus_UNHEALTHY
	}
	if p.Spec.HostNetwork {
		w.NetworkMode = workload.NetworkMode_HOST_NETWORK
	}
	r := resource(TypeAddress, w.Uid, &workload.Address{Type: &workload.Address_Workload{Workload: w}})
	if !p.Spec.HostNetwork { // an address that is shared names nobody
		r.Aliases = c.aliases(addrs)
	}
	if b.bound() {
		r.Related = func() []Key {
			c.mu.RLock()
			defer c.mu.RUnlock()
			return c.closure(b)
		}
	}
	return r
}

func ready(p *corev1.Pod) bool {
	for _, cond := range p.Status.Conditions {
		if cond.Type == corev1.PodReady {
			return cond.Status == corev1.ConditionTrue
		}
	}
	return false
}

func (c *Compiler) locality(nodeName string) *workload.Locality {
	item, ok := c.graph.Node(nodeName)
	if !ok {
		return nil
	}
	l := graph.LocalityOf(item.Object)
	if l == (graph.Locality{}) {
		return nil
	}
	return &workload.Locality{Region: l.Region, Zone: l.Zone}
}

// ownerOf gives what a person would call the workload that a pod is part of.
// Without the intermediate objects at hand it reads their naming schemes:
// ReplicaSets end in the pod's template hash, Jobs of CronJobs in a number.
func ownerOf(p *corev1.Pod) (workload.WorkloadType, string) {
	for _, ref := range p.OwnerReferences {
		if ref.Controller == nil || !*ref.Controller {
			continue
		}
		switch ref.Kind {
		case "ReplicaSet":
			if hash := p.Labels["pod-template-hash"]; hash != "" && strings.HasSuffix(ref.Name, "-"+hash) {
				return workload.WorkloadType_DEPLOYMENT, strings.TrimSuffix(ref.Name, "-"+hash)
			}
		case "Deployment":
			return workload.WorkloadType_DEPLOYMENT, ref.Name
		case "Job":
			if i := strings.LastIndexByte(ref.Name, '-'); i > 0 && len(ref.Name)-i > 8 && digits(ref.Name[i+1:]) {
				return workload.WorkloadType_CRONJOB, ref.Name[:i]
			}
			return workload.WorkloadType_JOB, ref.Name
		case "CronJob":
			return workload.WorkloadType_CRONJOB, ref.Name
		}
		return workload.WorkloadType_POD, ref.Name
	}
	return workload.WorkloadType_POD, p.Name
}

func digits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

// canonicalName gives the name under which a workload's telemetry is counted.
func canonicalName(labels map[string]string, owner string) string {
	return first(labels, owner, "service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
}

func canonicalRevision(labels map[string]string) string {
	return first(labels, "latest", "service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")
}

func first(labels map[string]string, fallback string, keys ...string) string {
	for _, k := range keys {
		if v := labels[k]; v != "" {
			return v
		}
	}
	return fallback
}

// servicesOf gives the services that a pod is behind, with the port of the pod
// for each of theirs.
func (c *Compiler) servicesOf(n types.NamespacedName, p *corev1.Pod) map[string]*workload.PortList {
	var out map[string]*workload.PortList
	for _, name := range c.graph.ServicesOf(n) {
		svc, _ := c.graph.Service(name)
		if svc.Object.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		if out == nil {
			out = make(map[string]*workload.PortList)
		}
		out[c.serviceName(name)] = c.podPorts(name, svc.Object, p)
	}
	return out
}

func (c *Compiler) podPorts(name types.NamespacedName, svc *corev1.Service, p *corev1.Pod) *workload.PortList {
	list := &workload.PortList{}
	for i := range svc.Spec.Ports {
		port := &svc.Spec.Ports[i]
		target := targetOf(port, p)
		if len(svc.Spec.Selector) == 0 {
			target = c.listedTarget(name, port)
		}
		if tcp(port.Protocol) && target != 0 {
			list.Ports = append(list.Ports, &workload.Port{ServicePort: uint32(port.Port), TargetPort: target})
		}
	}
	return list
}

// targetOf gives the port of a pod that a service port means, 0 if the pod has
// none of that name.
func targetOf(port *corev1.ServicePort, p *corev1.Pod) uint32 {
	if port.TargetPort.Type == intstr.Int {
		if port.TargetPort.IntVal == 0 {
			return uint32(port.Port)
		}
		return uint32(port.TargetPort.IntVal)
	}
	for _, containers := range [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers} {
		for _, ctr := range containers {
			i := slices.IndexFunc(ctr.Ports, func(cp corev1.ContainerPort) bool {
				return cp.Name == port.TargetPort.StrVal && tcp(cp.Protocol) == tcp(port.Protocol)
			})
			if i >= 0 {
				return uint32(ctr.Ports[i].ContainerPort)
			}
		}
	}
	return 0
}

func tcp(p corev1.Protocol) bool { return p == corev1.ProtocolTCP || p == "" }
