package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/flow"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/masque"
	"github.com/ambit-mesh/ambit/internal/testkit"
	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/waypoint/internal/frontend"
	"github.com/ambit-mesh/ambit/waypoint/internal/upstream"
)

// A client has its sessions, whatever others do, and each that ends makes room.
func TestSessionsAreCountedByClient(t *testing.T) {
	s := &sessions{max: 8}
	pod, other := clientKey{uid: "a"}, clientKey{addr: netip.MustParseAddr("192.0.2.1")}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var leave []func()
	for range 100 {
		wg.Go(func() {
			if l, ok := s.enter(pod); ok {
				mu.Lock()
				defer mu.Unlock()
				leave = append(leave, l)
			}
		})
	}
	wg.Wait()
	if len(leave) != s.max {
		t.Fatalf("%d sessions, want %d", len(leave), s.max)
	}
	if l, ok := s.enter(other); !ok {
		t.Error("another client is refused")
	} else {
		l()
	}
	for _, l := range leave {
		wg.Go(l)
	}
	wg.Wait()
	if len(s.of) != 0 {
		t.Errorf("what is left: %v", s.of)
	}
}

// udpBed is a proxy that serves a pod with an echo of datagrams, and clients of it.
type udpBed struct {
	t        *testing.T
	registry *prometheus.Registry
	addr     string // of the proxy
	pod      netip.AddrPort
	tls      func(account string) *hbone.ClientConn
	clients  []netip.Addr // both of one workload
	proxy    *Proxy
	quic     func(account string) *quicClient
	grow     atomic.Int32 // how much larger answers are, in bytes
	access   logged
}

func newUDPBed(t *testing.T, sessions int) *udpBed {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) })
	b := &udpBed{t: t, registry: prometheus.NewRegistry()}
	echo, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := echo.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = echo.WriteToUDPAddrPort(append(buf[:n:n], make([]byte, b.grow.Load())...), from)
		}
	})
	t.Cleanup(func() { _ = echo.Close(); wg.Wait() })
	b.pod = netip.MustParseAddrPort(echo.LocalAddr().String())
	b.clients = []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")}
	waypoint := netip.MustParseAddr("192.0.2.15")
	store := wds.New()
	store.Update(func(c wds.Change) {
		for _, w := range []*workloadpb.Workload{
			{Uid: "wp", Name: "wp", Namespace: "shop", Addresses: [][]byte{waypoint.AsSlice()}},
			{Uid: "game", Name: "game", Namespace: "shop", ServiceAccount: "game", Addresses: [][]byte{b.pod.Addr().AsSlice()}, Waypoint: &workloadpb.GatewayAddress{
				Destination: &workloadpb.GatewayAddress_Address{Address: &workloadpb.NetworkAddress{Address: waypoint.AsSlice()}}, HboneMtlsPort: 15008,
			}},
			{Uid: "client", Name: "client", Namespace: "shop", ServiceAccount: "client", Addresses: [][]byte{b.clients[0].AsSlice(), b.clients[1].AsSlice()}},
		} {
			if err := c.Put(w.GetUid(), &workloadpb.Address{Type: &workloadpb.Address_Workload{Workload: w}}); err != nil {
				t.Fatal(err)
			}
		}
	})
	dialer := &upstream.Dialer{}
	dialer.Open()
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{}), &b.access, zap.InfoLevel)
	p := New(Config{
		Gateway: "shop/wp", Store: store, Frontends: frontend.New(nil, nil), Dialer: dialer, UDPSessions: sessions, Flows: flow.NewLog(16),
		Self:    func() *wds.Workload { return store.Workload(waypoint) },
		Metrics: NewMetrics(b.registry), Log: zap.NewNop(), Access: zap.New(core),
	})
	b.proxy = p
	t.Cleanup(func() {
		p.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		dialer.Close(ctx)
	})
	b.serve(p)
	return b
}

// serve has the proxy take tunnels on loopback.
func (b *udpBed) serve(p *Proxy) {
	ca := testkit.NewCA(b.t)
	own := ca.Workload("shop", "wp")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	b.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				sc, err := hbone.NewServerConn(ctx, c, identity.ServerConfig(func() (*identity.Certificate, error) { return own, nil }), hbone.Config{Protocol: masque.Protocol}, p.ServeStream)
				if err == nil {
					_ = sc.Run(ctx)
				}
			})
		}
	})
	b.t.Cleanup(func() { cancel(); _ = l.Close(); wg.Wait() })
	b.serveQUIC(ca, own)
	b.tls = func(account string) *hbone.ClientConn {
		b.t.Helper()
		from := b.clients[0]
		account, second := strings.CutSuffix(account, " by its second address")
		if second {
			from = b.clients[1]
		}
		cfg, err := ca.Workload("shop", account).ClientConfig(own.ID)
		if err != nil {
			b.t.Fatal(err)
		}
		sock, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}).Dial("tcp", b.addr)
		if err != nil {
			b.t.Fatal(err)
		}
		cc, err := hbone.NewClientConn(ctx, sock, cfg, hbone.Config{})
		if err != nil {
			b.t.Fatal(err)
		}
		wg.Go(func() { _ = cc.Run(ctx) })
		return cc
	}
}

// open begins a session and has one datagram come back.
func (b *udpBed) open(cc *hbone.ClientConn) (*hbone.StreamConn, error) {
	b.t.Helper()
	s, _, err := cc.Open(b.t.Context(), hbone.Request{
		Authority: b.addr, Protocol: masque.Protocol, Path: masque.Path(b.pod), Fields: []hbone.Field{{Name: masque.CapsuleField, Value: masque.CapsuleValue}},
	})
	if err != nil {
		return nil, err
	}
	conn := s.Conn(cc.LocalAddr(), net.TCPAddrFromAddrPort(b.pod))
	if err := masque.NewStream(conn).Send([]byte("ping"), false); err != nil {
		b.t.Fatal(err)
	}
	p, err := masque.NewCapsuleReader(conn).Next()
	if err != nil || string(p[1:]) != "ping" {
		b.t.Fatalf("came back: %q, %v", p, err)
	}
	return conn, nil
}

// A session beyond what a client may have is refused by the name of the limit, and
// counted; another client has its own, and what ends makes room.
func TestSessionsBeyondTheLimitAreRefused(t *testing.T) {
	b := newUDPBed(t, 2)
	cc, second, stranger := b.tls("client"), b.tls("client by its second address"), b.tls("stranger")
	first, err := b.open(cc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.open(second); err != nil {
		t.Fatal(err)
	}
	for what, cc := range map[string]*hbone.ClientConn{"its first address": cc, "its second": second} {
		_, err = b.open(cc)
		var r *hbone.RefusedError
		if !errors.As(err, &r) || r.Status != 502 || !strings.Contains(r.ProxyStatus, "connection_limit_reached") || !strings.Contains(r.ProxyStatus, "limit udp_sessions") || !strings.Contains(r.ProxyStatus, "--max-udp-sessions") {
			t.Errorf("a third session from %s: %v", what, err)
		}
	}
	want := `
# HELP ambit_requests_rejected_total Requests that were malformed or exceeded a limit, and were answered without looking further, by the name of the limit; udp_sessions counts sessions beyond those that a client may have, and idle_timeout connections that had no request for too long.
# TYPE ambit_requests_rejected_total counter
ambit_requests_rejected_total{limit="udp_sessions",status="502"} 2
# HELP ambit_waypoint_connections_total Connections that were passed on as they are, TCP and TLS, and sessions of UDP.
# TYPE ambit_waypoint_connections_total counter
ambit_waypoint_connections_total{response_flags="UO",service=""} 2
`
	if err := testutil.GatherAndCompare(b.registry, strings.NewReader(want), "ambit_requests_rejected_total", "ambit_waypoint_connections_total"); err != nil {
		t.Error(err)
	}
	for range 2 {
		if _, err := b.open(stranger); err != nil {
			t.Errorf("another client: %v", err)
		}
	}
	_ = first.Close()
	testkit.Until(t, "what has ended makes room", func() bool {
		_, err := b.open(cc)
		return err == nil
	})
}
