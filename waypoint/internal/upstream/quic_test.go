package upstream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/masque"
	"github.com/ambit-mesh/ambit/internal/testkit"
	"github.com/ambit-mesh/ambit/internal/tunnel"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// endpointBed is a dialer, and an endpoint that answers datagrams through its tunnels.
type endpointBed struct {
	t        *testing.T
	dialer   *Dialer
	workload *wds.Workload
	self     *wds.Workload
	mu       sync.Mutex
	asked    []*tunnel.Ask // guarded by mu
}

// newEndpointBed has the endpoint take tunnels over TCP, and over QUIC if that is said.
// Its address is one that nobody else has: the port is always the same.
func newEndpointBed(t *testing.T, addr string, quic bool) *endpointBed {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) })
	b := &endpointBed{t: t, self: &wds.Workload{Name: "wp", Namespace: "shop"}}
	ca := testkit.NewCA(t)
	own, waypoint := ca.Workload("shop", "game"), ca.Workload("shop", "wp")
	at := netip.AddrPortFrom(netip.MustParseAddr(addr), tunnelPort)
	b.workload = &wds.Workload{
		UID: "game", Name: "game", Namespace: "shop", TrustDomain: own.ID.TrustDomain, ServiceAccount: "game", Node: "n2", Addresses: []netip.Addr{at.Addr()},
		HBONE: true, UDP: true, HTTP3: true, HTTP3UDP: true,
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	get := func() (*identity.Certificate, error) { return own, nil }
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				sc, err := hbone.NewServerConn(ctx, c, identity.ServerConfig(get), hbone.Config{Protocol: masque.Protocol}, func(_ context.Context, in *hbone.Incoming) { b.serve(tunnel.AskHTTP2(in)) })
				if err == nil {
					_ = sc.Run(ctx)
				}
			})
		}
	})
	if quic {
		sock, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		server, err := hbone3.NewServer(sock, identity.QUICServerConfig(get), hbone3.Config{}, func(_ context.Context, in *hbone3.Incoming) { b.serve(tunnel.AskHTTP3(in)) })
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { _ = server.Run(ctx) })
	}
	b.dialer = &Dialer{
		Certificate: func(context.Context) (*identity.Certificate, error) { return waypoint, nil },
		HBONE3:      hbone3.Config{HandshakeTimeout: 200 * time.Millisecond}, Reach: tunnel.NewReach(prometheus.NewRegistry(), zap.NewNop()),
		Self: func() *wds.Workload { return b.self }, Workload: func(netip.Addr) *wds.Workload { return b.workload },
	}
	if quic {
		b.dialer.HBONE3.HandshakeTimeout = 0 // a machine may be slow
	}
	b.dialer.Open()
	t.Cleanup(func() {
		over, stop := context.WithCancel(context.Background())
		stop()
		b.dialer.Close(over)
		cancel()
		_ = l.Close()
		wg.Wait()
	})
	return b
}

// serve answers each datagram with itself, to the end of the session.
func (b *endpointBed) serve(a *tunnel.Ask) {
	b.mu.Lock()
	b.asked = append(b.asked, a)
	b.mu.Unlock()
	way, err := a.AcceptUDP()
	if err != nil {
		return
	}
	_ = way.Receive(func(p []byte, more bool) { _ = way.Send(p, more) })
	way.Close(true)
}

var gameClient = &Client{ID: identity.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "web"}, Address: netip.MustParseAddrPort("192.0.2.7:4000")}

// session opens one, has a datagram come back, and gives its transport.
func (b *endpointBed) session() string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	up, via, err := b.dialer.ConnectUDP(ctx, nil, wds.Endpoint{Workload: b.workload, Port: 7000}, gameClient, time.Minute)
	if err != nil {
		b.t.Fatal(err)
	}
	if via.Traceparent() == "" {
		b.t.Error("the session has no context")
	}
	got, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		_ = up.Receive(func(p []byte, _ bool) {
			if p != nil {
				got <- string(p)
			}
		})
	}()
	defer func() { _ = up.Close(); <-ended }()
	if err := up.Send([]byte("ping"), false); err != nil {
		b.t.Fatal(err)
	}
	if p := <-got; p != "ping" {
		b.t.Errorf("came back: %q", p)
	}
	err = up.Send(make([]byte, 4000), false)
	var drop *DropError
	if large := errors.As(err, &drop) && drop.Reason == DropTooLarge; large != (up.Transport() == tunnel.H3) {
		b.t.Errorf("a large datagram over %s: %v", up.Transport(), err)
	}
	return up.Transport()
}

// Sessions go to an endpoint over HTTP/3, with the client's name, unless one of both
// ends does not want that.
func TestConnectUDPOverHTTP3(t *testing.T) {
	b := newEndpointBed(t, "127.15.8.1", true)
	if got := b.session(); got != tunnel.H3 {
		t.Errorf("over %s", got)
	}
	b.self.Transport = workloadpb.Transport_H2
	if got := b.session(); got != tunnel.H2 {
		t.Errorf("over %s, which the waypoint does not want", got)
	}
	b.self.Transport, b.workload.Transport = workloadpb.Transport_H3, workloadpb.Transport_H2
	if got := b.session(); got != tunnel.H2 {
		t.Errorf("over %s, which the endpoint does not want", got)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range b.asked {
		if a.Get(fieldSource) != gameClient.ID.String() || !strings.Contains(a.Get(fieldForwarded), "192.0.2.7:4000") || a.Path != masque.Path(netip.MustParseAddrPort("127.15.8.1:7000")) {
			t.Errorf("over %s: %v, %s", a.Transport, a.Fields, a.Path)
		}
	}
	if len(b.asked) != 3 {
		t.Errorf("%d sessions came", len(b.asked))
	}
}

// Where nothing answers over QUIC, HTTP/2 is used, and the next session does not find
// that out again.
func TestConnectUDPFallsBack(t *testing.T) {
	b := newEndpointBed(t, "127.15.8.2", false)
	if got := b.session(); got != tunnel.H2 {
		t.Errorf("over %s", got)
	}
	if b.dialer.wantsQUIC(b.workload) {
		t.Error("it is not remembered that QUIC does not get through")
	}
	if got := b.session(); got != tunnel.H2 {
		t.Errorf("over %s", got)
	}
}
