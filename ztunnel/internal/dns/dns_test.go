package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/wds"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ext(t testing.TB, name string, o proto.Message) []*workloadpb.Extension {
	t.Helper()
	config, err := anypb.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return []*workloadpb.Extension{{Name: name, Config: config}}
}

func store(t testing.TB) *wds.Store {
	t.Helper()
	s := wds.New()
	put := func(name string, a *workloadpb.Address) {
		s.Update(func(c wds.Change) {
			if err := c.Put(name, a); err != nil {
				t.Fatal(err)
			}
		})
	}
	svc := func(name, ns, host string, external bool, ports []*workloadpb.NamedPort, vips ...string) {
		b := &workloadpb.Service{Name: name, Namespace: ns, Hostname: host, Canonical: true, Ports: []*workloadpb.Port{{ServicePort: 80, TargetPort: 8080}}}
		for _, v := range vips {
			b.Addresses = append(b.Addresses, &workloadpb.NetworkAddress{Address: netip.MustParseAddr(v).AsSlice()})
		}
		b.Extensions = ext(t, workloadpb.ServiceExtension, &workloadpb.ServiceOptions{External: external, Ports: ports})
		put(ns+"/"+host, &workloadpb.Address{Type: &workloadpb.Address_Service{Service: b}})
	}
	http := []*workloadpb.NamedPort{{Name: "http", Protocol: "tcp", Port: 80, Target: 8080}, {Name: "dns", Protocol: "udp", Port: 53, Target: 5353}}
	svc("web", "shop", "web.shop.svc.cluster.local", false, http, "10.96.0.5", "fd00::5")
	svc("four", "shop", "four.shop.svc.cluster.local", false, nil, "10.96.0.6")
	svc("db", "shop", "db.shop.svc.cluster.local", false, http)
	svc("partner", "shop", "api.partner.example", true, nil, "240.240.1.1", "2001:2::101")
	svc("wild", "shop", "*.wild.example", true, nil)
	for i, name := range []string{"db-0", "db-1", "gone"} {
		w := &workloadpb.Workload{
			Uid: "c//Pod/shop/" + name, Name: name, Namespace: "shop", Addresses: [][]byte{{10, 244, 0, byte(i + 1)}},
			Services: map[string]*workloadpb.PortList{"shop/db.shop.svc.cluster.local": {Ports: []*workloadpb.Port{{ServicePort: 80, TargetPort: 8080}}}},
		}
		o := &workloadpb.WorkloadOptions{Terminating: name == "gone"}
		if name == "gone" {
			w.Status = workloadpb.WorkloadStatus_UNHEALTHY
		}
		if name == "db-0" {
			o.Hostname, o.Subdomain = "db-0", "db"
		}
		w.Extensions = ext(t, workloadpb.WorkloadExtension, o)
		put(w.Uid, &workloadpb.Address{Type: &workloadpb.Address_Workload{Workload: w}})
	}
	return s
}

// words gives the code and the data of an answer, in a fixed order.
func words(r *dns.Msg) string {
	var data []string
	for _, rr := range r.Answer {
		data = append(data, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(data)
	return strings.Join(append([]string{dns.RcodeToString[r.Rcode]}, data...), " ")
}

func TestRegistry(t *testing.T) {
	r := Registry{Store: store(t), Namespace: "shop", Domain: "cluster.local."}
	for _, tc := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"web.shop.svc.cluster.local.", dns.TypeA, "NOERROR 10.96.0.5"},
		{"WEB.shop.svc.cluster.local.", dns.TypeA, "NOERROR 10.96.0.5"},
		{"web.shop.svc.cluster.local.", dns.TypeAAAA, "NOERROR fd00::5"},
		{"four.shop.svc.cluster.local.", dns.TypeAAAA, "NOERROR"},
		{"web.shop.svc.cluster.local.", dns.TypeMX, "NOERROR"},
		{"nobody.shop.svc.cluster.local.", dns.TypeA, "forward"},
		{"web.shop.svc.cluster.local.shop.svc.cluster.local.", dns.TypeA, "forward"},
		{"db.shop.svc.cluster.local.", dns.TypeA, "NOERROR 10.244.0.1 10.244.0.2"},
		{"db-0.db.shop.svc.cluster.local.", dns.TypeA, "NOERROR 10.244.0.1"},
		{"db-1.db.shop.svc.cluster.local.", dns.TypeA, "forward"},
		{"10-244-0-2.db.shop.svc.cluster.local.", dns.TypeA, "NOERROR 10.244.0.2"},
		{"_http._tcp.web.shop.svc.cluster.local.", dns.TypeSRV, "NOERROR 0 100 80 web.shop.svc.cluster.local."},
		{"_dns._udp.web.shop.svc.cluster.local.", dns.TypeSRV, "NOERROR 0 100 53 web.shop.svc.cluster.local."},
		{"_http._udp.web.shop.svc.cluster.local.", dns.TypeSRV, "NXDOMAIN"},
		{"_http._tcp.db.shop.svc.cluster.local.", dns.TypeSRV, "NOERROR 0 100 8080 10-244-0-2.db.shop.svc.cluster.local. 0 100 8080 db-0.db.shop.svc.cluster.local."},
		{"5.0.96.10.in-addr.arpa.", dns.TypePTR, "NOERROR web.shop.svc.cluster.local."},
		{"1.0.244.10.in-addr.arpa.", dns.TypePTR, "NOERROR db-0.db.shop.svc.cluster.local."},
		{"5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, "NOERROR web.shop.svc.cluster.local."},
		{"9.9.9.9.in-addr.arpa.", dns.TypePTR, "forward"},
		{"api.partner.example.", dns.TypeA, "NOERROR 240.240.1.1"},
		{"api.partner.example.", dns.TypeHTTPS, "NOERROR"},
		{"api.partner.example.", dns.TypeMX, "forward"},
		{"a.wild.example.", dns.TypeA, "wildcard"},
		{"wild.example.", dns.TypeA, "forward"},
		{".", dns.TypeNS, "forward"},
	} {
		t.Run(fmt.Sprint(tc.name, dns.TypeToString[tc.qtype]), func(t *testing.T) {
			q := new(dns.Msg).SetQuestion(tc.name, tc.qtype)
			reply := new(dns.Msg).SetReply(q)
			v, _ := r.Answer(reply, q.Question[0])
			got := map[verdict]string{forward: "forward", wildcard: "wildcard"}[v]
			if v == answered {
				got = words(reply)
				if negative := len(reply.Answer) == 0; negative != (len(reply.Ns) == 1) {
					t.Errorf("authority section %v", reply.Ns)
				}
			}
			if got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

// resolver is one of the pod's, on loopback.
func resolver(t *testing.T, h dns.HandlerFunc) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: h}, {Listener: l, Handler: h}} {
		started, done := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(done); _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown(); <-done })
	}
	return netip.MustParseAddrPort(pc.LocalAddr().String())
}

func testProxy(t testing.TB, backup ...netip.AddrPort) *Proxy {
	return New(Config{
		Registry: Registry{Store: store(t), Namespace: "shop", Domain: "cluster.local."}, Pod: "client", Resolvers: backup,
		Dial: func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, to.String())
		},
		Metrics: NewMetrics(prometheus.NewRegistry()), Log: zap.NewNop(),
	})
}

// rr reads a record.
func rr(t testing.TB, s string) dns.RR {
	r, err := dns.NewRR(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func query(p *Proxy, at netip.AddrPort, name string, qtype uint16) *dns.Msg {
	q := new(dns.Msg).SetQuestion(name, qtype)
	reply, svc := p.local(q)
	if reply == nil {
		reply = p.elsewhere(context.Background(), q, at, svc)
	}
	return reply
}

func TestForwarding(t *testing.T) {
	var asked atomic.Int64
	at := resolver(t, func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		r := new(dns.Msg).SetReply(q)
		switch q.Question[0].Name {
		case "plain.example.", "a.wild.example.", "target.example.":
			r.Answer = []dns.RR{rr(t, q.Question[0].Name+" 60 A 192.0.2.1")}
		case "alias.example.": // into the mesh
			r.Answer = []dns.RR{rr(t, "alias.example. 60 CNAME api.partner.example."), rr(t, "api.partner.example. 60 A 192.0.2.9")}
		case "half.example.": // the resolver does not follow
			r.Answer = []dns.RR{rr(t, "half.example. 60 CNAME target.example.")}
		case "loop.example.":
			r.Answer = []dns.RR{rr(t, "loop.example. 60 CNAME loop.example.")}
		case "big.example.":
			if w.LocalAddr().Network() == "udp" {
				r.Truncated = true
				break
			}
			for i := range 100 {
				r.Answer = append(r.Answer, rr(t, fmt.Sprintf("big.example. 60 A 192.0.2.%d", i)))
			}
		default:
			r.Rcode = dns.RcodeNameError
			r.Ns = []dns.RR{rr(t, "example. 60 SOA ns.example. h.example. 1 2 3 4 30")}
		}
		_ = w.WriteMsg(r)
	})
	p := testProxy(t)
	for name, want := range map[string]string{
		"plain.example.":   "NOERROR 192.0.2.1",
		"none.example.":    "NXDOMAIN",
		"a.wild.example.":  "NOERROR 240.241.",
		"no.wild.example.": "NXDOMAIN",
		"alias.example.":   "NOERROR 240.240.1.1 api.partner.example.",
		"half.example.":    "NOERROR 192.0.2.1 target.example.",
	} {
		if got := words(query(p, at, name, dns.TypeA)); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if r := query(p, at, "loop.example.", dns.TypeA); len(r.Answer) > maxChain+1 {
		t.Errorf("a loop of aliases gave %d records", len(r.Answer))
	}
	before := asked.Load()
	for _, name := range []string{"plain.example.", "none.example."} {
		query(p, at, name, dns.TypeA)
	}
	if n := asked.Load(); n != before {
		t.Errorf("%d questions for what was known", n-before)
	}
	big := query(p, at, "big.example.", dns.TypeA)
	if len(big.Answer) != 100 {
		t.Errorf("a truncated answer was not asked for over TCP: %d records", len(big.Answer))
	}
	q := new(dns.Msg).SetQuestion("big.example.", dns.TypeA)
	for _, size := range []uint16{0, 1232, 4096} {
		if size > 0 {
			q.SetEdns0(size, false)
		}
		wire := pack(big.Copy(), q, false)
		cut := new(dns.Msg)
		if err := cut.Unpack(wire); err != nil || !cut.Truncated || len(wire) > max(512, min(int(size), bufferSize)) || (cut.IsEdns0() != nil) != (size > 0) {
			t.Errorf("EDNS0 %d: %d bytes, truncated %v, %v", size, len(wire), cut.Truncated, err)
		}
		q.Extra = nil
	}
	host, service, ours := p.Name(netip.MustParseAddr(strings.Fields(words(query(p, at, "a.wild.example.", dns.TypeA)))[1]))
	if host != "a.wild.example" || service != "shop/*.wild.example" || !ours {
		t.Errorf("the address stands for %s of %s", host, service)
	}
	got, err := p.Resolve(context.Background(), "a.wild.example", true)
	if err == nil {
		t.Errorf("resolved %v without a resolver", got)
	}
	p.resolvers.saw(at)
	if got, err := p.Resolve(context.Background(), "a.wild.example", true); err != nil || got[0] != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("the host is at %v, %v", got, err)
	}
}

// When the resolver of a query does not answer, another of the pod does.
func TestFailover(t *testing.T) {
	good := resolver(t, func(w dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg).SetReply(q)
		r.Answer = []dns.RR{rr(t, q.Question[0].Name+" 60 A 192.0.2.1")}
		_ = w.WriteMsg(r)
	})
	failing := resolver(t, func(w dns.ResponseWriter, q *dns.Msg) {
		_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))
	})
	p := testProxy(t)
	p.resolvers.saw(good)
	if got := words(query(p, failing, "a.example.", dns.TypeA)); got != "NOERROR 192.0.2.1" {
		t.Error(got)
	}
	alone := testProxy(t)
	if got := words(query(alone, failing, "a.example.", dns.TypeA)); got != "SERVFAIL" {
		t.Error(got)
	}
	if _, err := alone.Resolve(context.Background(), "a.example", true); !errors.Is(err, errNoResolver) {
		t.Error(err)
	}
}

func TestTimesToLive(t *testing.T) {
	c, now := newCache(), time.Unix(1000, 0)
	reply := new(dns.Msg).SetQuestion("a.example.", dns.TypeA)
	reply.Answer = []dns.RR{rr(t, "a.example. 60 A 192.0.2.1"), rr(t, "a.example. 30 A 192.0.2.2")}
	q := question{name: "a.example.", qtype: dns.TypeA}
	c.put(q, reply, now)
	got := c.get(q, now.Add(20*time.Second))
	if got == nil || got.Answer[0].Header().Ttl != 40 || got.Answer[1].Header().Ttl != 10 {
		t.Errorf("after 20 s: %v", got)
	}
	if c.get(q, now.Add(30*time.Second)) != nil {
		t.Error("kept beyond its time")
	}
	negative := new(dns.Msg).SetRcode(new(dns.Msg).SetQuestion("b.example.", dns.TypeA), dns.RcodeNameError)
	if lifetime(negative) != 0 {
		t.Error("a negative answer without SOA is kept")
	}
	negative.Ns = []dns.RR{rr(t, "example. 600 SOA ns. h. 1 2 3 4 7")}
	if lifetime(negative) != 7*time.Second {
		t.Error("a negative answer is kept for", lifetime(negative))
	}
	for i := range 2 * maxCached {
		c.put(question{name: fmt.Sprint(i)}, reply, now)
	}
	if len(c.all) > maxCached {
		t.Errorf("%d answers are kept", len(c.all))
	}
}

func TestNamesAreBoundedAndStable(t *testing.T) {
	n := newNames()
	first, _ := n.of("a.wild.example", "s")
	again, _ := newNames().of("a.wild.example", "s")
	if first != again {
		t.Errorf("%s, then %s", first, again)
	}
	seen := map[netip.Addr]bool{}
	for i := range maxNames {
		a, _ := n.of(fmt.Sprintf("%d.wild.example", i), "s")
		if seen[a] {
			t.Fatalf("%s twice", a)
		}
		seen[a] = true
	}
	if n.used.Len() != maxNames || len(n.byName) != maxNames || len(n.bySlot) != maxNames {
		t.Errorf("%d names, %d, %d", n.used.Len(), len(n.byName), len(n.bySlot))
	}
	if host, _, ours := n.at(first); !ours || host == "a.wild.example" {
		t.Errorf("the oldest name is still there: %q", host)
	}
}

func FuzzQuery(f *testing.F) {
	for _, name := range []string{"web.shop.svc.cluster.local.", "_http._tcp.db.shop.svc.cluster.local.", "5.0.96.10.in-addr.arpa."} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeSRV, dns.TypePTR, dns.TypeANY} {
			q := new(dns.Msg).SetQuestion(name, qtype)
			q.SetEdns0(1232, true)
			wire, err := q.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(wire)
		}
	}
	p := testProxy(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		q := p.read(b, "udp")
		if q == nil {
			return
		}
		reply, svc := p.local(q)
		if reply == nil {
			reply = p.elsewhere(context.Background(), q, netip.AddrPort{}, svc)
		}
		for _, stream := range []bool{false, true} {
			wire := pack(reply.Copy(), q, stream)
			if wire == nil {
				continue
			}
			got := new(dns.Msg)
			if err := got.Unpack(wire); err != nil || got.Id != q.Id || !got.Response || !stream && len(wire) > bufferSize {
				t.Errorf("%d bytes, %v: %v", len(wire), err, got)
			}
		}
	})
}
