package dns_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/internal/local/dns"
	"github.com/ambit-mesh/ambit/internal/local/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func addrs(all ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range all {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func zone() *dns.Zone {
	dual := []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	port := func(n int32) []service.Port {
		return []service.Port{{Name: "sql", Protocol: corev1.ProtocolTCP, Port: 5432, Target: n}}
	}
	svc := func(name string, spec corev1.ServiceSpec) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop"}, Spec: spec}
	}
	return dns.NewZone("cluster.local", []string{"shop", "empty"}, []service.Backed{
		{Service: svc("web", corev1.ServiceSpec{
			ClusterIP: "10.96.0.5", ClusterIPs: []string{"10.96.0.5", "fd00:10:96::5"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}, {Port: 81, Protocol: corev1.ProtocolTCP}},
		})},
		{Service: svc("four", corev1.ServiceSpec{ClusterIP: "10.96.0.6", ClusterIPs: []string{"10.96.0.6"}})},
		{Service: svc("out", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "web.shop.svc.cluster.local"})},
		{Service: svc("loop", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "loop.shop.svc.cluster.local"})},
		{Service: svc("db", corev1.ServiceSpec{ClusterIP: "None", IPFamilies: dual}), Endpoints: []service.Endpoint{
			{Addrs: addrs("10.244.1.2", "fd00:10:244:1::2"), Hostname: "db-0", Ports: port(15432), Ready: true},
			{Addrs: addrs("10.244.2.2"), Ports: port(5432), Ready: true},
			{Addrs: addrs("10.244.2.9"), Hostname: "db-9", Ports: port(5432)},
		}},
	})
}

func ask(name string, qtype uint16) *mdns.Msg {
	q := new(mdns.Msg).SetQuestion(name, qtype)
	reply := new(mdns.Msg).SetReply(q)
	zone().Answer(reply, q.Question[0])
	return reply
}

func TestAnswers(t *testing.T) {
	for _, tc := range []struct {
		name  string
		qtype uint16
		want  string // rcode, then the answers' data
	}{
		{"web.shop.svc.cluster.local.", mdns.TypeA, "NOERROR 10.96.0.5"},
		{"WEB.Shop.svc.cluster.LOCAL.", mdns.TypeA, "NOERROR 10.96.0.5"},
		{"web.shop.svc.cluster.local.", mdns.TypeAAAA, "NOERROR fd00:10:96::5"},
		{"four.shop.svc.cluster.local.", mdns.TypeAAAA, "NOERROR"},
		{"web.shop.svc.cluster.local.", mdns.TypeMX, "NOERROR"},
		{"none.shop.svc.cluster.local.", mdns.TypeA, "NXDOMAIN"},
		{"web.shop.svc.cluster.local.svc.cluster.local.", mdns.TypeA, "NXDOMAIN"},
		{"shop.svc.cluster.local.", mdns.TypeA, "NOERROR"},
		{"empty.svc.cluster.local.", mdns.TypeA, "NOERROR"},
		{"other.svc.cluster.local.", mdns.TypeA, "NXDOMAIN"},
		{"svc.cluster.local.", mdns.TypeA, "NOERROR"},
		{"_tcp.web.shop.svc.cluster.local.", mdns.TypeA, "NOERROR"},
		{"_http._tcp.web.shop.svc.cluster.local.", mdns.TypeSRV, "NOERROR 0 100 80 web.shop.svc.cluster.local."},
		{"_sql._tcp.db.shop.svc.cluster.local.", mdns.TypeSRV, "NOERROR 0 100 15432 db-0.db.shop.svc.cluster.local. 0 100 5432 10-244-2-2.db.shop.svc.cluster.local."},
		{"db.shop.svc.cluster.local.", mdns.TypeA, "NOERROR 10.244.1.2 10.244.2.2"},
		{"db.shop.svc.cluster.local.", mdns.TypeAAAA, "NOERROR fd00:10:244:1::2"},
		{"db-0.db.shop.svc.cluster.local.", mdns.TypeA, "NOERROR 10.244.1.2"},
		{"db-9.db.shop.svc.cluster.local.", mdns.TypeA, "NXDOMAIN"},
		{"out.shop.svc.cluster.local.", mdns.TypeA, "NOERROR web.shop.svc.cluster.local. 10.96.0.5"},
		{"5.0.96.10.in-addr.arpa.", mdns.TypePTR, "NOERROR web.shop.svc.cluster.local."},
		{"2.1.244.10.in-addr.arpa.", mdns.TypePTR, "NOERROR db-0.db.shop.svc.cluster.local."},
		{"9.9.9.9.in-addr.arpa.", mdns.TypePTR, "NXDOMAIN"},
		{"example.com.", mdns.TypeA, "REFUSED"},
		{".", mdns.TypeNS, "REFUSED"},
	} {
		t.Run(fmt.Sprint(tc.name, mdns.TypeToString[tc.qtype]), func(t *testing.T) {
			r := ask(tc.name, tc.qtype)
			words := []string{mdns.RcodeToString[r.Rcode]}
			for _, rr := range r.Answer {
				words = append(words, strings.TrimPrefix(rr.String(), rr.Header().String()))
			}
			if got := strings.Join(words, " "); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
			if negative := r.Rcode == mdns.RcodeNameError || r.Rcode == mdns.RcodeSuccess && len(r.Answer) == 0; negative != (len(r.Ns) == 1) {
				t.Errorf("authority section %v", r.Ns)
			}
		})
	}
}

func TestAliasLoopEnds(t *testing.T) {
	if r := ask("loop.shop.svc.cluster.local.", mdns.TypeA); len(r.Answer) == 0 || len(r.Answer) > 10 {
		t.Errorf("%d answers", len(r.Answer))
	}
}

func TestServiceAddressesComeWithSRV(t *testing.T) {
	r := ask("_http._tcp.web.shop.svc.cluster.local.", mdns.TypeSRV)
	if len(r.Extra) != 2 {
		t.Errorf("additional section %v", r.Extra)
	}
}

// serve runs a server with a zone on loopback, and gives its addresses.
func serve(t *testing.T, z *dns.Zone) (udp, tcp string) {
	t.Helper()
	s, err := dns.ListenOn(0, netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	s.Set(z)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	addrs := s.Addrs()
	return addrs[0].String(), addrs[1].String()
}

func TestServer(t *testing.T) {
	udp, tcp := serve(t, zone())
	for network, addr := range map[string]string{"udp": udp, "tcp": tcp} {
		c := &mdns.Client{Net: network}
		r, _, err := c.Exchange(new(mdns.Msg).SetQuestion("db.shop.svc.cluster.local.", mdns.TypeA), addr)
		if err != nil {
			t.Fatalf("%s: %v", network, err)
		}
		var got []string
		for _, rr := range r.Answer {
			got = append(got, rr.(*mdns.A).A.String())
		}
		slices.Sort(got)
		if !slices.Equal(got, []string{"10.244.1.2", "10.244.2.2"}) {
			t.Errorf("%s: %v", network, got)
		}
	}
}

func TestLongAnswersAreTruncated(t *testing.T) {
	b := service.Backed{Service: &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "big", Namespace: "a"},
		Spec:       corev1.ServiceSpec{ClusterIP: "None", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}},
	}}
	for i := range 200 {
		b.Endpoints = append(b.Endpoints, service.Endpoint{Addrs: addrs(fmt.Sprintf("10.244.1.%d", i)), Ready: true})
	}
	udp, tcp := serve(t, dns.NewZone("cluster.local", nil, []service.Backed{b}))
	q := new(mdns.Msg).SetQuestion("big.a.svc.cluster.local.", mdns.TypeA)
	r, _, err := (&mdns.Client{Net: "udp"}).Exchange(q, udp)
	r.Compress = true
	if err != nil || !r.Truncated || r.Len() > mdns.MinMsgSize {
		t.Errorf("over udp: truncated %v, %d bytes, %v", r.Truncated, r.Len(), err)
	}
	r, _, err = (&mdns.Client{Net: "tcp"}).Exchange(q, tcp)
	if err != nil || len(r.Answer) != 200 {
		t.Errorf("over tcp: %d answers, %v", len(r.Answer), err)
	}
}
