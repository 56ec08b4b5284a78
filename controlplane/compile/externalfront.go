package compile

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/controlplane/compile/route"
	"github.com/ambit-mesh/ambit/controlplane/compile/traffic"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// externalBinding gives the waypoint that the labels of an ExternalService, or of its
// namespace, ask for.
func (c *Compiler) externalBinding(n types.NamespacedName) binding {
	item, ok := c.graph.ExternalService(n)
	if !ok {
		return binding{}
	}
	labels := item.Object.Labels
	if _, claims := labels[graph.LabelGatewayName]; claims {
		// Nothing of the kind is made for a waypoint: whatever the label says, this is not exempt.
		labels = maps.Clone(labels)
		delete(labels, graph.LabelGatewayName)
	}
	b := c.bindingOf(n.Namespace, labels, item.Object.Annotations, byService)
	// There is no safe way around a way out: it is closed until the waypoint is there.
	b.waiting = false
	return b
}

// guardedBinding is externalBinding, but for an ExternalService without a waypoint
// that policies are about: nobody carries them out, so that nothing is let through.
// tls says that the waypoint has to originate TLS, which no annotation gets around.
func (c *Compiler) guardedBinding(n types.NamespacedName, tls bool) binding {
	b := c.externalBinding(n)
	guards := c.externalGuards(n)
	if b.bound() || len(guards) == 0 {
		b.failOpen = b.failOpen && !tls
		return b
	}
	return binding{
		waypoint: types.NamespacedName{Namespace: n.Namespace, Name: "required"}, inherited: true,
		reason:  meshv1alpha1.ReasonWaypointRequired,
		message: guards[0] + " by a waypoint only, and none is asked for: label the ExternalService or its Namespace " + graph.LabelUseWaypoint,
	}
}

// externalGuards says what of an ExternalService can be done by a waypoint only.
func (c *Compiler) externalGuards(n types.NamespacedName) []string {
	var out []string
	for _, p := range c.externalPolicies(n) {
		out = append(out, "AuthorizationPolicy "+p+" can be enforced")
	}
	for _, p := range c.graph.Attached(graph.KindBackendTLSPolicy, externalKey(n)) {
		out = append(out, "BackendTLSPolicy "+p.GetNamespace()+"/"+p.GetName()+" can be carried out")
	}
	return out
}

// externalPolicies names the AuthorizationPolicies about an ExternalService, sorted.
func (c *Compiler) externalPolicies(n types.NamespacedName) []string {
	var out []string
	for p := range c.policies.byExternal[n] {
		if c.policies.translations[p].Authorization != nil {
			out = append(out, p.String())
		}
	}
	slices.Sort(out)
	return out
}

// compileExternalFronts tells the waypoint of an ExternalService of its hosts, and the
// routes that name it as a parent what becomes of them. es is nil when it is not there.
func (c *Compiler) compileExternalFronts(n types.NamespacedName, es *meshv1alpha1.ExternalService, x *external) {
	routes := c.graph.Routes(externalKey(n))
	if len(routes) == 0 && !x.binding.bound() {
		c.retell(externalKey(n), nil, types.NamespacedName{})
		c.store.put(externalFrontKey(n), nil, nil)
		return
	}
	service := externalParent(es, x)
	hosts := x.hosts
	if len(hosts) == 0 {
		hosts = []string{noHost}
	}
	usable := x.binding.bound() && x.binding.reason == ""
	served := types.NamespacedName{}
	if usable && service != nil {
		served = x.binding.waypoint
	}
	var resources []*Resource
	var findings []Finding
	for i, host := range hosts {
		out := route.Translate(externalInput(n, host, service, x, routes), mesh{c}, &route.Cache{})
		if i == 0 { // they are the same for all hosts
			c.retell(externalKey(n), out.Parents, served)
			findings = routeFindings(out)
		}
		if !usable || service == nil {
			break
		}
		body := c.externalFront(es, host, x, out)
		resources = append(resources, &Resource{
			Key: Key{TypeFrontend, n.Namespace + "/" + host}, Version: out.Version(body), Body: body, Related: noRelated, Waypoint: x.binding.waypoint,
		})
		if body := traffic.HostBackend(mesh{c}, service, host); body != nil {
			b := resource(TypeBackend, n.Namespace+"/"+host, body)
			b.Waypoint = x.binding.waypoint // nobody else sends anything there
			resources = append(resources, b)
		}
	}
	c.store.put(externalFrontKey(n), resources, findings)
}

// noHost stands for the host of what has none, for the status of its routes.
const noHost = "-"

// externalParent gives what routes see of an ExternalService; nil if there is nothing.
func externalParent(es *meshv1alpha1.ExternalService, x *external) *corev1.Service {
	if es == nil || len(x.hosts) == 0 {
		return nil
	}
	return asService(es)
}

// externalInput gives what the routes of an ExternalService are translated with, for
// one of its hosts.
func externalInput(n types.NamespacedName, host string, service *corev1.Service, x *external, routes []graph.Object) route.Input {
	return route.Input{
		Name: n, Host: n.Namespace + "/" + host, Service: service, Bound: x.binding.bound(), Unusable: x.binding.message, Routes: routes,
	}
}

func (c *Compiler) externalFront(es *meshv1alpha1.ExternalService, host string, x *external, out route.Output) *waypoint.Frontend {
	body := &waypoint.Frontend{
		Namespace: es.Namespace, Name: es.Name, Hostname: host, Ports: out.Ports, External: true,
		AuthorizationPolicies: c.externalPolicies(types.NamespacedName{Namespace: es.Namespace, Name: es.Name}), Tracing: out.Tracing,
	}
	c.instrument(body, x.binding.waypoint)
	for _, a := range x.virtual[host] {
		body.Addresses = append(body.Addresses, a.AsSlice())
	}
	return body
}

// asService gives the ports of an ExternalService in the form of those of a Service,
// for all who ask what is spoken there.
func asService(es *meshv1alpha1.ExternalService) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: es.Namespace, Name: es.Name, Generation: es.Generation}}
	for _, p := range es.Spec.Ports {
		protocol := "tcp"
		if p.Protocol != "" {
			protocol = strings.ToLower(string(p.Protocol))
		}
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: p.Name, Port: int32(p.Port), AppProtocol: &protocol})
	}
	return s
}
