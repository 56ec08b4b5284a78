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

func (c *Compiler) compileService(n types.NamespacedName, d *graph.Dirty) {
	owner := serviceKey(n)
	item, ok := c.graph.Service(n)
	if !ok || item.Object.Spec.Type == corev1.ServiceTypeExternalName {
		c.setGuards(n, nil, d)
		c.store.put(owner, nil, nil)
		return
	}
	s := item.Object
	b := c.bindingOfService(n, s)
	resources := append(c.guardService(n, s, b, d), c.service(n, s, graph.VirtualAddresses(s), b))
	c.store.put(owner, resources, c.serviceFindings(n, s, b))
}

func (c *Compiler) serviceFindings(n types.NamespacedName, s *corev1.Service, b binding) []Finding {
	owner := serviceKey(n)
	findings := append(c.addressFindings(owner, n, s), c.waypointFindings(owner, s.Labels, s.Annotations, b)...)
	return append(findings, guardFindings(owner, s, b)...)
}

// service builds the resource of a service.
func (c *Compiler) service(n types.NamespacedName, s *corev1.Service, vips []netip.Addr, b binding) *Resource {
	body := &workload.Service{
		Name: n.Name, Namespace: n.Namespace, Hostname: c.hostname(n),
		Ports: servicePorts(s), Waypoint: c.gatewayAddress(b), Extensions: append(c.waypointOptions(b), c.serviceOptions(n, s)...),
		LoadBalancing: loadBalancing(s), IpFamilies: ipFamilies(s), Canonical: true,
	}
	for _, a := range vips {
		body.Addresses = append(body.Addresses, c.networkAddress(a))
	}
	r := resource(TypeAddress, c.serviceName(n), &workload.Address{Type: &workload.Address_Service{Service: body}})
	r.Aliases = c.aliases(vips)
	r.Related = func() []Key {
		c.mu.RLock()
		defer c.mu.RUnlock()
		return append(c.workloadKeys(n), c.closure(b)...)
	}
	return r
}

// addressFindings says which addresses of a service are not its own alone. A headless
// one has none, nor has one that was not given any yet.
func (c *Compiler) addressFindings(owner graph.Key, n types.NamespacedName, s *corev1.Service) []Finding {
	var findings []Finding
	for _, a := range graph.VirtualAddresses(s) {
		for _, other := range c.graph.ServicesAt(a) {
			if other != n {
				findings = append(findings, Finding{
					Object: owner, Field: "spec.clusterIPs",
					Message: "Service " + other.String() + " has the address " + a.String() +
						" too: traffic to it may reach either; correct one",
				})
			}
		}
	}
	return findings
}

// servicePorts gives the TCP ports of a service; serviceOptions has those of UDP. A
// target of 0 means that each workload has its own.
func servicePorts(s *corev1.Service) []*workload.Port {
	var out []*workload.Port
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if !tcp(p.Protocol) {
			continue
		}
		port := &workload.Port{ServicePort: uint32(p.Port), AppProtocol: appProtocol(p)}
		switch {
		case p.TargetPort.Type == intstr.String || len(s.Spec.Selector) == 0:
		case p.TargetPort.IntVal == 0:
			port.TargetPort = uint32(p.Port)
		default:
			port.TargetPort = uint32(p.TargetPort.IntVal)
		}
		out = append(out, port)
	}
	return out
}

// appProtocol reads appProtocol or, without it, the first part of the port's
// name.
func appProtocol(p *corev1.ServicePort) workload.AppProtocol {
	text, _, _ := strings.Cut(p.Name, "-")
	if p.AppProtocol != nil {
		text = *p.AppProtocol
	}
	switch strings.ToLower(text) {
	case "http", "http1", "kubernetes.io/ws":
		return workload.AppProtocol_HTTP11
	case "http2", "h2c", "kubernetes.io/h2c":
		return workload.AppProtocol_HTTP2
	case "grpc":
		return workload.AppProtocol_GRPC
	case "tls", "https", "kubernetes.io/wss":
		return workload.AppProtocol_TLS
	case "tcp":
		return workload.AppProtocol_TCP
	default:
		return workload.AppProtocol_UNKNOWN
	}
}

// loadBalancing gives which endpoints a service prefers, nil for none.
func loadBalancing(s *corev1.Service) *workload.LoadBalancing {
	var lb workload.LoadBalancing
	zonal := []workload.LoadBalancing_Scope{
		workload.LoadBalancing_NETWORK, workload.LoadBalancing_REGION, workload.LoadBalancing_ZONE,
	}
	distribution := ""
	if s.Spec.TrafficDistribution != nil {
		distribution = *s.Spec.TrafficDistribution
	}
	local := s.Spec.InternalTrafficPolicy != nil && *s.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
	switch {
	case local:
		lb.Mode = workload.LoadBalancing_STRICT
		lb.RoutingPreference = []workload.LoadBalancing_Scope{workload.LoadBalancing_NODE}
	case distribution == corev1.ServiceTrafficDistributionPreferClose || distribution == corev1.ServiceTrafficDistributionPreferSameZone:
		lb.Mode, lb.RoutingPreference = workload.LoadBalancing_FAILOVER, zonal
	case distribution == corev1.ServiceTrafficDistributionPreferSameNode:
		lb.Mode = workload.LoadBalancing_FAILOVER
		lb.RoutingPreference = append(zonal, workload.LoadBalancing_SUBZONE, workload.LoadBalancing_NODE)
	case !s.Spec.PublishNotReadyAddresses:
		return nil
	}
	if s.Spec.PublishNotReadyAddresses {
		lb.HealthPolicy = workload.LoadBalancing_ALLOW_ALL
	}
	return &lb
}

func ipFamilies(s *corev1.Service) workload.IPFamilies {
	v4 := slices.Contains(s.Spec.IPFamilies, corev1.IPv4Protocol)
	v6 := slices.Contains(s.Spec.IPFamilies, corev1.IPv6Protocol)
	switch {
	case v4 && v6:
		return workload.IPFamilies_DUAL
	case v4:
		return workload.IPFamilies_IPV4_ONLY
	case v6:
		return workload.IPFamilies_IPV6_ONLY
	default:
		return workload.IPFamilies_AUTOMATIC
	}
}
