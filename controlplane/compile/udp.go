package compile

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// extension packs what an extension says. The same is packed into the same bytes.
func extension(name string, m proto.Message) *workload.Extension {
	config := &anypb.Any{}
	// Packing a message of our own cannot fail: its strings are valid UTF-8 by way
	// of JSON.
	if err := anypb.MarshalFrom(config, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		config = nil
	}
	return &workload.Extension{Name: name, Config: config}
}

// transport says what the tunnel of a captured pod takes.
func (c *Compiler) transport(namespace string, p *corev1.Pod) []*workload.Extension {
	t := &workload.Transport{Udp: true, Preference: c.preference(namespace, p)}
	t.H3 = t.Preference != workload.Transport_H2
	return []*workload.Extension{extension(workload.TransportExtension, t)}
}

// waypointTransport says what the tunnel of a waypoint takes: HTTP/3 is for datagrams
// alone, and for pods that declare its port. Those of versions before did not have it.
func (c *Compiler) waypointTransport(namespace string, p *corev1.Pod) *workload.Extension {
	t := &workload.Transport{Udp: true, Preference: c.preference(namespace, p)}
	t.H3Udp = t.Preference != workload.Transport_H2 && declaresQUIC(p)
	return extension(workload.TransportExtension, t)
}

func declaresQUIC(p *corev1.Pod) bool {
	for i := range p.Spec.Containers {
		if slices.ContainsFunc(p.Spec.Containers[i].Ports, func(cp corev1.ContainerPort) bool { return cp.ContainerPort == hbonePort && udp(cp.Protocol) }) {
			return true
		}
	}
	return false
}

// preference is what a pod's tunnel prefers. A Pod's annotation wins over that of its
// Namespace, and both over what the mesh has.
func (c *Compiler) preference(namespace string, p *corev1.Pod) workload.Transport_Preference {
	value := p.Annotations[graph.AnnotationTransport]
	if ns, ok := c.graph.Namespace(namespace); ok && value == "" {
		value = ns.Object.Annotations[graph.AnnotationTransport]
	}
	switch value { // anything else is told of by transportFindings
	case "auto":
		return workload.Transport_AUTO
	case "h2":
		return workload.Transport_H2
	case "h3":
		return workload.Transport_H3
	}
	return c.options.Transport
}

// transportFindings says that an annotation about tunnels has a value without a meaning.
func transportFindings(owner graph.Key, annotations map[string]string, effect string) []Finding {
	value, ok := annotations[graph.AnnotationTransport]
	if !ok || value == "auto" || value == "h2" || value == "h3" {
		return nil
	}
	return []Finding{{
		Object: owner, Field: "metadata.annotations[" + graph.AnnotationTransport + "]",
		Message: strconv.Quote(value) + " is no transport and " + effect + ": write auto, h2 or h3",
	}}
}

func udp(p corev1.Protocol) bool { return p == corev1.ProtocolUDP }

// podUDPPorts gives the UDP ports of the services that a pod is behind.
func (c *Compiler) podUDPPorts(n types.NamespacedName, p *corev1.Pod) []*workload.Extension {
	of := &workload.UDPPorts{}
	for _, name := range c.graph.ServicesOf(n) {
		svc, _ := c.graph.Service(name)
		if svc.Object.Spec.Type == corev1.ServiceTypeExternalName || len(svc.Object.Spec.Selector) == 0 {
			continue
		}
		list := &workload.PortList{}
		for i := range svc.Object.Spec.Ports {
			port := &svc.Object.Spec.Ports[i]
			if target := targetOf(port, p); udp(port.Protocol) && target != 0 {
				list.Ports = append(list.Ports, &workload.Port{ServicePort: uint32(port.Port), TargetPort: target})
			}
		}
		if len(list.Ports) > 0 {
			if of.Services == nil {
				of.Services = make(map[string]*workload.PortList)
			}
			of.Services[c.serviceName(name)] = list
		}
	}
	if len(of.Services) == 0 {
		return nil
	}
	return []*workload.Extension{extension(workload.UDPPortsExtension, of)}
}
