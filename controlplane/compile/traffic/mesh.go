package traffic

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// Mesh is what a translation has to know of the mesh.
type Mesh interface {
	// Service gives nil when there is none of that name.
	Service(n types.NamespacedName) *corev1.Service
	// ServiceName gives the name of a service in WDS, <namespace>/<hostname>.
	ServiceName(n types.NamespacedName) string
	// Attached gives the policies of a kind that are attached to a target.
	Attached(kind string, target graph.Key) []graph.Object
	// Object finds a route or a policy; nil when there is none.
	Object(k graph.Key) graph.Object
	// Bound says whether a waypoint serves a service.
	Bound(n types.NamespacedName) bool
	// BoundIn says whether a waypoint serves any service of a namespace.
	BoundIn(namespace string) bool
	// External gives an ExternalService as if it were a Service, for its ports; nil
	// when there is none of that name.
	External(n types.NamespacedName) *corev1.Service
	// ExternalBound says whether a waypoint serves an ExternalService.
	ExternalBound(n types.NamespacedName) bool
	// Waypoint says whether there is a waypoint of that name.
	Waypoint(n types.NamespacedName) bool
	// Users gives the routes and policies that refer to a service.
	Users(n types.NamespacedName) []graph.Object
}

// Resolved is a reference to a Service after it was looked up.
type Resolved struct {
	Ref *waypoint.BackendRef
	// Service that is referred to.
	Service types.NamespacedName
	// Reason is one of those of the condition ResolvedRefs when the reference
	// cannot be used, with Message; otherwise both are "".
	Reason, Message string
}

// Speaks says what a port is for.
type Speaks int

// What ports are for.
const (
	// SpeaksUnknown is a port of which nothing is said.
	SpeaksUnknown Speaks = iota
	SpeaksHTTP1
	SpeaksHTTP2
	SpeaksTLS
	SpeaksTCP
)

// PortSpeaks reads appProtocol or, without it, the first part of the port's
// name.
func PortSpeaks(p *corev1.ServicePort) Speaks {
	text, _, _ := strings.Cut(p.Name, "-")
	if p.AppProtocol != nil {
		text = *p.AppProtocol
	}
	switch strings.ToLower(text) {
	case "http", "http1", "kubernetes.io/ws":
		return SpeaksHTTP1
	case "http2", "h2c", "grpc", "kubernetes.io/h2c":
		return SpeaksHTTP2
	case "tls", "https", "kubernetes.io/wss":
		return SpeaksTLS
	case "tcp":
		return SpeaksTCP
	default:
		return SpeaksUnknown
	}
}

// Protocol gives the form of the wire.
func (s Speaks) Protocol() waypoint.Protocol {
	return map[Speaks]waypoint.Protocol{
		SpeaksHTTP1: waypoint.Protocol_PROTOCOL_HTTP1, SpeaksHTTP2: waypoint.Protocol_PROTOCOL_HTTP2,
		SpeaksTLS: waypoint.Protocol_PROTOCOL_TLS, SpeaksTCP: waypoint.Protocol_PROTOCOL_TCP,
	}[s]
}

// TCP says whether a port is one of TCP.
func TCP(p *corev1.ServicePort) bool { return p.Protocol == "" || p.Protocol == corev1.ProtocolTCP }

// UDP says whether a port is one of UDP.
func UDP(p *corev1.ServicePort) bool { return p.Protocol == corev1.ProtocolUDP }

// Use is what requests are sent to a backend for.
type Use int

// Uses of a backend.
const (
	// UseHTTP sends requests of HTTP of the version that the backend speaks.
	UseHTTP Use = iota
	// UseGRPC sends requests of HTTP/2, whatever the port is said to speak
	// (GEP-1016).
	UseGRPC
	// UseBytes passes bytes through.
	UseBytes
	// UseDatagrams passes datagrams through.
	UseDatagrams
)

// Resolve looks up a reference that an object of a namespace makes. No
// ReferenceGrant is asked for: in a mesh the reference reaches nothing that the
// workloads of the namespace cannot reach themselves (GEP-1294); who may do so
// is said by AuthorizationPolicy.
func Resolve(mesh Mesh, namespace string, ref *gatewayv1.BackendObjectReference, use Use) Resolved {
	svc, ok := graph.BackendService(namespace, ref)
	if k, outside := graph.BackendExternal(namespace, ref); outside {
		return unusable(svc, gatewayv1.RouteReasonInvalidKind, "ExternalService "+k.NamespacedName().String()+
			" can be a backend only of its own routes, those that have it as a parent: what is attached to it holds for nothing else")
	}
	if !ok {
		return unusable(svc, gatewayv1.RouteReasonInvalidKind, kindOf(ref)+" "+string(ref.Name)+" cannot be a backend: use a Service, of group \"\"")
	}
	b := Resolved{Service: svc, Ref: &waypoint.BackendRef{Service: mesh.ServiceName(svc)}}
	if ref.Port != nil {
		b.Ref.Port = uint32(*ref.Port) // #nosec G115 -- checked against the ports of the Service below
	}
	s := mesh.Service(svc)
	switch {
	case s == nil:
		return b.refuse(gatewayv1.RouteReasonBackendNotFound, "there is no Service "+svc.String())
	case s.Spec.Type == corev1.ServiceTypeExternalName:
		return b.refuse(gatewayv1.RouteReasonInvalidKind, "Service "+svc.String()+" is of type ExternalName and has no endpoints in the mesh")
	}
	originates := func(port *corev1.ServicePort) bool { return TLSPolicy(mesh, graph.ServiceKey(svc), port) != nil }
	return b.port(s, "Service "+svc.String(), ref.Port, use, originates)
}

// ResolveHost is Resolve for a reference of a route to the ExternalService that it
// has as a parent; name is that of the host in WDS.
func ResolveHost(mesh Mesh, s *corev1.Service, name string, ref *gatewayv1.BackendObjectReference, use Use) Resolved {
	b := Resolved{Ref: &waypoint.BackendRef{Service: name}}
	if ref.Port != nil {
		b.Ref.Port = uint32(*ref.Port) // #nosec G115 -- checked against the ports below
	}
	of := graph.ExternalKey(types.NamespacedName{Namespace: s.Namespace, Name: s.Name})
	originates := func(port *corev1.ServicePort) bool { return TLSPolicy(mesh, of, port) != nil }
	return b.port(s, of.Kind+" "+of.NamespacedName().String(), ref.Port, use, originates)
}

// port checks the port of a reference, and what is spoken there. originates says
// whether the waypoint speaks TLS to a port.
func (b Resolved) port(s *corev1.Service, what string, wanted *gatewayv1.PortNumber, use Use, originates func(*corev1.ServicePort) bool) Resolved {
	if wanted == nil {
		return b.refuse(gatewayv1.RouteReasonBackendNotFound, "a port of "+what+" must be given: "+portsOf(s, func(p *corev1.ServicePort) bool { return UDP(p) == (use == UseDatagrams) }))
	}
	fits, network := TCP, "TCP"
	if use == UseDatagrams {
		fits, network = UDP, "UDP"
	}
	port := findPort(s, *wanted, fits)
	if port == nil {
		return b.refuse(gatewayv1.RouteReasonBackendNotFound, what+" has no "+network+" port "+itoa(*wanted)+": "+portsOf(s, fits))
	}
	speaks := PortSpeaks(port)
	switch {
	case use == UseBytes, use == UseDatagrams:
		return b
	case speaks == SpeaksTLS && !originates(port):
		return b.refuse(gatewayv1.RouteReasonUnsupportedProtocol, "port "+itoa(*wanted)+" of "+what+
			" speaks TLS of its own (appProtocol or port name), into which requests cannot be sent; name a port with plain HTTP, which the mesh encrypts, or attach a BackendTLSPolicy to "+what)
	case use == UseGRPC:
		b.Ref.Protocol = waypoint.Protocol_PROTOCOL_HTTP2
	case speaks == SpeaksHTTP1 || speaks == SpeaksHTTP2:
		b.Ref.Protocol = speaks.Protocol()
	}
	return b
}

func unusable(svc types.NamespacedName, reason gatewayv1.RouteConditionReason, message string) Resolved {
	b := Resolved{Service: svc, Ref: &waypoint.BackendRef{}}
	return b.refuse(reason, message)
}

func (b Resolved) refuse(reason gatewayv1.RouteConditionReason, message string) Resolved {
	b.Reason, b.Message = string(reason), message
	b.Ref.Invalid = message
	return b
}

func kindOf(ref *gatewayv1.BackendObjectReference) string {
	kind := "Service"
	if ref.Kind != nil {
		kind = string(*ref.Kind)
	}
	if ref.Group != nil && *ref.Group != "" {
		kind += "." + string(*ref.Group)
	}
	return kind
}

// FindPort gives the TCP port of a number, or nil.
func FindPort(s *corev1.Service, number int32) *corev1.ServicePort { return findPort(s, number, TCP) }

func findPort(s *corev1.Service, number int32, fits func(*corev1.ServicePort) bool) *corev1.ServicePort {
	for i := range s.Spec.Ports {
		if p := &s.Spec.Ports[i]; p.Port == number && fits(p) {
			return p
		}
	}
	return nil
}

func portsOf(s *corev1.Service, fits func(*corev1.ServicePort) bool) string {
	var out []string
	for i := range s.Spec.Ports {
		if p := &s.Spec.Ports[i]; fits(p) {
			out = append(out, itoa(p.Port))
		}
	}
	if len(out) == 0 {
		return "it has none"
	}
	return "it has " + strings.Join(out, ", ")
}
