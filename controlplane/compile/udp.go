package compile

import (
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

// transport says what the tunnel of a captured pod takes. A Pod's annotation wins
// over that of its Namespace, and both over what the mesh has.
func (c *Compiler) transport(namespace string, p *corev1.Pod) []*workload.Extension {
	value := p.Annotations[graph.AnnotationTransport]
	if ns, ok := c.graph.Namespace(namespace); ok && value == "" {
		value = ns.Object.Annotations[graph.AnnotationTransport]
	}
	t := &workload.Transport{Udp: true, H3: true, Preference: c.options.Transport}
	switch value { // anything else is told of by transportFindings
	case "auto":
		t.Preference = workload.Transport_AUTO
	case "h2":
		t.Preference = workload.Transport_H2
	case "h3":
		t.Preference = workload.Transport_H3
	}
	t.H3 = t.Preference != workload.Transport_H2
	return []*workload.Extension{extension(workload.TransportExtension, t)}
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
