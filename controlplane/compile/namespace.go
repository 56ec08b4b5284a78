package compile

import (
	"maps"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/apis/node"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

func (c *Compiler) compileNamespace(n string) {
	owner := graph.Key{Kind: "Namespace", Name: n}
	item, ok := c.graph.Namespace(n)
	if !ok {
		c.store.put(owner, nil, nil)
		return
	}
	body := &node.Namespace{Name: n, Enrolled: item.Object.Labels[graph.LabelDataplaneMode] == graph.ModeAmbient}
	c.store.put(owner, []*Resource{resource(TypeNamespace, n, body)}, c.namespaceFindings(n, item.Object))
}

func (c *Compiler) namespaceFindings(n string, ns *corev1.Namespace) []Finding {
	owner := graph.NamespaceKey(n)
	findings := append(modeFindings(owner, ns.Labels, "no pod is enrolled by it"), c.namespaceWaypoint(owner, n, ns)...)
	findings = append(findings, outboundFindings(owner, ns.Labels)...)
	findings = append(findings, transportFindings(owner, ns.Annotations, "counts as none: the mesh's default holds")...)
	findings = append(findings, dnsFindings(owner, ns.Annotations)...)
	return append(findings, misplaced(owner, "annotations", graph.AnnotationRequireWaypoint, ns.Annotations, "a Service")...)
}

// namespaceWaypoint says what is wrong with the waypoint that a namespace's label
// names, whoever inherits it.
func (c *Compiler) namespaceWaypoint(owner graph.Key, n string, ns *corev1.Namespace) []Finding {
	// A namespace is not generated for a waypoint, whatever its labels say.
	labels := maps.Clone(ns.Labels)
	delete(labels, graph.LabelGatewayName)
	b := c.bindingUnder(ns.Labels, n, labels, ns.Annotations, byService)
	if b.reason == reasonNotAddressed || b.reason == reasonNotFound && graph.Implies(ns) {
		b = binding{}
	}
	return c.waypointFindings(owner, ns.Labels, ns.Annotations, b)
}

// modeFindings says that a dataplane-mode label has a value without a meaning.
func modeFindings(owner graph.Key, labels map[string]string, effect string) []Finding {
	value, ok := labels[graph.LabelDataplaneMode]
	if !ok || value == graph.ModeAmbient || value == graph.ModeNone {
		return nil
	}
	return []Finding{{
		Object: owner, Field: "metadata.labels[" + graph.LabelDataplaneMode + "]",
		Message: strconv.Quote(value) + " is not a mode and " + effect + ": write ambient or none",
	}}
}
