package compile

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// compileSlice gives a workload for each endpoint that is not a pod, such as a
// machine outside of the cluster. An address that is a pod's belongs to the pod,
// whoever lists it: a second workload of that address could say that plaintext
// is fine where the pod is enrolled.
func (c *Compiler) compileSlice(n types.NamespacedName) {
	owner := sliceKey(n)
	item, ok := c.graph.EndpointSlice(n)
	if !ok {
		c.store.put(owner, nil, nil)
		return
	}
	var findings []Finding
	if item.Object.AddressType == discoveryv1.AddressTypeFQDN {
		findings = append(findings, Finding{
			Object: owner, Field: "addressType",
			Message: "endpoints by DNS name are not supported and are left out: list addresses",
		})
	}
	svcName, _ := graph.ServiceOf(item.Object)
	svc, ok := c.graph.Service(svcName)
	if !ok || svc.Object.Spec.Type == corev1.ServiceTypeExternalName || len(findings) > 0 {
		c.store.put(owner, nil, findings)
		return
	}
	ports := &workload.PortList{Ports: slicePorts(svc.Object, item.Object)}
	var resources []*Resource
	seen := make(map[netip.Addr]bool)
	for i := range item.Object.Endpoints {
		ep := &item.Object.Endpoints[i]
		for _, text := range ep.Addresses {
			a, err := netip.ParseAddr(text)
			a = a.Unmap()
			if err != nil || !routable(a) {
				findings = append(findings, Finding{
					Object: owner, Field: "endpoints",
					Message: text + " cannot be the address of an endpoint and is left out",
				})
				continue
			}
			if !seen[a] && !c.graph.IsPod(item.Object, ep, a) {
				seen[a] = true
				resources = append(resources, c.endpoint(n, svcName, ep, a, ports))
			}
		}
	}
	c.store.put(owner, resources, findings)
}

func (c *Compiler) endpoint(slice, svc types.NamespacedName, ep *discoveryv1.Endpoint, a netip.Addr, ports *workload.PortList) *Resource {
	w := &workload.Workload{
		Uid: c.endpointName(slice, a.String()), Name: slice.Name, Namespace: slice.Namespace,
		Addresses: [][]byte{a.AsSlice()}, Network: c.options.Network, ClusterId: c.options.ClusterID,
		TrustDomain: c.trustDomain(), WorkloadType: workload.WorkloadType_POD, WorkloadName: slice.Name,
		CanonicalName: svc.Name, CanonicalRevision: "latest",
		Services: map[string]*workload.PortList{c.serviceName(svc): ports},
	}
	if ep.NodeName != nil {
		w.Node = *ep.NodeName
	}
	if ep.Zone != nil && *ep.Zone != "" {
		w.Locality = &workload.Locality{Zone: *ep.Zone}
	}
	if !endpointReady(&ep.Conditions) {
		w.Status = workload.WorkloadStatus_UNHEALTHY
	}
	if t := ep.Conditions.Terminating; t != nil && *t {
		w.Extensions = append(w.Extensions, extension(workload.WorkloadExtension, &workload.WorkloadOptions{Terminating: true}))
	}
	r := resource(TypeAddress, w.Uid, &workload.Address{Type: &workload.Address_Workload{Workload: w}})
	r.Aliases = c.aliases([]netip.Addr{a})
	return r
}

// endpointReady reads the conditions of an endpoint. Who writes slices may leave ready
// out, which is ready, and say whether it is serving all the same.
func endpointReady(c *discoveryv1.EndpointConditions) bool {
	if c.Ready != nil {
		return *c.Ready
	}
	return c.Serving == nil || *c.Serving
}

// slicePorts joins the ports of a service and of its endpoints, which have the
// same names.
func slicePorts(svc *corev1.Service, s *discoveryv1.EndpointSlice) []*workload.Port {
	var out []*workload.Port
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		if target := sliceTarget(p, s); tcp(p.Protocol) && target != 0 {
			out = append(out, &workload.Port{ServicePort: uint32(p.Port), TargetPort: target})
		}
	}
	return out
}

func sliceTarget(p *corev1.ServicePort, s *discoveryv1.EndpointSlice) uint32 {
	for _, ep := range s.Ports {
		name := ""
		if ep.Name != nil {
			name = *ep.Name
		}
		if name == p.Name && ep.Port != nil && (ep.Protocol == nil || tcp(*ep.Protocol)) {
			return uint32(*ep.Port)
		}
	}
	return 0
}

// listedTarget gives the port of a pod that is behind a service without a
// selector: the one in the service's endpoint slices.
func (c *Compiler) listedTarget(svc types.NamespacedName, p *corev1.ServicePort) uint32 {
	for _, n := range c.graph.EndpointSlicesOf(svc) {
		item, _ := c.graph.EndpointSlice(n)
		if target := sliceTarget(p, item.Object); target != 0 {
			return target
		}
	}
	return 0
}
