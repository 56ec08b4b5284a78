package service

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/internal/local/vip"
)

// Backed is a service and what is behind it.
type Backed struct {
	Service   *corev1.Service
	Endpoints []Endpoint
}

// Frontends gives what a node does with traffic to the services' virtual
// addresses. Ports of protocols other than TCP and UDP are left out.
func Frontends(all []Backed, node string) []vip.Frontend {
	var fronts []vip.Frontend
	for _, b := range all {
		if b.Service.Spec.ClusterIP == corev1.ClusterIPNone {
			continue
		}
		for _, raw := range b.Service.Spec.ClusterIPs {
			ip, err := netip.ParseAddr(raw)
			if err != nil {
				continue
			}
			for _, p := range b.Service.Spec.Ports {
				if f, ok := frontend(b, ip, p, node); ok {
					fronts = append(fronts, f)
				}
			}
		}
	}
	return fronts
}

func frontend(b Backed, ip netip.Addr, p corev1.ServicePort, node string) (vip.Frontend, bool) {
	f := vip.Frontend{
		Address: netip.AddrPortFrom(ip, uint16(p.Port)),
		Sticky:  b.Service.Spec.SessionAffinity == corev1.ServiceAffinityClientIP,
	}
	switch p.Protocol {
	case corev1.ProtocolTCP:
		f.Protocol = vip.TCP
	case corev1.ProtocolUDP:
		f.Protocol = vip.UDP
	default:
		return f, false
	}
	local := b.Service.Spec.InternalTrafficPolicy != nil && *b.Service.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
	for _, e := range b.Endpoints {
		if !e.Ready || local && e.Node != node {
			continue
		}
		i := slices.IndexFunc(e.Ports, func(ep Port) bool { return ep.Port == p.Port && ep.Protocol == p.Protocol })
		a := slices.IndexFunc(e.Addrs, func(a netip.Addr) bool { return a.Is6() == ip.Is6() })
		if i >= 0 && a >= 0 {
			f.Backends = append(f.Backends, netip.AddrPortFrom(e.Addrs[a], uint16(e.Ports[i].Target)))
		}
	}
	return f, true
}
