package service_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ambit-mesh/ambit/internal/local/service"
	"github.com/ambit-mesh/ambit/internal/local/vip"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

func allocator(ipv6 bool) *service.Allocator {
	return &service.Allocator{
		Block4: netip.MustParsePrefix("10.96.0.0/16"), Block6: netip.MustParsePrefix("fd00:10:96::/112"),
		Reserved: []netip.Addr{netip.MustParseAddr("10.96.0.10")}, IPv6: ipv6,
	}
}

func svc(name string, change ...func(*corev1.ServiceSpec)) manifest.Object {
	s := &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop"},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": name},
			Ports:    []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromString("web")}},
		},
	}
	for _, c := range change {
		c(&s.Spec)
	}
	return manifest.Object{Resource: s, Source: manifest.Position{File: name + ".yaml", Line: 1}}
}

func specOf(o manifest.Object) *corev1.ServiceSpec { return &o.Resource.(*corev1.Service).Spec }

func asks(ips ...string) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) { s.ClusterIP, s.ClusterIPs = ips[0], ips }
}

func family(p corev1.IPFamilyPolicy, families ...corev1.IPFamily) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) { s.IPFamilyPolicy, s.IPFamilies = &p, families }
}

func TestAllocatorFamilies(t *testing.T) {
	const v6 = corev1.IPv6Protocol
	for _, tc := range []struct {
		name   string
		change []func(*corev1.ServiceSpec)
		ipv6   bool
		want   string // families of the addresses
		err    string
	}{
		{"single by default", nil, true, "4", ""},
		{"dual preferred", []func(*corev1.ServiceSpec){family("PreferDualStack")}, true, "4 6", ""},
		{"IPv6 first", []func(*corev1.ServiceSpec){family("PreferDualStack", v6)}, true, "6 4", ""},
		{"IPv6 alone", []func(*corev1.ServiceSpec){family("SingleStack", v6)}, true, "6", ""},
		{"two asked for", []func(*corev1.ServiceSpec){asks("10.96.1.1", "fd00:10:96::101")}, true, "4 6", ""},
		{"IPv6 asked for", []func(*corev1.ServiceSpec){asks("fd00:10:96::101")}, true, "6", ""},
		{"dual preferred, kernel without IPv6", []func(*corev1.ServiceSpec){family("PreferDualStack")}, false, "4", ""},
		{"dual required, kernel without IPv6", []func(*corev1.ServiceSpec){family("RequireDualStack")}, false, "", "spec.ipFamilies"},
		{"IPv6 only, kernel without IPv6", []func(*corev1.ServiceSpec){family("SingleStack", v6)}, false, "", "spec.ipFamilies"},
		{"headless", []func(*corev1.ServiceSpec){asks("None")}, true, "None", ""},
		{"outside of the block", []func(*corev1.ServiceSpec){asks("192.0.2.1")}, true, "", "spec.clusterIPs: 192.0.2.1: must be in"},
		{"the mesh's own", []func(*corev1.ServiceSpec){asks("10.96.0.10")}, true, "", "spec.clusterIPs: 10.96.0.10 is taken by the mesh's DNS"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := svc("web", tc.change...)
			problems := allocator(tc.ipv6).Assign([]manifest.Object{o})
			var got []string
			for _, raw := range specOf(o).ClusterIPs {
				switch {
				case raw == "None":
					got = append(got, raw)
				case netip.MustParseAddr(raw).Is6():
					got = append(got, "6")
				default:
					got = append(got, "4")
				}
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("addresses %v, want %q", specOf(o).ClusterIPs, tc.want)
			}
			text := fmt.Sprint(problems)
			if (len(problems) > 0) != (tc.err != "") || !strings.Contains(text, tc.err) {
				t.Errorf("problems %s, want %q", text, tc.err)
			}
			if len(problems) == 0 && specOf(o).ClusterIP != specOf(o).ClusterIPs[0] {
				t.Errorf("clusterIP %q is not the first of %v", specOf(o).ClusterIP, specOf(o).ClusterIPs)
			}
		})
	}
}

func TestAllocatorIsStable(t *testing.T) {
	a := allocator(true)
	web := svc("web")
	a.Assign([]manifest.Object{web})
	first := specOf(web).ClusterIP

	if again := svc("web"); true {
		allocator(true).Assign([]manifest.Object{again})
		if specOf(again).ClusterIP != first {
			t.Errorf("another run gives %s, not %s", specOf(again).ClusterIP, first)
		}
	}
	// A newcomer that asks for the address of another is served first, and the
	// other gets a new one.
	thief, web2 := svc("aaa", asks(first)), svc("web")
	if p := a.Assign([]manifest.Object{web2, thief}); len(p) > 0 {
		t.Fatal(p)
	}
	if specOf(thief).ClusterIP != first || specOf(web2).ClusterIP == first || specOf(web2).ClusterIP == "" {
		t.Errorf("thief has %s, web has %s, web had %s", specOf(thief).ClusterIP, specOf(web2).ClusterIP, first)
	}
	// Two that ask for the same: the second is told who has it.
	x, y := svc("x", asks("10.96.7.7")), svc("y", asks("10.96.7.7"))
	p := a.Assign([]manifest.Object{x, y})
	if len(p) != 1 || !strings.Contains(p[0].Error(), "y.yaml:1: Service shop/y: spec.clusterIPs: 10.96.7.7 is taken by Service shop/x") {
		t.Errorf("problems %v", p)
	}
	if specOf(y).ClusterIP != "" {
		t.Errorf("y works at %s without anybody having said so", specOf(y).ClusterIP)
	}
}

func TestAllocatorGivesDistinctAddresses(t *testing.T) {
	a := allocator(true)
	var all []manifest.Object
	for i := range 2000 {
		all = append(all, svc(fmt.Sprintf("s%d", i), family("RequireDualStack")))
	}
	if p := a.Assign(all); len(p) > 0 {
		t.Fatal(p[0])
	}
	seen := make(map[string]string)
	for _, o := range all {
		for _, ip := range specOf(o).ClusterIPs {
			if other, ok := seen[ip]; ok {
				t.Fatalf("%s and %s both have %s", o.GetName(), other, ip)
			}
			seen[ip] = o.GetName()
		}
	}
}

func pod(name string, port int32, change ...func(*corev1.Pod)) *corev1.Pod {
	n := int(name[len(name)-1] - '0')
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{
			Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: port, Protocol: corev1.ProtocolTCP}},
		}}},
		Status: corev1.PodStatus{
			Phase:      corev1.PodRunning,
			PodIPs:     []corev1.PodIP{{IP: fmt.Sprintf("10.244.1.%d", n)}, {IP: fmt.Sprintf("fd00:10:244:1::%d", n)}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	for _, c := range change {
		c(p)
	}
	return p
}

func notReady(p *corev1.Pod)    { p.Status.Conditions[0].Status = corev1.ConditionFalse }
func terminating(p *corev1.Pod) { p.DeletionTimestamp = new(metav1.Now()) }
func done(p *corev1.Pod)        { p.Status.Phase = corev1.PodSucceeded }
func onN2(p *corev1.Pod)        { p.Spec.NodeName = "n2" }

// backed gives a service with an address and what is behind it.
func backed(t *testing.T, o manifest.Object, pods []*corev1.Pod, slices ...*discoveryv1.EndpointSlice) service.Backed {
	t.Helper()
	if p := allocator(true).Assign([]manifest.Object{o}); len(p) > 0 {
		t.Fatal(p)
	}
	s := o.Resource.(*corev1.Service)
	return service.Backed{Service: s, Endpoints: service.Endpoints(s, pods, slices)}
}

func targets(f []vip.Frontend) string {
	var all []string
	for _, x := range f {
		var to []string
		for _, b := range x.Backends {
			to = append(to, b.String())
		}
		all = append(all, fmt.Sprintf(":%d -> %s", x.Address.Port(), strings.Join(to, ",")))
	}
	return strings.Join(all, " | ")
}

func TestFrontends(t *testing.T) {
	everything := []*corev1.Pod{
		pod("p1", 8080), pod("p2", 8081, onN2), pod("p3", 8080, notReady), pod("p4", 8080, terminating), pod("p5", 8080, done),
		pod("p6", 8080, func(p *corev1.Pod) { p.Namespace = "other" }),
		pod("p7", 8080, func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].Name = "other" }),
	}
	local := corev1.ServiceInternalTrafficPolicyLocal
	for _, tc := range []struct {
		name   string
		change func(*corev1.ServiceSpec)
		node   string
		want   string
	}{
		{"ready pods, each with its own port", func(*corev1.ServiceSpec) {}, "n1", ":80 -> 10.244.1.1:8080,10.244.1.2:8081"},
		{"a number", func(s *corev1.ServiceSpec) { s.Ports[0].TargetPort = intstr.FromInt32(9) }, "n1", ":80 -> 10.244.1.1:9,10.244.1.2:9,10.244.1.7:9"},
		{"not ready ones too", func(s *corev1.ServiceSpec) { s.PublishNotReadyAddresses = true }, "n1", ":80 -> 10.244.1.1:8080,10.244.1.2:8081,10.244.1.3:8080,10.244.1.4:8080"},
		{"local to the node", func(s *corev1.ServiceSpec) { s.InternalTrafficPolicy = &local }, "n2", ":80 -> 10.244.1.2:8081"},
		{"both families", family("RequireDualStack"), "n1", ":80 -> 10.244.1.1:8080,10.244.1.2:8081 | :80 -> [fd00:10:244:1::1]:8080,[fd00:10:244:1::2]:8081"},
		{"nobody", func(s *corev1.ServiceSpec) { s.Selector = map[string]string{"app": "x"} }, "n1", ":80 -> "},
		{"headless", asks("None"), "n1", ""},
		{"SCTP", func(s *corev1.ServiceSpec) { s.Ports[0].Protocol = corev1.ProtocolSCTP }, "n1", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := backed(t, svc("web", tc.change), everything)
			if got := targets(service.Frontends([]service.Backed{b}, tc.node)); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestListedEndpoints(t *testing.T) {
	o := svc("web", func(s *corev1.ServiceSpec) { s.Selector = nil })
	list := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: "web-1", Namespace: "shop", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"192.0.2.1"}},
			{Addresses: []string{"192.0.2.2"}, Conditions: discoveryv1.EndpointConditions{Ready: new(false)}},
		},
		Ports: []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(7)), Protocol: new(corev1.ProtocolTCP)}},
	}
	b := backed(t, o, nil, list)
	if got := targets(service.Frontends([]service.Backed{b}, "n1")); got != ":80 -> 192.0.2.1:7" {
		t.Error(got)
	}
	if got := service.Slices(b.Service, b.Endpoints); got != nil {
		t.Errorf("a listed endpoint was listed again: %v", got)
	}
}

func TestSlices(t *testing.T) {
	b := backed(t, svc("web", family("RequireDualStack")), []*corev1.Pod{pod("p1", 8080), pod("p2", 8081, notReady), pod("p3", 8080, terminating)})
	var got []string
	for _, s := range service.Slices(b.Service, b.Endpoints) {
		for _, e := range s.Endpoints {
			got = append(got, fmt.Sprintf("%s %s %s:%d ready=%t serving=%t terminating=%t %s",
				s.Name, s.AddressType, e.Addresses[0], *s.Ports[0].Port, *e.Conditions.Ready, *e.Conditions.Serving, *e.Conditions.Terminating, e.TargetRef.Name))
		}
	}
	want := []string{
		"web-v4-0 IPv4 10.244.1.1:8080 ready=true serving=true terminating=false p1",
		"web-v4-0 IPv4 10.244.1.3:8080 ready=false serving=true terminating=true p3",
		"web-v4-1 IPv4 10.244.1.2:8081 ready=false serving=false terminating=false p2",
		"web-v6-0 IPv6 fd00:10:244:1::1:8080 ready=true serving=true terminating=false p1",
		"web-v6-0 IPv6 fd00:10:244:1::3:8080 ready=false serving=true terminating=true p3",
		"web-v6-1 IPv6 fd00:10:244:1::2:8081 ready=false serving=false terminating=false p2",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
