package compile

import (
	"cmp"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/controlplane/compile/route"
	"github.com/ambit-mesh/ambit/controlplane/compile/traffic"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// mesh lets the packages of routes and traffic policies look things up.
type mesh struct{ c *Compiler }

var _ traffic.Mesh = mesh{}

func (m mesh) Service(n types.NamespacedName) *corev1.Service {
	item, _ := m.c.graph.Service(n)
	return item.Object
}

func (m mesh) ServiceName(n types.NamespacedName) string { return m.c.serviceName(n) }

func (m mesh) Attached(kind string, target graph.Key) []graph.Object {
	return m.c.graph.Attached(kind, target)
}

func (m mesh) Object(k graph.Key) graph.Object {
	item, _ := m.c.graph.Traffic(k)
	return item.Object
}

func (m mesh) Bound(n types.NamespacedName) bool { return m.c.serviceBinding(n).bound() }

func (m mesh) BoundIn(namespace string) bool {
	return slices.ContainsFunc(m.c.graph.ServicesIn(namespace), m.Bound) ||
		slices.ContainsFunc(m.c.graph.ExternalServicesIn(namespace), func(es *meshv1alpha1.ExternalService) bool {
			return m.ExternalBound(types.NamespacedName{Namespace: es.Namespace, Name: es.Name})
		})
}

func (m mesh) External(n types.NamespacedName) *corev1.Service {
	item, ok := m.c.graph.ExternalService(n)
	if !ok {
		return nil
	}
	return asService(item.Object)
}

func (m mesh) ExternalBound(n types.NamespacedName) bool { return m.c.externalBinding(n).bound() }

func (m mesh) Waypoint(n types.NamespacedName) bool {
	gw, ok := m.c.graph.Waypoint(n)
	return ok && gw.Spec.GatewayClassName == graph.WaypointClass
}

func (m mesh) Users(n types.NamespacedName) []graph.Object {
	return m.c.graph.UsersOf(graph.ServiceKey(n))
}

// serviceBinding gives the binding of a service, as compileService has it.
func (c *Compiler) serviceBinding(n types.NamespacedName) binding {
	item, ok := c.graph.Service(n)
	if !ok || item.Object.Spec.Type == corev1.ServiceTypeExternalName {
		return binding{}
	}
	return c.bindingOfService(n, item.Object)
}

// frontendKey owns what is compiled of a service for its waypoint, apart from
// what is compiled of it for ztunnels.
func frontendKey(n types.NamespacedName) graph.Key {
	return graph.Key{Kind: "Frontend", Namespace: n.Namespace, Name: n.Name}
}

// backendKey owns what is compiled of a service for those who send requests to it.
func backendKey(n types.NamespacedName) graph.Key {
	return graph.Key{Kind: "Backend", Namespace: n.Namespace, Name: n.Name}
}

// compileTraffic compiles the waypoint resources of a batch.
func (c *Compiler) compileTraffic(d *graph.Dirty) {
	// A service whose binding may have changed is dirty itself.
	for n := range d.Services {
		d.Frontends[n] = struct{}{}
	}
	for n := range d.Backends {
		if c.compileBackend(n) {
			d.Frontends[n] = struct{}{}
		}
	}
	for n := range d.Frontends {
		c.compileFrontend(n)
	}
	for k := range d.Traffic {
		c.compileAttached(k)
	}
}

// compileBackend compiles how a service is treated by waypoints that send
// requests to it. It says whether the service has begun or ceased to be one that
// routes of other services send requests to.
func (c *Compiler) compileBackend(n types.NamespacedName) (changed bool) {
	version := traffic.Version(mesh{c}, n)
	_, was := c.versions[n]
	if version {
		c.versions[n] = struct{}{}
	} else {
		delete(c.versions, n)
	}
	var resources []*Resource
	if body := traffic.Backend(mesh{c}, n, version); body != nil {
		resources = append(resources, resource(TypeBackend, c.serviceName(n), body))
	}
	c.store.put(backendKey(n), resources, nil)
	return version != was
}

// compileFrontend compiles a service and the routes that name it as a parent. It
// does so for a service that does not exist or has no waypoint, too, for the
// status of the routes.
func (c *Compiler) compileFrontend(n types.NamespacedName) {
	service, routes, b := mesh{c}.Service(n), c.graph.Routes(graph.ServiceKey(n)), c.serviceBinding(n)
	if len(routes) == 0 && !b.bound() {
		c.retell(serviceKey(n), nil, types.NamespacedName{})
		delete(c.caches, n)
		c.store.put(frontendKey(n), nil, nil)
		return
	}
	out := route.Translate(c.frontendInput(n, routes), mesh{c}, c.cacheOf(n))
	served := b.waypoint
	if b.reason != "" {
		served = types.NamespacedName{}
	}
	c.retell(serviceKey(n), out.Parents, served)
	var resources []*Resource
	// A waypoint that cannot be used, because it does not admit the service for
	// example, is told nothing of it.
	if b.bound() && b.reason == "" {
		body := c.frontend(n, service, out)
		resources = append(resources, &Resource{
			Key: Key{TypeFrontend, c.serviceName(n)}, Version: out.Version(body), Body: body, Related: noRelated, Waypoint: b.waypoint,
		})
	}
	c.store.put(frontendKey(n), resources, routeFindings(out))
}

func routeFindings(out route.Output) []Finding {
	var findings []Finding
	for _, f := range out.Findings {
		findings = append(findings, Finding{Object: f.Object, Field: f.Field, Message: f.Message})
	}
	return findings
}

// frontendInput gives what the routes of a Service are translated with.
func (c *Compiler) frontendInput(n types.NamespacedName, routes []graph.Object) route.Input {
	b := c.serviceBinding(n)
	return route.Input{Name: n, Service: mesh{c}.Service(n), Bound: b.bound(), Unusable: b.message, Routes: routes, Version: c.isVersion(n)}
}

func (c *Compiler) frontend(n types.NamespacedName, s *corev1.Service, out route.Output) *waypoint.Frontend {
	body := &waypoint.Frontend{
		Namespace: n.Namespace, Name: n.Name, Hostname: c.hostname(n), Ports: out.Ports, UdpPorts: out.UDPPorts,
		AuthorizationPolicies: c.frontendPolicies(n), JwtProviders: out.Providers, Tracing: out.Tracing,
	}
	c.instrument(body, c.serviceBinding(n).waypoint)
	for _, a := range graph.VirtualAddresses(s) {
		body.Addresses = append(body.Addresses, a.AsSlice())
	}
	return body
}

// instrument puts into a frontend what its waypoint's Gateway says of spans.
func (c *Compiler) instrument(f *waypoint.Frontend, waypoint types.NamespacedName) {
	telemetry, tracing := traffic.Telemetry(mesh{c}, waypoint)
	f.Telemetry = telemetry
	if f.GetTracing() == nil { // a TracingPolicy is about less, and so says more
		f.Tracing = tracing
	}
}

// cacheOf gives what is kept of the translation of a service.
func (c *Compiler) cacheOf(n types.NamespacedName) *route.Cache {
	if c.caches[n] == nil {
		c.caches[n] = &route.Cache{}
	}
	return c.caches[n]
}

func (c *Compiler) isVersion(n types.NamespacedName) bool {
	_, ok := c.versions[n]
	return ok
}

// compileAttached works out the status of an attached policy.
func (c *Compiler) compileAttached(k graph.Key) {
	item, ok := c.graph.Traffic(k)
	if !ok {
		delete(c.attached, k)
		c.store.report(k, nil)
		return
	}
	status, findings := judgeAttached(mesh{c}, k, item.Object)
	if !graph.IsRoute(k) {
		c.attached[k] = status
	}
	c.store.report(k, findings)
}

// judgeAttached gives the status of an attached policy and what is wrong with it, or
// says of a route what no Service can say: that a parent is none.
func judgeAttached(m traffic.Mesh, k graph.Key, obj graph.Object) (meshv1alpha1.PolicyStatus, []Finding) {
	if !graph.IsRoute(k) {
		status, problems := traffic.Status(m, obj)
		return status, problemFindings(k, problems)
	}
	var findings []Finding
	for i, ref := range graph.ParentRefs(obj) {
		if f, wrong := parentFinding(k, i, ref); wrong {
			findings = append(findings, f)
		}
	}
	return meshv1alpha1.PolicyStatus{}, findings
}

// parentFinding says that a parent reference was meant to be that of a Service
// and is not. References to Gateways are the business of their controllers.
func parentFinding(k graph.Key, i int, ref gatewayv1.ParentReference) (Finding, bool) {
	if ref.Kind != nil && *ref.Kind == meshv1alpha1.KindExternalService && (ref.Group == nil || *ref.Group != meshv1alpha1.GroupName) {
		return Finding{
			Object: k, Field: "spec.parentRefs[" + strconv.Itoa(i) + "].group",
			Message: "a parent of kind ExternalService needs group: " + meshv1alpha1.GroupName + ": the route does not apply to ExternalService " + string(ref.Name),
		}, true
	}
	if ref.Kind == nil || *ref.Kind != "Service" || ref.Group != nil && *ref.Group == "" {
		return Finding{}, false
	}
	return Finding{
		Object: k, Field: "spec.parentRefs[" + strconv.Itoa(i) + "].group",
		Message: "a parent of kind Service needs group: \"\", written out, because the group is otherwise " + gatewayv1.GroupName +
			": the route does not apply to Service " + string(ref.Name),
	}, true
}

// RouteStatus is what the status of a route should say. Only parents that are
// Services or ExternalServices are in it.
type RouteStatus struct {
	Object graph.Key `json:"object"`
	// Origin is the object's "file:line", or "".
	Origin  string                        `json:"origin,omitempty"`
	Parents []gatewayv1.RouteParentStatus `json:"parents"`
}

// RouteStatuses gives the status of every route that has one of these as a parent,
// sorted by object.
func (c *Compiler) RouteStatuses() []RouteStatus {
	c.mu.RLock()
	defer c.mu.RUnlock()
	byRoute := make(map[graph.Key][]route.Parent)
	for _, parents := range c.parents {
		for _, p := range parents {
			byRoute[p.Route] = append(byRoute[p.Route], p)
		}
	}
	out := make([]RouteStatus, 0, len(byRoute))
	for k, parents := range byRoute {
		slices.SortFunc(parents, func(a, b route.Parent) int { return cmp.Compare(a.Index, b.Index) })
		s := RouteStatus{Object: k, Origin: c.graph.Origin(k, "")}
		for _, p := range parents {
			s.Parents = append(s.Parents, p.Status)
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b RouteStatus) int { return compareObjects(a.Object, b.Object) })
	return out
}
