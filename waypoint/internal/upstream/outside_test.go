package upstream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/ambit-mesh/ambit/internal/wds"
)

func TestOutsideName(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.7:443")
	for name, tc := range map[string]struct {
		svc    wds.Service
		w      wds.Workload
		client Client
		want   string
	}{
		"by name":                    {wds.Service{Hostname: "a.example"}, wds.Workload{Hostname: "a.example"}, Client{Host: "a.example"}, "a.example.:80"},
		"below a wildcard":           {wds.Service{Hostname: "*.example"}, wds.Workload{Hostname: "*.example"}, Client{Host: "b.example"}, "b.example.:80"},
		"a wildcard and no name":     {wds.Service{Hostname: "*.example"}, wds.Workload{Hostname: "*.example"}, Client{}, ""},
		"given":                      {wds.Service{Hostname: "a.example"}, wds.Workload{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, Client{Host: "a.example"}, "192.0.2.1:80"},
		"of the client's family":     {wds.Service{Hostname: "a.example"}, wds.Workload{Addresses: []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")}}, Client{To: at}, "192.0.2.1:80"},
		"where the client wants":     {wds.Service{Hostname: "a.example", Passthrough: true}, wds.Workload{}, Client{To: at}, "192.0.2.7:443"},
		"as it is, below a wildcard": {wds.Service{Hostname: "*.example", Passthrough: true}, wds.Workload{Hostname: "x.example"}, Client{To: at, Host: "b.example"}, "192.0.2.7:443"},
	} {
		if got := outsideName(&tc.svc, wds.Endpoint{Workload: &tc.w, Port: 80}, &tc.client); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// resolver answers every name with an address.
func resolver(t *testing.T, a string) *net.Resolver {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: c, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		reply := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			reply.Answer = append(reply.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.ParseIP(a)})
		}
		_ = w.WriteMsg(reply)
	})}
	started := make(chan struct{})
	s.NotifyStartedFunc = func() { close(started) }
	done := make(chan struct{})
	go func() { defer close(done); _ = s.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { _ = s.Shutdown(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", c.LocalAddr().String())
	}}
}

// Whatever a name resolves to: nobody gets to what listens for the waypoint itself.
func TestOutsideIsNotTheWaypoint(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port) // #nosec G115 -- a port
	addrs := []string{"127.0.0.1", "127.1.2.3", "0.0.0.0", "169.254.1.1", "224.0.0.1"}
	list, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		if n, ok := i.(*net.IPNet); ok && n.IP.To4() != nil {
			addrs = append(addrs, n.IP.String())
		}
	}
	for _, a := range addrs {
		d := &Dialer{Timeout: 10 * time.Second, Resolver: resolver(t, a)}
		svc := &wds.Service{Key: "shop/a.example", Hostname: "a.example", External: true}
		c, _, err := d.Connect(t.Context(), svc, wds.Endpoint{Workload: &wds.Workload{Hostname: "a.example"}, Port: port}, &Client{Host: "a.example"}, 0)
		if err == nil {
			_ = c.Close()
		}
		var connect *ConnectError
		if !errors.Is(err, ErrProhibited) || !errors.As(err, &connect) || !strings.HasPrefix(connect.Endpoint, "a.example.:") {
			t.Errorf("%s: %v", a, err)
		}
	}
}

// Whatever a name resolves to, and whatever address is given for a host: the enrolled
// are not reached in plaintext, and what is not enrolled is.
func TestOutsideIsNotTheEnrolled(t *testing.T) {
	// A documentation address cannot be connected to; that it is tried is enough.
	pod, other := "192.0.2.77", "192.0.2.78"
	asked := make(map[string]bool)
	d := &Dialer{Resolver: resolver(t, pod), Enrolled: func(a netip.Addr) (string, bool) {
		asked[a.String()] = true
		return "workload shop/cart", a.Unmap().String() == pod
	}}
	svc := &wds.Service{Key: "shop/a.example", Hostname: "a.example", External: true}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	given := func(a string) wds.Endpoint {
		return wds.Endpoint{Workload: &wds.Workload{Addresses: []netip.Addr{netip.MustParseAddr(a)}}, Port: 80}
	}
	for name, ep := range map[string]wds.Endpoint{
		"by name": {Workload: &wds.Workload{Hostname: "a.example"}, Port: 80}, "given": given(pod), "mapped": given("::ffff:" + pod),
	} {
		_, _, err := d.Connect(ctx, svc, ep, &Client{Host: "a.example"}, time.Minute)
		if !errors.Is(err, ErrProhibited) || !strings.Contains(err.Error(), "workload shop/cart") || !strings.Contains(err.Error(), pod) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := d.Connect(ctx, svc, given(other), &Client{}, time.Millisecond); errors.Is(err, ErrProhibited) || !asked[other] {
		t.Errorf("what is not enrolled: %v, asked about %v", err, asked)
	}
	set := NewSet(Config{Store: wds.New(), Dialer: d})
	for _, addr := range []string{"a.example:80", pod + ":80"} {
		if _, err := set.DialName(ctx, addr, "shop"); !errors.Is(err, ErrProhibited) {
			t.Errorf("by the waypoint itself, %s: %v", addr, err)
		}
	}
}
