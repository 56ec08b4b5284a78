package compile

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/controlplane/compile/policy"
	"github.com/ambit-mesh/ambit/controlplane/compile/route"
	"github.com/ambit-mesh/ambit/controlplane/compile/traffic"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// Preview gives what Findings would say of an object if it were written now, in place
// of the one of its name that may be there, sorted. Nothing is changed by it. Of Pods
// and EndpointSlices, which no person writes, it says nothing.
func (c *Compiler) Preview(obj graph.Object) []Finding {
	if c.options.IstioLabels {
		obj = graph.FromIstio(obj)
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	findings := c.preview(obj)
	slices.SortFunc(findings, Finding.compare)
	return slices.Compact(findings)
}

func (c *Compiler) preview(obj graph.Object) []Finding {
	n := types.NamespacedName{Namespace: obj.GetNamespace(), Name: obj.GetName()}
	switch o := obj.(type) {
	case *corev1.Namespace:
		return c.namespaceFindings(o.Name, o)
	case *corev1.Service:
		if o.Spec.Type == corev1.ServiceTypeExternalName {
			return nil
		}
		return c.serviceFindings(n, o, c.bindingOfService(n, o))
	case *gatewayv1.Gateway:
		if o.Spec.GatewayClassName != graph.WaypointClass {
			return nil
		}
		return gatewayFindings(n, o)
	case *meshv1alpha1.AuthorizationPolicy:
		return problemFindings(authzKey(n), policy.Translate(o, serviceLookup{c}, c.policies.options).Problems)
	case *meshv1alpha1.PeerAuthentication:
		return c.previewPeer(o)
	case *meshv1alpha1.ExternalService:
		return c.externalFindings(o, c.hostsOf(externalKey(n), o).problems, c.bindingOf(n.Namespace, o.Labels, o.Annotations, byService))
	case *corev1.Pod, *corev1.ConfigMap:
		return nil
	}
	k, ok := graph.KeyOf(obj)
	if !ok {
		return nil
	}
	_, findings := judgeAttached(supposing{mesh{c}, k, obj}, k, obj)
	for _, parent := range graph.Parents(obj) {
		findings = append(findings, c.previewRoute(parent, k, obj)...)
	}
	return findings
}

func (c *Compiler) previewPeer(p *meshv1alpha1.PeerAuthentication) []Finding {
	all := slices.DeleteFunc(c.graph.PeerAuthentications(), func(other *meshv1alpha1.PeerAuthentication) bool {
		return other.Namespace == p.Namespace && other.Name == p.Name
	})
	for _, s := range policy.NewPeers(append(all, p), c.policies.options).Statuses() {
		if s.Namespace == p.Namespace && s.Name == p.Name {
			return problemFindings(peerKey(s.Namespace, s.Name), s.Problems)
		}
	}
	return nil
}

// previewRoute gives what is wrong with a route as one of a parent's.
func (c *Compiler) previewRoute(parent, k graph.Key, obj graph.Object) []Finding {
	m, n := supposing{mesh{c}, k, obj}, parent.NamespacedName()
	routes := m.with(c.graph.Routes(parent), true)
	var in route.Input
	if parent.Kind == meshv1alpha1.KindExternalService {
		item, _ := c.graph.ExternalService(n)
		x, host := c.externals[n], noHost
		if len(x.hosts) > 0 {
			host = x.hosts[0]
		}
		in = externalInput(n, host, externalParent(item.Object, &x), &x, routes)
	} else {
		in = c.frontendInput(n, routes)
	}
	findings := routeFindings(route.Translate(in, m, &route.Cache{}))
	return slices.DeleteFunc(findings, func(f Finding) bool { return f.Object != k })
}

// supposing is the mesh with a route or an attached policy that is not written yet.
type supposing struct {
	mesh
	key    graph.Key
	object graph.Object
}

var _ traffic.Mesh = supposing{}

func (m supposing) Object(k graph.Key) graph.Object {
	if k == m.key {
		return m.object
	}
	return m.mesh.Object(k)
}

func (m supposing) Attached(kind string, target graph.Key) []graph.Object {
	there := m.mesh.Attached(kind, target)
	if kind != m.key.Kind {
		return there
	}
	return m.with(there, slices.Contains(graph.Targets(m.object), target))
}

func (m supposing) Users(n types.NamespacedName) []graph.Object {
	return m.with(m.mesh.Users(n), slices.Contains(graph.References(m.object), graph.ServiceKey(n)))
}

// with gives a list of objects, in their order, in which the one that is supposed is
// there or not.
func (m supposing) with(list []graph.Object, there bool) []graph.Object {
	out := slices.DeleteFunc(slices.Clone(list), func(o graph.Object) bool {
		k, _ := graph.KeyOf(o)
		return k == m.key
	})
	if !there {
		return out
	}
	out = append(out, m.object)
	slices.SortFunc(out, func(a, b graph.Object) int {
		x, _ := graph.KeyOf(a)
		y, _ := graph.KeyOf(b)
		return compareObjects(x, y)
	})
	return out
}
