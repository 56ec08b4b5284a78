package compile_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// TestIncrementalEqualsFromScratch edits a small world at random, in which names,
// labels, addresses and uids collide all the time, and compares what the edits
// led to with what the final objects give at once. It also checks that the
// deltas add up to the output.
func TestIncrementalEqualsFromScratch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(1, 25).Draw(t, "batches") {
			w.step(t)
		}
		w.compare(t)
	})
}

// compare compares with a compiler that is given everything at once.
func (w *world) compare(t *rapid.T) {
	if len(w.untold) > 0 {
		t.Fatalf("the status of %v changed, and they are not among the touched", w.untold)
	}
	w.agentsSettle()
	scratch, err := compile.New(compile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	in := compile.Input{Restored: w.compiler.Captured(), RestoredWaypoints: w.compiler.BoundWaypoints()}
	for _, k := range slices.SortedFunc(maps.Keys(w.objects), func(a, b graph.Key) int { return strings.Compare(a.String(), b.String()) }) {
		in.Upserts = append(in.Upserts, graph.Entry{Object: w.objects[k]})
	}
	scratch.Apply(in)
	if d := cmp.Diff(renderAll(scratch), renderAll(w.compiler)); d != "" {
		t.Fatalf("from scratch (-) and incremental (+) differ:\n%s", d)
	}
	if d := cmp.Diff(renderTraffic(scratch), renderTraffic(w.compiler)); d != "" {
		t.Fatalf("traffic from scratch (-) and incremental (+) differ:\n%s", d)
	}
	if d := cmp.Diff(versions(w.compiler), w.client); d != "" {
		t.Fatalf("output (-) and sum of deltas (+) differ:\n%s", d)
	}
}

// statuses gives the status of every object that has one, and checks that asking
// for one gives the same as asking for all.
func statuses(c *compile.Compiler) map[graph.Key]compile.ObjectStatus {
	out := make(map[graph.Key]compile.ObjectStatus)
	for _, s := range c.Statuses() {
		out[s.Object], _ = c.StatusOf(s.Object)
	}
	for _, s := range c.RouteStatuses() {
		out[s.Object] = compile.ObjectStatus{Parents: s.Parents}
	}
	return out
}

// checkTouched notes an object whose status is another and that is not among those
// that are said to be touched, and a status that is not what all statuses say.
func (w *world) checkTouched(before map[graph.Key]compile.ObjectStatus, touched []graph.Key) {
	after := statuses(w.compiler)
	for _, s := range w.compiler.Statuses() {
		one, ok := w.compiler.StatusOf(s.Object)
		if one.Gateway != nil {
			one.Policy.Conditions = one.Gateway.Conditions
		}
		if one.External != nil {
			one.Policy.Conditions = one.External.Conditions
		}
		if !ok || !cmp.Equal(one.Policy, s.Status) {
			w.untold = append(w.untold, s.Object)
		}
	}
	for _, s := range w.compiler.RouteStatuses() {
		if one, ok := w.compiler.StatusOf(s.Object); !ok || !cmp.Equal(one.Parents, s.Parents) {
			w.untold = append(w.untold, s.Object)
		}
	}
	for k := range after {
		if !cmp.Equal(before[k], after[k]) && !slices.Contains(touched, k) {
			w.untold = append(w.untold, k)
		}
	}
	for k := range before {
		if _, ok := after[k]; !ok && !slices.Contains(touched, k) {
			w.untold = append(w.untold, k)
		}
	}
}

// world is a compiler, what was put in, and what a client made of the deltas.
type world struct {
	compiler *compile.Compiler
	objects  map[graph.Key]graph.Object
	client   map[compile.Key]string
	draw     func(*rapid.T) graph.Object
	// untold are objects whose status changed without a word.
	untold []graph.Key
}

func newWorld(t *rapid.T) *world {
	c, err := compile.New(compile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &world{compiler: c, objects: map[graph.Key]graph.Object{}, client: map[compile.Key]string{}, draw: drawObject}
}

func versions(c *compile.Compiler) map[compile.Key]string {
	out := map[compile.Key]string{}
	for _, typeURL := range append([]string{compile.TypeAddress, compile.TypeAuthorization, compile.TypePod, compile.TypeNamespace}, trafficTypes...) {
		for _, r := range c.Resources(typeURL) {
			out[r.Key] = r.Version + r.Node + r.Waypoint.String() + strings.Join(r.Aliases, ",")
		}
	}
	return out
}

func (w *world) apply(in compile.Input) {
	before := statuses(w.compiler)
	res := w.compiler.Apply(in)
	w.checkTouched(before, res.Touched)
	for _, r := range res.Updated {
		w.client[r.Key] = r.Version + r.Node + r.Waypoint.String() + strings.Join(r.Aliases, ",")
	}
	for _, k := range res.Removed {
		delete(w.client, k)
	}
}

func (w *world) step(t *rapid.T) {
	switch rapid.IntRange(0, 9).Draw(t, "step") {
	case 0:
		w.apply(compile.Input{Released: w.compiler.Releasing()})
	case 1, 2:
		w.apply(compile.Input{Reports: []compile.CaptureReport{drawReport(t)}})
	default:
		w.edit(t)
	}
}

// edit applies one batch of upserts and deletes.
func (w *world) edit(t *rapid.T) {
	var in compile.Input
	for range rapid.IntRange(1, 4).Draw(t, "edits") {
		obj := w.draw(t)
		k, _ := graph.KeyOf(obj)
		taken := slices.Contains(in.Deletes, k) ||
			slices.ContainsFunc(in.Upserts, func(e graph.Entry) bool { o, _ := graph.KeyOf(e.Object); return o == k })
		if taken {
			continue
		}
		if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
			delete(w.objects, k)
			in.Deletes = append(in.Deletes, k)
		} else {
			w.objects[k] = obj
			in.Upserts = append(in.Upserts, graph.Entry{Object: obj})
		}
	}
	w.apply(in)
}

// agentsSettle lets every agent report what it must hold by now, so that nothing
// depends any more on the past.
func (w *world) agentsSettle() {
	for range 2 {
		reports := map[string]*compile.CaptureReport{}
		for _, n := range []string{"n1", "n2"} {
			reports[n] = &compile.CaptureReport{Node: n, Snapshot: true}
		}
		for _, p := range w.compiler.Captured() {
			if r := reports[p.Node]; r != nil {
				r.Pods = append(r.Pods, compile.PodCapture{UID: p.UID, Captured: true})
			}
		}
		w.apply(compile.Input{Reports: []compile.CaptureReport{*reports["n1"], *reports["n2"]}})
	}
}

func pick[T any](t *rapid.T, label string, values ...T) T {
	return rapid.SampledFrom(values).Draw(t, label)
}

func drawReport(t *rapid.T) compile.CaptureReport {
	r := compile.CaptureReport{Node: pick(t, "node", "n1", "n2"), Snapshot: rapid.Bool().Draw(t, "snapshot")}
	for range rapid.IntRange(0, 3).Draw(t, "pods") {
		r.Pods = append(r.Pods, compile.PodCapture{UID: drawUID(t), Captured: rapid.Bool().Draw(t, "captured")})
	}
	return r
}

func drawUID(t *rapid.T) types.UID {
	return pick[types.UID](t, "uid", "u1", "u2", "u3", "u4", "u5", "")
}

func drawMeta(t *rapid.T, names ...string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{
		Namespace: pick(t, "namespace", "a", "b", "ambit-system"),
		Name:      pick(t, "name", names...),
		Labels:    map[string]string{},
	}
	if v := pick(t, "app", "", "x", "y"); v != "" {
		m.Labels["app"] = v
	}
	if v := pick(t, "waypoint", "", "", "", "wp", "none"); v != "" {
		m.Labels[graph.LabelUseWaypoint] = v
	}
	if m.Labels[graph.LabelUseWaypoint] != "" && rapid.IntRange(0, 3).Draw(t, "elsewhere") == 0 {
		m.Labels[graph.LabelUseWaypointNamespace] = pick(t, "waypoint namespace", "a", "b")
	}
	if rapid.IntRange(0, 5).Draw(t, "fail open") == 0 {
		m.Annotations = map[string]string{graph.AnnotationFailOpen: pick(t, "open", "true", "false", "bad")}
	}
	if rapid.IntRange(0, 5).Draw(t, "gateway") == 0 {
		m.Labels[graph.LabelGatewayName] = "wp"
	}
	if v := pick(t, "mode", "", "", "ambient", "none", "bad"); v != "" {
		m.Labels[graph.LabelDataplaneMode] = v
	}
	return m
}

func drawObject(t *rapid.T) graph.Object {
	switch rapid.IntRange(0, 19).Draw(t, "kind") {
	case 18, 19:
		return drawExternal(t)
	case 11, 12, 13, 14, 15:
		return drawTraffic(t)
	case 0, 1, 2, 3:
		return drawPod(t)
	case 4, 5:
		return drawService(t)
	case 6:
		return drawSlice(t)
	case 7:
		return drawAuthz(t)
	case 8:
		return drawPeerAuthn(t)
	case 9:
		return drawGateway(t)
	case 10:
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{
			Name:   pick(t, "node", "n1", "n2"),
			Labels: map[string]string{corev1.LabelTopologyZone: pick(t, "zone", "z1", "z2")},
		}}
	default:
		m := drawMeta(t, "unused")
		m.Name, m.Namespace = m.Namespace, ""
		return &corev1.Namespace{ObjectMeta: m}
	}
}

func drawGateway(t *rapid.T) *gatewayv1.Gateway {
	m := drawMeta(t, "wp", "s1")
	if v := pick(t, "for", "", "", "service", "workload", "all", "none", "bad"); v != "" {
		m.Labels[graph.LabelWaypointFor] = v
	}
	l := gatewayv1.Listener{Name: "mesh", Port: graph.WaypointPort, Protocol: pick(t, "protocol", graph.ProtocolHBONE, graph.ProtocolHBONE, "HTTP")}
	if from := pick(t, "from", "", gatewayv1.NamespacesFromAll, gatewayv1.NamespacesFromSelector); from != "" {
		l.AllowedRoutes = &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: &from}}
		if from == gatewayv1.NamespacesFromSelector {
			l.AllowedRoutes.Namespaces.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": pick(t, "admits", "x", "y")}}
		}
	}
	return &gatewayv1.Gateway{ObjectMeta: m, Spec: gatewayv1.GatewaySpec{
		GatewayClassName: pick[gatewayv1.ObjectName](t, "class", graph.WaypointClass, graph.WaypointClass, "other"), Listeners: []gatewayv1.Listener{l},
	}}
}

func drawAddress(t *rapid.T) string {
	return pick(t, "address", "10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "127.0.0.1")
}

func drawPod(t *rapid.T) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: drawMeta(t, "p1", "p2", "p3")}
	p.UID = drawUID(t)
	p.Spec.NodeName = pick(t, "nodeName", "n1", "n2", "")
	p.Spec.ServiceAccountName = pick(t, "sa", "", "s1")
	p.Spec.HostNetwork = rapid.IntRange(0, 5).Draw(t, "host") == 0
	p.Spec.Containers = []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{
		{Name: "web", ContainerPort: int32(rapid.IntRange(8080, 8081).Draw(t, "port"))},
	}}}
	if rapid.Bool().Draw(t, "ready") {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	p.Status.Phase = pick(t, "phase", corev1.PodRunning, corev1.PodRunning, corev1.PodPending, corev1.PodSucceeded)
	for range rapid.IntRange(0, 2).Draw(t, "ips") {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: drawAddress(t)})
	}
	return p
}

func drawService(t *rapid.T) *corev1.Service {
	s := &corev1.Service{ObjectMeta: drawMeta(t, "s1", "s2")}
	if v := pick(t, "selector", "", "x", "y"); v != "" {
		s.Spec.Selector = map[string]string{"app": v}
	}
	s.Spec.Type = pick(t, "type", corev1.ServiceTypeClusterIP, corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName)
	s.Spec.ClusterIPs = []string{pick(t, "vip", "10.96.0.1", "10.96.0.2", "None")}
	if rapid.IntRange(0, 3).Draw(t, "require") == 0 {
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		s.Annotations[graph.AnnotationRequireWaypoint] = pick(t, "required", "true", "false", "bad")
	}
	s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
	s.Spec.Ports = []corev1.ServicePort{{
		Name: pick(t, "port", "p", "http", "tcp"), Port: 80,
		TargetPort: pick(t, "target", intstr.FromInt32(8080), intstr.FromString("web")),
	}}
	return s
}

// drawExternal draws hosts that are in want of the same names and, since Services have
// the same names, shows what takes one for the other.
func drawExternal(t *rapid.T) *meshv1alpha1.ExternalService {
	es := &meshv1alpha1.ExternalService{ObjectMeta: drawMeta(t, "s1", "s2")}
	es.CreationTimestamp = metav1.Unix(int64(rapid.IntRange(0, 2).Draw(t, "created")), 0)
	for range rapid.IntRange(1, 2).Draw(t, "hosts") {
		es.Spec.Hosts = append(es.Spec.Hosts, pick[meshv1alpha1.ExternalHost](t, "host", "a.example", "b.example", "*.c.example", "wrong"))
	}
	es.Spec.Ports = []meshv1alpha1.ExternalPort{{Name: "p", Port: 80, Protocol: pick[meshv1alpha1.ExternalProtocol](t, "protocol", "HTTP", "TCP", "")}}
	switch es.Spec.Resolution = pick(t, "resolution", meshv1alpha1.ResolutionDNS, meshv1alpha1.ResolutionStatic, meshv1alpha1.ResolutionNone); es.Spec.Resolution {
	case meshv1alpha1.ResolutionStatic:
		es.Spec.Endpoints = []meshv1alpha1.ExternalEndpoint{{Address: drawAddress(t)}}
	case meshv1alpha1.ResolutionNone:
		es.Spec.Addresses = []string{"192.0.2.0/24"}
	}
	return es
}

func drawSlice(t *rapid.T) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: drawMeta(t, "e1", "e2"), AddressType: discoveryv1.AddressTypeIPv4}
	s.Labels[discoveryv1.LabelServiceName] = pick(t, "service", "s1", "s2")
	s.Ports = []discoveryv1.EndpointPort{{Name: new("p"), Port: new(int32(9000))}}
	for range rapid.IntRange(0, 2).Draw(t, "endpoints") {
		ep := discoveryv1.Endpoint{Addresses: []string{drawAddress(t)}}
		if rapid.Bool().Draw(t, "ref") {
			ep.TargetRef = &corev1.ObjectReference{Kind: "Pod", Name: pick(t, "pod", "p1", "p2", "p3")}
		}
		s.Endpoints = append(s.Endpoints, ep)
	}
	return s
}

func drawSelector(t *rapid.T) *meshv1alpha1.PodSelector {
	switch rapid.IntRange(0, 2).Draw(t, "selector") {
	case 0:
		return &meshv1alpha1.PodSelector{}
	case 1:
		return &meshv1alpha1.PodSelector{MatchLabels: map[string]meshv1alpha1.LabelValue{"app": pick[meshv1alpha1.LabelValue](t, "app", "x", "y")}}
	default:
		return &meshv1alpha1.PodSelector{MatchExpressions: []meshv1alpha1.PodSelectorRequirement{
			{Key: "app", Operator: metav1.LabelSelectorOpExists},
		}}
	}
}

func drawAuthz(t *rapid.T) *meshv1alpha1.AuthorizationPolicy {
	p := &meshv1alpha1.AuthorizationPolicy{ObjectMeta: drawMeta(t, "a1", "a2")}
	if rapid.IntRange(0, 2).Draw(t, "level") == 0 {
		p.Spec.EnforcementLevel = meshv1alpha1.EnforcementApplication
	}
	p.Spec.Action = pick(t, "action", meshv1alpha1.ActionAllow, meshv1alpha1.ActionDeny, "WRONG")
	p.Spec.Rules = []meshv1alpha1.AuthorizationRule{{}}
	ref := meshv1alpha1.AuthorizationPolicyTargetReference{Kind: pick(t, "target",
		meshv1alpha1.TargetPod, meshv1alpha1.TargetService, meshv1alpha1.TargetNamespace, meshv1alpha1.TargetExternalService)}
	switch ref.Kind {
	case meshv1alpha1.TargetExternalService:
		ref.Group, ref.Name = meshv1alpha1.GroupName, new(gatewayv1.ObjectName(pick(t, "external", "s1", "s2")))
	case meshv1alpha1.TargetPod:
		ref.Selector = drawSelector(t)
	case meshv1alpha1.TargetService:
		ref.Name = new(gatewayv1.ObjectName(pick(t, "service", "s1", "s2")))
	}
	p.Spec.TargetRefs = append(p.Spec.TargetRefs, ref)
	return p
}

func drawPeerAuthn(t *rapid.T) *meshv1alpha1.PeerAuthentication {
	p := &meshv1alpha1.PeerAuthentication{ObjectMeta: drawMeta(t, "m1", "m2")}
	ref := meshv1alpha1.PeerAuthenticationTargetReference{Kind: pick(t, "target", meshv1alpha1.TargetPod, meshv1alpha1.TargetNamespace)}
	if ref.Kind == meshv1alpha1.TargetPod {
		ref.Selector = drawSelector(t)
		p.Spec.PortLevel = []meshv1alpha1.PeerAuthenticationPort{{Port: 8080, Mode: pick(t, "port", meshv1alpha1.ModePermissive, meshv1alpha1.ModeStrict)}}
	}
	p.Spec.TargetRefs = append(p.Spec.TargetRefs, ref)
	if rapid.Bool().Draw(t, "mtls") {
		p.Spec.MTLS = &meshv1alpha1.PeerAuthenticationMTLS{Mode: pick(t, "mode", meshv1alpha1.ModePermissive, meshv1alpha1.ModeStrict)}
	}
	return p
}
