package policy

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
)

// portNote points out a rule that names a Service's port where the workloads
// behind it listen on another one: such a rule is enforced as written, and is
// most likely not what was meant. It gives "" when there is none.
func (t *translator) portNote() string {
	for i := range t.policy.Spec.Rules {
		n := t.policy.Spec.Rules[i].NetworkAttributes
		if n == nil {
			continue
		}
		for _, port := range slices.Concat(n.Ports, n.NotPorts) {
			if svc, sp := t.servicePort(port); svc != nil {
				return fmt.Sprintf("; note: spec.rules[%d].networkAttributes names port %d, which is a port of Service %s; its workloads listen on %s",
					i, port, svc.Name, sp.TargetPort.String())
			}
		}
	}
	return ""
}

// servicePort finds the Service that has the port, unless some targeted
// workload may listen on it.
func (t *translator) servicePort(port v1alpha1.PortNumber) (*corev1.Service, corev1.ServicePort) {
	var found *corev1.Service
	var foundPort corev1.ServicePort
	for _, svc := range t.found {
		for _, sp := range svc.Spec.Ports {
			target := sp.TargetPort.IntVal
			if target == 0 && sp.TargetPort.StrVal == "" {
				target = sp.Port
			}
			if v1alpha1.PortNumber(target) == port {
				return nil, corev1.ServicePort{}
			}
			if v1alpha1.PortNumber(sp.Port) == port && found == nil {
				found, foundPort = svc, sp
			}
		}
	}
	return found, foundPort
}
