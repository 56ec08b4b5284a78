package netns_test

import (
	"fmt"
	"os"
	"strings"
)

// namespace with or without the label.
func namespace(name string, enrolled bool) string {
	label := ""
	if enrolled {
		label = "\n  labels: {ambit-mesh.io/dataplane-mode: ambient}"
	}
	return fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: %s%s\n", name, label)
}

// pod runs the probe's server on a node. Each pod is a client, too.
func pod(ns, name, node string) string {
	self, err := os.Executable()
	if err != nil {
		panic(err) // a running program has a path
	}
	return fmt.Sprintf(`apiVersion: v1
kind: ServiceAccount
metadata: {name: %[2]s, namespace: %[1]s}
---
apiVersion: v1
kind: Pod
metadata: {name: %[2]s, namespace: %[1]s, labels: {app: %[2]s}}
spec:
  nodeName: %[3]s
  serviceAccountName: %[2]s
  containers:
  - name: probe
    image: none
    command: [%[4]q, serve]
    env: [{name: %[5]s, value: "1"}]
    ports: [{name: echo, containerPort: 8080}]
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
`, ns, name, node, self, roleEnv)
}

// services of a pod: with a virtual address, headless, and with a named target port.
func services(ns, name string) string {
	var ports strings.Builder
	for kind, s := range servers {
		fmt.Fprintf(&ports, "  - {name: %s, port: %d, targetPort: %d}\n", kind, s.port, s.port)
	}
	fmt.Fprintf(&ports, "  - {name: datagrams, port: %d, targetPort: %d, protocol: UDP}\n  - {name: quic, port: %d, targetPort: %d, protocol: UDP}\n", datagramPort, datagramPort, quicPort, quicPort)
	one := func(suffix, extra, ports string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %s%s, namespace: %s}\nspec:\n  ipFamilyPolicy: RequireDualStack\n%s  selector: {app: %s}\n  ports:\n%s---\n", name, suffix, ns, extra, name, ports)
	}
	return one("", "", ports.String()) + one("-headless", "  clusterIP: None\n", ports.String()) +
		one("-named", "", "  - {name: echo, port: 80, targetPort: echo}\n")
}

// allowFrom lets service accounts of namespace shop, and nobody else, into a pod.
func allowFrom(ns, name, pod string, accounts ...string) string {
	var rules strings.Builder
	for _, a := range accounts {
		fmt.Fprintf(&rules, "  - name: from-%s\n    sources:\n    - {type: ServiceAccount, serviceAccount: {namespace: %s, name: %s}}\n", a, ns, a)
	}
	return fmt.Sprintf("apiVersion: ambit-mesh.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: %s, namespace: %s}\nspec:\n  targetRefs: [{kind: Service, name: %s}]\n  action: ALLOW\n  rules:\n%s", name, ns, pod, rules.String())
}
