package explain

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/controlplane/provision"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

// imagined is the node of pods that nobody runs.
const imagined = "imagined"

// Imagine adds to manifests what a cluster would make of them: pods of Deployments
// and StatefulSets, one of each that wants any, all running and ready, captured
// where labels enrol them; addresses; and for Gateways of our class their waypoint.
func Imagine(objects []manifest.Object) []graph.Entry {
	m := &imagination{modes: make(map[string]string)}
	for _, o := range objects {
		if ns, ok := o.Resource.(*corev1.Namespace); ok {
			m.modes[ns.Name] = ns.Labels[graph.LabelDataplaneMode]
		}
	}
	for _, o := range objects {
		m.add(o)
	}
	m.asked(objects)
	return m.out
}

// asked adds the waypoints that only labels of namespaces ask for.
func (m *imagination) asked(objects []manifest.Object) {
	g := graph.New()
	var ch graph.Changes
	for _, o := range objects {
		switch o.Resource.(type) {
		case *corev1.Namespace, *gatewayv1.Gateway:
			ch.Upserts = append(ch.Upserts, graph.Entry{Object: o.Resource})
		}
	}
	g.Apply(ch)
	for _, n := range g.Waypoints() {
		if _, written := g.Gateway(n); !written {
			gw, _ := g.Waypoint(n)
			m.waypoint(gw)
		}
	}
}

// waypoint adds what a waypoint is made into.
func (m *imagination) waypoint(gw *gatewayv1.Gateway) {
	made := provision.Make(gw, provision.Options{})
	m.out = append(m.out, graph.Entry{Object: m.service(made.Service)})
	d := made.Deployment
	m.workload(d.ObjectMeta, d.Spec.Replicas, d.Spec.Template, "ReplicaSet", d.Name+"-0")
}

type imagination struct {
	modes     map[string]string // of namespaces
	out       []graph.Entry
	pods, ips uint32
}

func (m *imagination) add(o manifest.Object) {
	entry := graph.Entry{Object: o.Resource, Origin: o.Where}
	switch x := o.Resource.(type) {
	case *corev1.Service:
		entry.Object = m.service(x.DeepCopy())
	case *corev1.Pod:
		m.pod(x.DeepCopy(), o.Where)
		return
	case *appsv1.Deployment:
		m.workload(x.ObjectMeta, x.Spec.Replicas, x.Spec.Template, "ReplicaSet", x.Name+"-0")
		return
	case *appsv1.StatefulSet:
		m.workload(x.ObjectMeta, x.Spec.Replicas, x.Spec.Template, "StatefulSet", x.Name)
		return
	case *gatewayv1.Gateway:
		if x.Spec.GatewayClassName == graph.WaypointClass && len(provision.Check(x).Problems) == 0 {
			m.waypoint(x)
		}
	}
	m.out = append(m.out, entry)
}

func (m *imagination) service(s *corev1.Service) *corev1.Service {
	if s.Spec.ClusterIP == "" && s.Spec.Type != corev1.ServiceTypeExternalName {
		s.Spec.ClusterIP = m.address(198<<24 | 18<<16).String()
	}
	if len(s.Spec.ClusterIPs) == 0 && s.Spec.ClusterIP != "" {
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	}
	return s
}

// address gives one of 198.18.0.0/15, which RFC 2544 reserves.
func (m *imagination) address(base uint32) netip.Addr {
	m.ips++
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], base+m.ips)
	return netip.AddrFrom4(b)
}

func (m *imagination) workload(owner metav1.ObjectMeta, replicas *int32, t corev1.PodTemplateSpec, kind, by string) {
	if replicas != nil && *replicas == 0 {
		return
	}
	p := &corev1.Pod{ObjectMeta: *t.ObjectMeta.DeepCopy(), Spec: *t.Spec.DeepCopy()}
	p.Namespace, p.Name = owner.Namespace, owner.Name+"-0"
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: by, Controller: new(true)}}
	m.pod(p, nil)
}

func (m *imagination) pod(p *corev1.Pod, origin graph.Origin) {
	m.pods++
	p.UID = types.UID(fmt.Sprintf("imagined-%d", m.pods))
	p.Spec.NodeName = cmp.Or(p.Spec.NodeName, imagined)
	p.Spec.ServiceAccountName = cmp.Or(p.Spec.ServiceAccountName, "default")
	ip := m.address(198<<24 | 19<<16).String()
	p.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	}
	if cmp.Or(p.Labels[graph.LabelDataplaneMode], m.modes[p.Namespace]) == graph.ModeAmbient && !p.Spec.HostNetwork {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: conditionCaptured, Status: corev1.ConditionTrue})
	}
	m.out = append(m.out, graph.Entry{Object: p, Origin: origin})
}
