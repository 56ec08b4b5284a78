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
	labels := item.Object.Labels
	body := &node.Namespace{Name: n, Enrolled: labels[graph.LabelDataplaneMode] == graph.ModeAmbient}
	findings := append(modeFindings(owner, labels, "no pod is enrolled by it"),
		c.namespaceWaypoint(owner, n, item.Object)...)
	findings = append(findings, outboundFindings(owner, labels)...)
	findings = append(findings, transportFindings(owner, item.Object.Annotations, "counts as none: the mesh's default holds")...)
	findings = append(findings, dnsFindings(owner, item.Object.Annotations)...)
	findings = append(findings, misplaced(owner, "annotations", graph.AnnotationRequireWaypoint, item.Object.Annotations, "a Service")...)
	c.store.put(owner, []*Resource{resource(TypeNamespace, n, body)}, findings)
}

// namespaceWaypoint says what is wrong with the waypoint that a namespace's label
// names, whoever inherits it.
func (c *Compiler) namespaceWaypoint(owner graph.Key, n string, ns *corev1.Namespace) []Finding {
	// A namespace is not generated for a waypoint, whatever its labels say.
	labels := maps.Clone(ns.Labels)
	delete(labels, graph.LabelGatewayName)
	b := c.bindingOf(n, labels, ns.Annotations, byService)
	if b.reason == reasonNotAddressed {
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
