package route

import (
	"crypto/sha256"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/controlplane/compile/traffic"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// Input is one Service, or one host of an ExternalService, and the routes that name
// it as a parent.
type Input struct {
	Name types.NamespacedName
	// Host is the name in WDS, <namespace>/<hostname>, of one of the hosts of an
	// ExternalService, which Name and Service stand for then; "" for a Service.
	Host string
	// Service is nil when there is none of that name.
	Service *corev1.Service
	// Bound says that a waypoint serves it.
	Bound bool
	// Unusable says why the waypoint cannot serve it, so that requests are
	// refused; "" if it can.
	Unusable string
	Routes   []graph.Object
	// Version says that routes of other Services send requests to this one, so
	// that its Backend carries its rate limits.
	Version bool
}

// Output is what becomes of it.
type Output struct {
	Ports     []*waypoint.Port
	UDPPorts  []*waypoint.Port
	Providers []*waypoint.JWTProvider
	// Tracing is for rules that say nothing of it; nil is the waypoint's own.
	Tracing *waypoint.Tracing
	// Parents has an entry for each reference of a route to the Service.
	Parents  []Parent
	Findings []Finding

	digests map[*waypoint.Route][sha256.Size]byte
}

// Parent is what the status of a route says of one of its parents.
type Parent struct {
	Route graph.Key
	// Index is the position in spec.parentRefs.
	Index  int
	Status gatewayv1.RouteParentStatus
}

// Finding is something that a person should put right.
type Finding struct {
	Object  graph.Key
	Field   string
	Message string
}

// translation is the work on one Service.
type translation struct {
	in     Input
	mesh   traffic.Mesh
	out    Output
	routes []*attached
	// sections are the names of the ports that have policies of their own.
	sections map[string]bool
	// inline are the policies that a rule names as filters.
	inline map[*waypoint.Rule][]graph.Key
	// Of settings, closed says why every rule answers with an error; signedIn why
	// those do that see no requests.
	settings
	cache *Cache
}

// attached is a route with what it is attached to.
type attached struct {
	key    graph.Key
	object graph.Object
	kind   waypoint.RouteKind
	refs   []*reference
	// compiled has the wire form by the section of the Service whose policies
	// it inherits.
	compiled map[string]*compiled
}

// consumer says whether the route is one of another namespace than the Service.
func (a *attached) consumer(svc types.NamespacedName) bool { return a.key.Namespace != svc.Namespace }

// reference is one parentRef of a route that names the Service.
type reference struct {
	index int
	ref   gatewayv1.ParentReference
	// ports that it applies to, by index in the Service; lost are those of them
	// where another kind has won.
	ports, lost []int
	// refused and message say why it applies nowhere.
	refused gatewayv1.RouteConditionReason
	message string
	note    string
}

// Translate compiles a Service. The cache is the one of the last call for the same
// Service, or an empty one.
func Translate(in Input, mesh traffic.Mesh, cache *Cache) Output {
	t := &translation{in: in, mesh: mesh, inline: make(map[*waypoint.Rule][]graph.Key), settings: settings{version: in.Version}, cache: cache}
	t.out.digests = make(map[*waypoint.Route][sha256.Size]byte)
	cache.begin()
	defer cache.end()
	t.attach()
	if in.Service != nil {
		t.findSections()
		t.providers()
		t.trace()
		for i := range in.Service.Spec.Ports {
			switch p := &in.Service.Spec.Ports[i]; {
			case traffic.TCP(p):
				t.out.Ports = append(t.out.Ports, t.port(i, p))
			case traffic.UDP(p):
				t.out.UDPPorts = append(t.out.UDPPorts, t.port(i, p))
			}
		}
	}
	t.report()
	return t.out
}

// parent is what the routes are attached to.
func (t *translation) parent() graph.Key {
	if t.in.Host != "" {
		return graph.ExternalKey(t.in.Name)
	}
	return graph.ServiceKey(t.in.Name)
}

// called is how messages call the parent.
func (t *translation) called() string { return t.parent().Kind + " " + t.in.Name.String() }

// self is the name of the parent in WDS.
func (t *translation) self() string {
	if t.in.Host != "" {
		return t.in.Host
	}
	return t.mesh.ServiceName(t.in.Name)
}

// attach resolves the parent references of all routes.
func (t *translation) attach() {
	for _, obj := range t.in.Routes {
		key, _ := graph.KeyOf(obj)
		a := &attached{key: key, object: obj, kind: kindOf(key.Kind), compiled: make(map[string]*compiled)}
		for i, ref := range graph.ParentRefs(obj) {
			if parent, ok := graph.Parent(key.Namespace, ref); ok && parent == t.parent() {
				r := &reference{index: i, ref: ref}
				t.resolve(a, r)
				a.refs = append(a.refs, r)
			}
		}
		t.routes = append(t.routes, a)
	}
	slices.SortStableFunc(t.routes, func(a, b *attached) int { return traffic.Older(a.object, b.object) })
}

func kindOf(kind string) waypoint.RouteKind {
	switch kind {
	case graph.KindHTTPRoute:
		return waypoint.RouteKind_ROUTE_KIND_HTTP
	case graph.KindGRPCRoute:
		return waypoint.RouteKind_ROUTE_KIND_GRPC
	case graph.KindTLSRoute:
		return waypoint.RouteKind_ROUTE_KIND_TLS
	case graph.KindTCPRoute:
		return waypoint.RouteKind_ROUTE_KIND_TCP
	case graph.KindUDPRoute:
		return waypoint.RouteKind_ROUTE_KIND_UDP
	}
	return waypoint.RouteKind_ROUTE_KIND_UNSPECIFIED
}

// port builds what a waypoint is told of one port.
func (t *translation) port(index int, p *corev1.ServicePort) *waypoint.Port {
	kind, owner := t.settle(index, p)
	out := &waypoint.Port{
		Number: uint32(p.Port), // #nosec G115 -- 1 to 65535
		Name:   p.Name, Kind: kind,
	}
	if !traffic.UDP(p) { // whatever datagrams carry is not looked at
		out.Protocol = traffic.PortSpeaks(p).Protocol()
	}
	if owner && !traffic.UDP(p) {
		out.Protocol = protocol(p, kind)
	}
	tables := make(map[string]*waypoint.RouteTable)
	for _, a := range t.routes {
		if !a.applies(index) {
			continue
		}
		namespace := ""
		if a.consumer(t.in.Name) {
			namespace = a.key.Namespace
		}
		if tables[namespace] == nil {
			tables[namespace] = &waypoint.RouteTable{}
		}
		tables[namespace].Routes = append(tables[namespace].Routes, t.compile(a, p).route)
	}
	for namespace, table := range tables {
		if namespace == "" {
			out.Producer = table
			continue
		}
		out.Consumers = append(out.Consumers, &waypoint.ConsumerTable{Namespace: namespace, Table: table})
	}
	slices.SortFunc(out.Consumers, func(a, b *waypoint.ConsumerTable) int {
		return strings.Compare(a.GetNamespace(), b.GetNamespace())
	})
	out.Fallback = t.fallback(p, out.GetProtocol())
	return out
}

// protocol gives what is spoken on a port: what a route of the owner implies
// comes before what is declared, because a GRPCRoute is of HTTP/2 wherever it is
// attached (GEP-1016). Routes of consumers imply nothing, for the others' sake.
func protocol(p *corev1.ServicePort, kind waypoint.RouteKind) waypoint.Protocol {
	speaks := traffic.PortSpeaks(p)
	switch kind {
	case waypoint.RouteKind_ROUTE_KIND_GRPC:
		return waypoint.Protocol_PROTOCOL_HTTP2
	case waypoint.RouteKind_ROUTE_KIND_TLS:
		return waypoint.Protocol_PROTOCOL_TLS
	case waypoint.RouteKind_ROUTE_KIND_TCP:
		return waypoint.Protocol_PROTOCOL_TCP
	case waypoint.RouteKind_ROUTE_KIND_HTTP:
		if speaks != traffic.SpeaksHTTP1 && speaks != traffic.SpeaksHTTP2 {
			return waypoint.Protocol_PROTOCOL_UNSPECIFIED
		}
	}
	return speaks.Protocol()
}

// applies says whether a route has effect on a port.
func (a *attached) applies(port int) bool {
	return slices.ContainsFunc(a.refs, func(r *reference) bool {
		return slices.Contains(r.ports, port) && !slices.Contains(r.lost, port)
	})
}

// fallback sends requests that no route is there for to the Service's own
// endpoints (GEP-1294).
func (t *translation) fallback(p *corev1.ServicePort, proto waypoint.Protocol) *waypoint.Rule {
	backend := &waypoint.BackendRef{
		Service: t.self(),
		Port:    uint32(p.Port), // #nosec G115 -- 1 to 65535
	}
	layer7 := proto != waypoint.Protocol_PROTOCOL_TCP && proto != waypoint.Protocol_PROTOCOL_TLS && !traffic.UDP(p)
	if layer7 {
		if speaks := traffic.PortSpeaks(p); speaks == traffic.SpeaksHTTP1 || speaks == traffic.SpeaksHTTP2 {
			backend.Protocol = speaks.Protocol()
		}
	}
	rule := &waypoint.Rule{Backends: []*waypoint.WeightedBackend{{Weight: 1, Backend: backend}}}
	t.inherit(rule, nil, "", t.section(p), layer7)
	return rule
}
