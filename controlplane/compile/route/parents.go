package route

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/controlplane/compile/traffic"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// resolve finds the ports that a parent reference is about, or says why there
// are none.
func (t *translation) resolve(a *attached, r *reference) {
	s, svc := t.in.Service, t.called()
	switch {
	case s == nil:
		r.refuse(gatewayv1.RouteReasonNoMatchingParent, "there is no "+svc)
	case s.Spec.Type == corev1.ServiceTypeExternalName:
		r.refuse(v1alpha1.ReasonUnsupportedParent, svc+" is of type ExternalName: it has no address of the mesh by which its traffic could be told; attach the route to a Service with a cluster address")
	case s.Spec.ClusterIP == corev1.ClusterIPNone:
		r.refuse(v1alpha1.ReasonUnsupportedParent, svc+" is headless: its clients address pods, not the Service; attach the route to a Service with a cluster address")
	default:
		t.ports(a, r)
	}
	if r.refused == "" && !t.in.Bound {
		r.refuse(v1alpha1.ReasonWaypointRequired, "no waypoint serves "+svc+", so the route has no effect; bind one with the label "+
			graph.LabelUseWaypoint+" on the "+t.parent().Kind+" or its namespace")
	}
	if r.refused == "" && t.in.Unusable != "" {
		r.refuse(v1alpha1.ReasonWaypointRequired, t.in.Unusable+", so that no request reaches "+svc)
	}
}

func (r *reference) refuse(reason gatewayv1.RouteConditionReason, message string) {
	r.refused, r.message = reason, message
}

// ports chooses the ports by number and section name, both of which must match
// (GEP-1426), and leaves out those that declare a protocol which routes of the
// kind cannot read.
func (t *translation) ports(a *attached, r *reference) {
	var unfit []string
	matched := false
	for i := range t.in.Service.Spec.Ports {
		p := &t.in.Service.Spec.Ports[i]
		if !a.fits(p) || r.ref.Port != nil && *r.ref.Port != p.Port ||
			r.ref.SectionName != nil && string(*r.ref.SectionName) != p.Name {
			continue
		}
		matched = true
		if why := t.unfit(a, p); why != "" {
			unfit = append(unfit, why)
			continue
		}
		r.ports = append(r.ports, i)
	}
	switch {
	case !matched:
		r.refuse(gatewayv1.RouteReasonNoMatchingParent, t.called()+" has no such "+a.network()+" port; "+portList(t.in.Service, a.fits))
	case len(r.ports) == 0:
		r.refuse(gatewayv1.RouteReasonUnsupportedProtocol, strings.Join(unfit, "; "))
	case len(unfit) > 0:
		r.note = strings.Join(unfit, "; ")
	}
}

// fits says whether a port is of the sort that routes of the kind are about.
func (a *attached) fits(p *corev1.ServicePort) bool {
	if a.kind == waypoint.RouteKind_ROUTE_KIND_UDP {
		return traffic.UDP(p)
	}
	return traffic.TCP(p)
}

func (a *attached) network() string {
	if a.kind == waypoint.RouteKind_ROUTE_KIND_UDP {
		return "UDP"
	}
	return "TCP"
}

// unfit says why routes of a kind cannot apply to a port.
func (t *translation) unfit(a *attached, p *corev1.ServicePort) string {
	speaks := traffic.PortSpeaks(p)
	name := "port " + itoa(p.Port)
	switch a.kind {
	case waypoint.RouteKind_ROUTE_KIND_HTTP, waypoint.RouteKind_ROUTE_KIND_GRPC:
		if speaks == traffic.SpeaksTLS || speaks == traffic.SpeaksTCP {
			return name + " is said to speak " + says(p) + ", in which a waypoint sees no requests; set appProtocol if it speaks HTTP"
		}
	case waypoint.RouteKind_ROUTE_KIND_TLS:
		if speaks != traffic.SpeaksTLS && speaks != traffic.SpeaksUnknown {
			return name + " is said to speak " + says(p) + ", in which there are no TLS server names; set appProtocol: tls if it speaks TLS"
		}
	}
	return ""
}

func says(p *corev1.ServicePort) string {
	if p.AppProtocol != nil {
		return *p.AppProtocol + " (appProtocol)"
	}
	return p.Name + " (port name)"
}

func portList(s *corev1.Service, fits func(*corev1.ServicePort) bool) string {
	var out []string
	for i := range s.Spec.Ports {
		if p := &s.Spec.Ports[i]; fits(p) {
			text := itoa(p.Port)
			if p.Name != "" {
				text += " (" + p.Name + ")"
			}
			out = append(out, text)
		}
	}
	if len(out) == 0 {
		return "it has none"
	}
	return "it has " + strings.Join(out, ", ")
}

// settle decides which kind of routes a port has, and marks the references of
// the others as lost. GEP-1294: GRPCRoute before HTTPRoute before TLSRoute before
// TCPRoute; ports of UDP have UDPRoutes alone. The owner's routes decide; routes of consumers give way to them.
func (t *translation) settle(port int, p *corev1.ServicePort) (kind waypoint.RouteKind, owner bool) {
	kind = t.strongest(port, false)
	owner = kind != waypoint.RouteKind_ROUTE_KIND_UNSPECIFIED
	if !owner {
		kind = t.strongest(port, true)
		speaks := traffic.PortSpeaks(p)
		if layer4(kind) && speaks != traffic.SpeaksTCP && speaks != traffic.SpeaksTLS {
			// Were it taken down to layer 4, what the owner has attached to its
			// requests would no longer hold for anybody.
			kind = waypoint.RouteKind_ROUTE_KIND_UNSPECIFIED
		}
	}
	for _, a := range t.routes {
		for _, r := range a.refs {
			if slices.Contains(r.ports, port) && a.kind != kind {
				r.lost = append(r.lost, port)
			}
		}
	}
	return kind, owner
}

func layer4(kind waypoint.RouteKind) bool {
	return kind == waypoint.RouteKind_ROUTE_KIND_TLS || kind == waypoint.RouteKind_ROUTE_KIND_TCP // of UDP there is nothing above
}

// strongest gives the kind that wins among the routes of the owner, or among
// those of consumers.
func (t *translation) strongest(port int, consumers bool) waypoint.RouteKind {
	order := []waypoint.RouteKind{
		waypoint.RouteKind_ROUTE_KIND_GRPC, waypoint.RouteKind_ROUTE_KIND_HTTP,
		waypoint.RouteKind_ROUTE_KIND_TLS, waypoint.RouteKind_ROUTE_KIND_TCP, waypoint.RouteKind_ROUTE_KIND_UDP,
	}
	for _, kind := range order {
		for _, a := range t.routes {
			if a.kind == kind && a.consumer(t.in.Name) == consumers && a.applies(port) {
				return kind
			}
		}
	}
	return waypoint.RouteKind_ROUTE_KIND_UNSPECIFIED
}
