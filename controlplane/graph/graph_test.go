package graph

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/gatewayx"
	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
)

func meta(namespace, name string, pairs ...string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		m.Labels[pairs[i]] = pairs[i+1]
	}
	return m
}

func testPod(name, node, ip string, pairs ...string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: meta("shop", name, pairs...), Spec: corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{PodIP: ip},
	}
}

// world is two services with a pod each, one by selector and one by an endpoint
// slice, and a pod beside them.
func world() *Graph {
	g := New()
	g.Apply(Changes{Upserts: []Entry{
		{Object: &corev1.Namespace{ObjectMeta: meta("", "shop")}},
		{Object: &corev1.Namespace{ObjectMeta: meta("", "other", LabelUseWaypoint, "w", LabelUseWaypointNamespace, "infra")}},
		{Object: testPod("bound", "n1", "10.0.0.9", LabelUseWaypoint, "w", LabelUseWaypointNamespace, "infra")},
		{Object: selectingGateway()},
		{Object: &corev1.Node{ObjectMeta: meta("", "n1")}},
		{Object: testPod("web", "n1", "10.0.0.1", "app", "web")},
		{Object: testPod("db", "n1", "10.0.0.2", "app", "db")},
		{Object: testPod("listed", "n2", "10.0.0.3")},
		{Object: &corev1.Service{ObjectMeta: meta("shop", "web"), Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "web"}, ClusterIP: "10.96.0.1",
		}}},
		{Object: &corev1.Service{ObjectMeta: meta("shop", "manual")}},
		{Object: slice("10.0.0.3")},
		{Object: policyFor("web")},
		{Object: routeOf("web", "manual")},
		{Object: retriesOf("web")},
		{Object: &corev1.Service{ObjectMeta: meta("other", "served")}},
		{Object: spansTo("shop", "manual")},
	}})
	return g
}

// selectingGateway admits namespaces by label.
func selectingGateway() *gatewayv1.Gateway {
	return &gatewayv1.Gateway{ObjectMeta: meta("infra", "w"), Spec: gatewayv1.GatewaySpec{Listeners: []gatewayv1.Listener{{
		AllowedRoutes: &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{
			From: new(gatewayv1.NamespacesFromSelector), Selector: &metav1.LabelSelector{},
		}},
	}}}}
}

func slice(addr string) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  meta("shop", "manual-1", discoveryv1.LabelServiceName, "manual"),
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{addr}}},
	}
}

func policyFor(service string) *meshv1alpha1.AuthorizationPolicy {
	return &meshv1alpha1.AuthorizationPolicy{ObjectMeta: meta("shop", "policy"), Spec: meshv1alpha1.AuthorizationPolicySpec{
		TargetRefs: []meshv1alpha1.AuthorizationPolicyTargetReference{
			{Kind: meshv1alpha1.TargetService, Name: new(gatewayv1.ObjectName(service))},
		},
	}}
}

// routeOf is a route that sends the requests to a service to another one.
func routeOf(service, backend string) *gatewayv1.HTTPRoute {
	r := &gatewayv1.HTTPRoute{ObjectMeta: meta("shop", "route")}
	r.Spec.ParentRefs = []gatewayv1.ParentReference{{Group: new(gatewayv1.Group("")), Kind: new(gatewayv1.Kind("Service")), Name: gatewayv1.ObjectName(service)}}
	r.Spec.Rules = []gatewayv1.HTTPRouteRule{{BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{
		BackendObjectReference: gatewayv1.BackendObjectReference{Name: gatewayv1.ObjectName(backend)},
	}}}}}
	return r
}

func retriesOf(service string) *meshv1alpha1.RetryPolicy {
	return &meshv1alpha1.RetryPolicy{ObjectMeta: meta("shop", "retries"), Spec: meshv1alpha1.RetryPolicySpec{
		TargetRefs: []meshv1alpha1.TrafficTargetReference{{Kind: "Service", Name: gatewayv1.ObjectName(service)}},
	}}
}

// spansTo is about the waypoint of namespace other.
func spansTo(namespace, collector string) *gatewayx.XTelemetryPolicy {
	return &gatewayx.XTelemetryPolicy{ObjectMeta: meta("infra", "spans"), Spec: gatewayx.TelemetryPolicySpec{
		TargetRefs: []gatewayv1.LocalObjectReference{{Group: gatewayv1.GroupName, Kind: "Gateway", Name: "w"}},
		Tracing: &gatewayx.TracingConfig{Mode: gatewayx.Enabled, Provider: &gatewayx.TracingProvider{BackendRef: gatewayv1.BackendObjectReference{
			Name: gatewayv1.ObjectName(collector), Namespace: new(gatewayv1.Namespace(namespace)), Port: new(gatewayv1.PortNumber(4317)),
		}}},
	}}
}

// trafficText gives the part of the dirty set that is about waypoints.
func (d *Dirty) trafficText() string {
	var out []string
	for n := range d.Frontends {
		out = append(out, "frontend:"+n.Name)
	}
	for n := range d.Backends {
		out = append(out, "backend:"+n.Name)
	}
	for k := range d.Traffic {
		out = append(out, k.Kind+":"+k.Name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestDirtyTraffic states what of the waypoints has to be compiled again.
func TestDirtyTraffic(t *testing.T) {
	for name, tc := range map[string]struct {
		edit Object
		want string
	}{
		"a pod":                 {testPod("web", "n1", "10.0.0.1", "app", "web"), ""},
		"an endpoint slice":     {slice("10.0.0.2"), ""},
		"a parent":              {&corev1.Service{ObjectMeta: meta("shop", "web")}, "RetryPolicy:retries backend:manual backend:web frontend:web"},
		"a backend":             {&corev1.Service{ObjectMeta: meta("shop", "manual")}, "HTTPRoute:route XTelemetryPolicy:spans backend:manual frontend:manual frontend:served frontend:web"},
		"a route moves":         {routeOf("manual", "web"), "HTTPRoute:route RetryPolicy:retries backend:manual backend:web frontend:manual frontend:web"},
		"a policy of a Gateway": {spansTo("shop", "web"), "RetryPolicy:retries XTelemetryPolicy:spans backend:manual backend:web frontend:served"},
		"a Gateway":             {&gatewayv1.Gateway{ObjectMeta: meta("infra", "w")}, "XTelemetryPolicy:spans backend:served frontend:served"},
		"a policy moves":        {retriesOf("other"), "RetryPolicy:retries backend:other backend:web frontend:other frontend:web"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := world().Apply(Changes{Upserts: []Entry{{Object: tc.edit}}}).trafficText(); got != tc.want {
				t.Errorf("dirty\n got %s\nwant %s", got, tc.want)
			}
		})
	}
}

// text gives the dirty set as sorted words.
func (d *Dirty) text() string {
	var out []string
	for kind, names := range map[string]map[name]struct{}{
		"pod": d.Pods, "service": d.Services, "slice": d.EndpointSlices,
		"authz": d.AuthorizationPolicies, "peer": d.PeerAuthentications, "gateway": d.Gateways,
	} {
		for n := range names {
			out = append(out, kind+":"+n.Name)
		}
	}
	for n := range d.Namespaces {
		out = append(out, "namespace:"+n)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestDirty states, for each kind of edit, exactly what has to be looked at
// again.
func TestDirty(t *testing.T) {
	for name, tc := range map[string]struct {
		edit Object
		want string
	}{
		"pod":                     {testPod("web", "n1", "10.0.0.1", "app", "web"), "pod:web"},
		"pod of a slice":          {testPod("listed", "n2", "10.0.0.3"), "pod:listed slice:manual-1"},
		"pod takes an address":    {testPod("new", "n2", "10.0.0.2"), "pod:db pod:new"},
		"service":                 {&corev1.Service{ObjectMeta: meta("shop", "web"), Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "db"}}}, "authz:policy gateway:web pod:db pod:web service:web"},
		"service of a slice":      {&corev1.Service{ObjectMeta: meta("shop", "manual")}, "gateway:manual pod:listed service:manual slice:manual-1"},
		"service takes a VIP":     {&corev1.Service{ObjectMeta: meta("shop", "x"), Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.1"}}, "gateway:x service:web service:x"},
		"slice":                   {slice("10.0.0.2"), "pod:db pod:listed service:manual slice:manual-1"},
		"namespace":               {&corev1.Namespace{ObjectMeta: meta("", "shop", "x", "y")}, "namespace:shop pod:bound"},
		"namespace enrolled":      {&corev1.Namespace{ObjectMeta: meta("", "shop", LabelDataplaneMode, ModeAmbient)}, "namespace:shop pod:bound pod:db pod:listed pod:web"},
		"namespace to waypoint":   {&corev1.Namespace{ObjectMeta: meta("", "shop", LabelUseWaypoint, "w")}, "authz:policy gateway:w namespace:shop pod:bound pod:db pod:listed pod:web service:manual service:web"},
		"node heartbeat":          {&corev1.Node{ObjectMeta: meta("", "n1", "x", "y")}, ""},
		"node moves":              {&corev1.Node{ObjectMeta: meta("", "n1", corev1.LabelTopologyZone, "z")}, "pod:bound pod:db pod:web"},
		"policy":                  {policyFor("manual"), "authz:policy"},
		"peers":                   {&meshv1alpha1.PeerAuthentication{ObjectMeta: meta("shop", "p")}, "peer:p"},
		"gateway":                 {&gatewayv1.Gateway{ObjectMeta: meta("shop", "w")}, "authz:policy gateway:w service:manual service:web"},
		"waypoint of others":      {selectingGateway(), "gateway:w namespace:other pod:bound service:served"},
		"kind that is not linked": {&corev1.ServiceAccount{ObjectMeta: meta("shop", "x")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := world()
			if got := g.Apply(Changes{Upserts: []Entry{{Object: tc.edit}}}).text(); got != tc.want {
				t.Errorf("dirty\n got %s\nwant %s", got, tc.want)
			}
		})
	}
}

func at(place string) Origin { return func(string) string { return place } }

func TestSameObjectMovesOnly(t *testing.T) {
	g := New()
	p := testPod("web", "n1", "10.0.0.1")
	g.Apply(Changes{Upserts: []Entry{{Object: p, Origin: at("a.yaml:1")}}})
	if got := g.Apply(Changes{Upserts: []Entry{{Object: p, Origin: at("a.yaml:9")}}}).text(); got != "" {
		t.Errorf("an object that moved to another line made dirty: %s", got)
	}
	if got := g.Origin(Key{Kind: "Pod", Namespace: "shop", Name: "web"}, ""); got != "a.yaml:9" {
		t.Errorf("origin %s, want a.yaml:9", got)
	}
}

// TestDeletesLeaveNothing deletes everything and expects empty indexes.
func TestDeletesLeaveNothing(t *testing.T) {
	g := world()
	var ch Changes
	for n := range g.pods {
		ch.Deletes = append(ch.Deletes, Key{Kind: "Pod", Namespace: n.Namespace, Name: n.Name})
	}
	for n := range g.services {
		ch.Deletes = append(ch.Deletes, Key{Kind: "Service", Namespace: n.Namespace, Name: n.Name})
	}
	ch.Deletes = append(ch.Deletes,
		Key{Kind: "Namespace", Name: "shop"}, Key{Kind: "Namespace", Name: "other"},
		Key{Group: gatewayv1.GroupName, Kind: "Gateway", Namespace: "infra", Name: "w"}, Key{Kind: "Node", Name: "n1"},
		Key{Group: discoveryv1.GroupName, Kind: "EndpointSlice", Namespace: "shop", Name: "manual-1"},
		Key{Group: meshv1alpha1.GroupName, Kind: meshv1alpha1.KindAuthorizationPolicy, Namespace: "shop", Name: "policy"},
		Key{Group: meshv1alpha1.GroupName, Kind: meshv1alpha1.KindRetryPolicy, Namespace: "shop", Name: "retries"},
		Key{Group: gatewayx.GroupName, Kind: gatewayx.KindTelemetryPolicy, Namespace: "infra", Name: "spans"},
		RouteKey(KindHTTPRoute, "shop", "route"),
		Key{Kind: "Pod", Namespace: "shop", Name: "never-was"})
	g.Apply(ch)
	sizes := map[string]int{
		"namespaces": len(g.namespaces), "nodes": len(g.nodes), "pods": len(g.pods), "services": len(g.services),
		"slices": len(g.slices), "authz": len(g.authz), "podsByNamespace": len(g.podsByNamespace),
		"podsByNode": len(g.podsByNode), "podsByLabel": len(g.podsByLabel), "podsByAddress": len(g.podsByAddress),
		"podsByUID": len(g.podsByUID), "podsByAccount": len(g.podsByAccount), "servicesByNamespace": len(g.servicesByNamespace),
		"serviceSelectors":  len(g.serviceSelectors.selectors) + len(g.serviceSelectors.byPair) + len(g.serviceSelectors.rest) + len(g.serviceSelectors.chosen),
		"servicesByAddress": len(g.servicesByAddress), "slicesByService": len(g.slicesByService),
		"slicesByAddress": len(g.slicesByAddress), "authzByService": len(g.authzByService),
		"traffic": len(g.traffic.objects) + len(g.traffic.parents) + len(g.traffic.targets) + len(g.traffic.users),
		"implied": len(g.implied), "namespacesByWaypoint": len(g.namespacesByWaypoint), "servicesByWaypoint": len(g.servicesByWaypoint),
		"podsByWaypoint": len(g.podsByWaypoint), "selecting": len(g.selecting),
	}
	for _, what := range slices.Sorted(maps.Keys(sizes)) {
		if sizes[what] != 0 {
			t.Errorf("%s holds %d entries of deleted objects", what, sizes[what])
		}
	}
}

func TestSelectorsAgreeWithMatching(t *testing.T) {
	x := NewSelectors()
	for i, text := range []string{"a=1", "a=1,b=2", "b in (2,3)", "c", "!c", "", "a in (1)"} {
		sel, err := labels.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		x.Set(name{Namespace: "ns", Name: fmt.Sprint(i)}, sel)
	}
	for _, set := range []labels.Set{{}, {"a": "1"}, {"a": "1", "b": "2"}, {"b": "3", "c": "x"}} {
		var got, want []string
		x.Matching("ns", set, func(n name) { got = append(got, n.Name) })
		for n, sel := range x.selectors {
			if sel.Matches(set) {
				want = append(want, n.Name)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%v: got %v, want %v", set, got, want)
		}
	}
}
