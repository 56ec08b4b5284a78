package route

import (
	"crypto/sha256"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/controlplane/compile/traffic"
)

// compiled is the wire form of a route with what is wrong with it. It does not
// change any more.
type compiled struct {
	route    *waypoint.Route
	problems []problem
	rules    int
	dead     map[int]bool
	note     string
	digest   [sha256.Size]byte
}

// compile gives the wire form of a route for a port.
func (t *translation) compile(a *attached, p *corev1.ServicePort) *compiled {
	section := ""
	if p != nil {
		section = t.section(p)
	}
	if c := a.compiled[section]; c != nil {
		return c
	}
	k := entryKey{route: a.key, section: section}
	c := t.cache.find(k, a.object, t.settings, t.mesh)
	if c == nil {
		mesh := t.mesh
		asking, keep := t.cache.record(mesh)
		t.mesh = asking
		c = t.work(a, section)
		t.mesh = mesh
		keep(k, &entry{object: a.object, settings: t.settings, compiled: c})
	}
	t.out.digests[c.route] = c.digest
	a.compiled[section] = c
	return c
}

// work translates a route.
func (t *translation) work(a *attached, section string) *compiled {
	w := &worker{t: t, key: a.key, object: a.object, section: section, dead: make(map[int]bool)}
	c := &compiled{route: &waypoint.Route{Kind: a.key.Kind, Namespace: a.key.Namespace, Name: a.key.Name}}
	if created := a.object.GetCreationTimestamp(); !created.IsZero() {
		c.route.Created = timestamppb.New(created.Time)
	}
	switch o := a.object.(type) {
	case *gatewayv1.HTTPRoute:
		c.rules, c.route.Rules = len(o.Spec.Rules), w.httpRules(o)
		if len(o.Spec.Hostnames) > 0 {
			c.note = "hostnames have no meaning for a Service: a request belongs to it by the address that it is sent to; match the header Host instead"
		}
	case *gatewayv1.GRPCRoute:
		c.rules, c.route.Rules = len(o.Spec.Rules), w.grpcRules(o)
		if len(o.Spec.Hostnames) > 0 {
			c.note = "hostnames have no meaning for a Service: a request belongs to it by the address that it is sent to; match the header Host instead"
		}
	case *gatewayv1.TLSRoute:
		for _, h := range o.Spec.Hostnames {
			c.route.ServerNames = append(c.route.ServerNames, strings.ToLower(string(h)))
		}
		for i := range o.Spec.Rules {
			c.route.Rules = append(c.route.Rules, w.opaqueRule(i, o.Spec.Rules[i].Name, o.Spec.Rules[i].BackendRefs, traffic.UseBytes))
		}
		c.rules = len(o.Spec.Rules)
	case *gatewayv1.TCPRoute:
		for i := range o.Spec.Rules {
			c.route.Rules = append(c.route.Rules, w.opaqueRule(i, o.Spec.Rules[i].Name, o.Spec.Rules[i].BackendRefs, traffic.UseBytes))
		}
		c.rules = len(o.Spec.Rules)
	case *gatewayv1.UDPRoute:
		for i := range o.Spec.Rules {
			c.route.Rules = append(c.route.Rules, w.opaqueRule(i, o.Spec.Rules[i].Name, o.Spec.Rules[i].BackendRefs, traffic.UseDatagrams))
		}
		c.rules = len(o.Spec.Rules)
	}
	c.problems, c.dead, c.digest = w.problems, w.dead, digest(c.route)
	return c
}
