package waypoint

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/quic-go"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/flow"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/testkit"
	"github.com/ambit-mesh/ambit/internal/tunnel"
	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/waypoint/internal/frontend"
	"github.com/ambit-mesh/ambit/waypoint/internal/proxy"
	"github.com/ambit-mesh/ambit/waypoint/internal/upstream"
)

// quicBed is a waypoint's tunnels in front of a pod with an echo of datagrams.
type quicBed struct {
	t     *testing.T
	ca    *testkit.CA
	own   *identity.Certificate
	pod   netip.AddrPort
	proxy *proxy.Proxy
}

func newQUICBed(t *testing.T) *quicBed {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) })
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
			_, _ = echo.WriteToUDPAddrPort(buf[:n], from)
		}
	})
	t.Cleanup(func() { _ = echo.Close(); wg.Wait() })
	b := &quicBed{t: t, ca: testkit.NewCA(t), pod: netip.MustParseAddrPort(echo.LocalAddr().String())}
	b.own = b.ca.Workload("shop", "wp")
	self := netip.MustParseAddr("192.0.2.15")
	store := wds.New()
	store.Update(func(c wds.Change) {
		for _, w := range []*workloadpb.Workload{
			{Uid: "wp", Name: "wp", Namespace: "shop", Addresses: [][]byte{self.AsSlice()}},
			{Uid: "game", Name: "game", Namespace: "shop", Addresses: [][]byte{b.pod.Addr().AsSlice()}, Waypoint: &workloadpb.GatewayAddress{
				Destination: &workloadpb.GatewayAddress_Address{Address: &workloadpb.NetworkAddress{Address: self.AsSlice()}}, HboneMtlsPort: 15008,
			}},
		} {
			if err := c.Put(w.GetUid(), &workloadpb.Address{Type: &workloadpb.Address_Workload{Workload: w}}); err != nil {
				t.Fatal(err)
			}
		}
	})
	dialer := &upstream.Dialer{}
	dialer.Open()
	b.proxy = proxy.New(proxy.Config{
		Gateway: "shop/wp", Store: store, Frontends: frontend.New(nil, nil), Dialer: dialer, UDPSessions: 10, Flows: flow.NewLog(16),
		Self:    func() *wds.Workload { return store.Workload(self) },
		Metrics: proxy.NewMetrics(prometheus.NewRegistry()), Log: zap.NewNop(), Access: zap.NewNop(),
	})
	t.Cleanup(func() {
		b.proxy.Close()
		over, cancel := context.WithCancel(context.Background())
		cancel()
		dialer.Close(over)
	})
	return b
}

// start runs tunnels at an address until they are told to stop; wait waits for that.
func (b *quicBed) start(address string, drain time.Duration) (at netip.AddrPort, stop func(), wait <-chan error) {
	b.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		b.t.Fatal(err)
	}
	tn := &tunnels{
		listener: l, certificate: func(context.Context) (*identity.Certificate, error) { return b.own, nil }, proxy: b.proxy, drain: drain, log: zap.NewNop(),
		handshakes: make(chan struct{}, 16), conns: make(map[*hbone.ServerConn]struct{}),
	}
	if err := tn.listenQUIC("u-1", hbone3.Config{}); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- tn.Run(ctx) }()
	return netip.MustParseAddrPort(l.Addr().String()), cancel, ended
}

// client is the node of a client, with tunnels over QUIC to an address.
func (b *quicBed) client(at netip.AddrPort) *hbone3.Pool[tunnel.Key] {
	b.t.Helper()
	cfg, err := b.ca.Workload("shop", "client").QUICClientConfig(b.own.ID)
	if err != nil {
		b.t.Fatal(err)
	}
	sock, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.t.Fatal(err)
	}
	tr := &quic.Transport{Conn: sock}
	pool := hbone3.NewPool(func(ctx context.Context, _ tunnel.Key) (*hbone3.ClientConn, error) {
		return hbone3.Dial(ctx, tr, at, cfg, hbone3.Config{})
	})
	b.t.Cleanup(func() {
		over, cancel := context.WithCancel(context.Background())
		cancel()
		pool.Drain(over)
		_ = tr.Close()
		_ = sock.Close()
	})
	return pool
}

// session begins one and has a datagram come back.
func (b *quicBed) session(pool *hbone3.Pool[tunnel.Key], at netip.AddrPort) (s *tunnel.Session, got chan string, ended chan error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	s, err := (tunnel.Pools{H3: pool}).OpenUDP(ctx, tunnel.Key{Addr: at}, true, b.pod, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	got, ended = make(chan string, 16), make(chan error, 1)
	go func() { ended <- s.Receive(func(p []byte, _ bool) { got <- string(p) }) }()
	b.ask(s, got)
	return s, got, ended
}

func (b *quicBed) ask(s *tunnel.Session, got <-chan string) {
	b.t.Helper()
	if err := s.Send([]byte("ping"), false); err != nil {
		b.t.Fatal(err)
	}
	if p := <-got; p != "ping" {
		b.t.Fatalf("came back: %q", p)
	}
}

// A waypoint that stops takes no new sessions over QUIC, and says so at once; those
// that it has go on until they end, or its time is up.
func TestDrainOverQUIC(t *testing.T) {
	for what, drain := range map[string]time.Duration{"until they end": -1, "until the time is up": 100 * time.Millisecond} {
		t.Run(what, func(t *testing.T) {
			b := newQUICBed(t)
			at, stop, stopped := b.start("127.0.0.1:0", drain)
			defer stop()
			s, got, ended := b.session(b.client(at), at)
			stop()
			if drain < 0 {
				late := b.client(at)
				testkit.Until(t, "who comes is refused", func() bool {
					s, _, _, err := late.Open(t.Context(), tunnel.Key{}, hbone.Request{Authority: "127.0.0.1:1"})
					if err == nil {
						s.Reset(hbone.CodeCancel)
					}
					return hbone3.Unavailable(err) && !hbone3.Unreachable(err)
				})
				b.ask(s, got)
				s.Close(true)
			}
			if err := <-stopped; err != nil {
				t.Error(err)
			}
			if err := <-ended; drain > 0 && err == nil {
				t.Error("a session that was broken off ended in order")
			}
		})
	}
}

// mortal is a socket of a process that may be killed: nothing is sent any more.
type mortal struct {
	*net.UDPConn
	dead atomic.Bool
}

// WriteMsgUDP is that of the socket of a living process.
func (m *mortal) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (int, int, error) {
	if m.dead.Load() {
		return len(b), len(oob), nil
	}
	return m.UDPConn.WriteMsgUDP(b, oob, to)
}

// Who had tunnels over QUIC with a process that is gone without a word hears from the
// next one of the pod that they are gone, and not after a time in which nothing comes.
func TestResetsOfFormerProcesses(t *testing.T) {
	if a := resetKey("u-1"); *a != *resetKey("u-1") || *a == *resetKey("u-2") || resetKey("") != nil {
		t.Error("the key is not the pod's own")
	}
	b := newQUICBed(t)
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	at, sock := netip.MustParseAddrPort(c.LocalAddr().String()), &mortal{UDPConn: c}
	server := identity.QUICServerConfig(func() (*identity.Certificate, error) { return b.own, nil })
	ctx, cancel := context.WithCancel(context.Background())
	former, err := hbone3.NewServer(sock, server, hbone3.Config{ResetKey: resetKey("u-1")}, func(_ context.Context, in *hbone3.Incoming) { b.proxy.ServeDatagrams(ctx, in) })
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- former.Run(ctx) }()
	s, _, broken := b.session(b.client(at), at)
	sock.dead.Store(true)
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	_, stop, stopped := b.start(at.String(), 0)
	testkit.Until(t, "the client hears of it", func() bool {
		_ = s.Send([]byte("still there?"), false)
		select {
		case err := <-broken:
			if err == nil {
				t.Error("the session ended in order")
			}
			return true
		default:
			return false
		}
	})
	stop()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
