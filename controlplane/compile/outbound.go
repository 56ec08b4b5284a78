package compile

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// registryOnly says whether the pods of a namespace may reach only what the mesh
// knows. What cannot be read closes rather than opens.
func (c *Compiler) registryOnly(namespace string) bool {
	value := c.options.Outbound
	if ns, ok := c.graph.Namespace(namespace); ok {
		if own := ns.Object.Labels[graph.LabelOutbound]; own != "" {
			value = own
		}
	}
	return value != "" && value != graph.OutboundAllowAny
}

// outboundFindings says that a namespace's label has a value without a meaning.
func outboundFindings(owner graph.Key, labels map[string]string) []Finding {
	value, ok := labels[graph.LabelOutbound]
	if !ok || value == graph.OutboundAllowAny || value == graph.OutboundRegistryOnly {
		return nil
	}
	return []Finding{{
		Object: owner, Field: "metadata.labels[" + graph.LabelOutbound + "]",
		Message: strconv.Quote(value) + " is not an outbound mode and counts as " + graph.OutboundRegistryOnly + ": write " + graph.OutboundAllowAny + " or " + graph.OutboundRegistryOnly,
	}}
}

// dnsLeftAlone says whether a pod's queries are not for its proxy.
func (c *Compiler) dnsLeftAlone(p *corev1.Pod) bool {
	value, ok := p.Annotations[graph.AnnotationDNSCapture]
	if !ok {
		if ns, found := c.graph.Namespace(p.Namespace); found {
			value = ns.Object.Annotations[graph.AnnotationDNSCapture]
		}
	}
	return value == "false"
}

// dnsFindings says that an annotation about DNS has a value without a meaning.
func dnsFindings(owner graph.Key, annotations map[string]string) []Finding {
	value, ok := annotations[graph.AnnotationDNSCapture]
	if !ok || value == "true" || value == "false" {
		return nil
	}
	return []Finding{{
		Object: owner, Field: "metadata.annotations[" + graph.AnnotationDNSCapture + "]",
		Message: "must be \"true\" or \"false\"; until then it counts as true",
	}}
}

// misplaced says that a label or an annotation has no effect on an object of the kind.
func misplaced(owner graph.Key, kind, key string, values map[string]string, where string) []Finding {
	if _, ok := values[key]; !ok {
		return nil
	}
	return []Finding{{
		Object: owner, Field: "metadata." + kind + "[" + key + "]",
		Message: "has no effect here: write it on " + where,
	}}
}

// workloadOptions go with a pod; none while they would say nothing.
func (c *Compiler) workloadOptions(p *corev1.Pod) []*workload.Extension {
	o := &workload.WorkloadOptions{Terminating: p.DeletionTimestamp != nil}
	if p.Spec.Subdomain != "" && p.Spec.Hostname != "" {
		o.Hostname, o.Subdomain = p.Spec.Hostname, p.Spec.Subdomain
	}
	if c.registryOnly(p.Namespace) {
		o.Outbound = workload.OutboundMode_OUTBOUND_MODE_REGISTRY_ONLY
	}
	if o.Hostname == "" && o.Outbound == 0 && !o.Terminating {
		return nil
	}
	return []*workload.Extension{extension(workload.WorkloadExtension, o)}
}

// serviceOptions tell of the ports that have a name, and of those of UDP, none while
// there are none.
func (c *Compiler) serviceOptions(_ types.NamespacedName, s *corev1.Service) []*workload.Extension {
	o := &workload.ServiceOptions{}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.Name == "" && !udp(p.Protocol) {
			continue
		}
		protocol := strings.ToLower(string(p.Protocol))
		if protocol == "" {
			protocol = "tcp"
		}
		target := uint32(p.Port) // #nosec G115 -- validated
		switch {
		case p.TargetPort.StrVal != "", udp(p.Protocol) && len(s.Spec.Selector) == 0:
			target = 0
		case p.TargetPort.IntVal != 0:
			target = uint32(p.TargetPort.IntVal) // #nosec G115 -- validated
		}
		o.Ports = append(o.Ports, &workload.NamedPort{Name: p.Name, Protocol: protocol, Port: uint32(p.Port), Target: target}) // #nosec G115 -- validated
	}
	if len(o.Ports) == 0 {
		return nil
	}
	return []*workload.Extension{extension(workload.ServiceExtension, o)}
}
