package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/quic-go/quic-go"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/masque"
	"github.com/ambit-mesh/ambit/internal/testkit"
	"github.com/ambit-mesh/ambit/internal/tunnel"
)

// serveQUIC has the proxy take tunnels over QUIC on loopback.
func (b *udpBed) serveQUIC(ca *testkit.CA, own *identity.Certificate) {
	b.t.Helper()
	sock, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.t.Fatal(err)
	}
	at := netip.MustParseAddrPort(sock.LocalAddr().String())
	ctx, cancel := context.WithCancel(context.Background())
	server, err := hbone3.NewServer(sock, identity.QUICServerConfig(func() (*identity.Certificate, error) { return own, nil }), hbone3.Config{}, func(_ context.Context, in *hbone3.Incoming) {
		b.proxy.ServeDatagrams(ctx, in)
	})
	if err != nil {
		b.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Run(ctx) })
	b.t.Cleanup(func() { cancel(); wg.Wait() })
	b.quic = func(account string) *quicClient {
		b.t.Helper()
		cfg, err := ca.Workload("shop", account).QUICClientConfig(own.ID)
		if err != nil {
			b.t.Fatal(err)
		}
		sock, err := net.ListenUDP("udp", &net.UDPAddr{IP: b.clients[0].AsSlice()})
		if err != nil {
			b.t.Fatal(err)
		}
		tr := &quic.Transport{Conn: sock}
		c := &quicClient{bed: b, at: at, pool: hbone3.NewPool(func(ctx context.Context, _ tunnel.Key) (*hbone3.ClientConn, error) {
			return hbone3.Dial(ctx, tr, at, cfg, hbone3.Config{})
		})}
		b.t.Cleanup(func() {
			over, cancel := context.WithCancel(context.Background())
			cancel()
			c.pool.Drain(over)
			_ = tr.Close()
			_ = sock.Close()
		})
		return c
	}
}

// quicClient is the node of a client, with tunnels over QUIC.
type quicClient struct {
	bed  *udpBed
	at   netip.AddrPort
	pool *hbone3.Pool[tunnel.Key]
}

// open begins a session and has one datagram come back. answers are those that follow.
func (c *quicClient) open(target netip.AddrPort) (s *tunnel.Session, answers <-chan string, err error) {
	t := c.bed.t
	t.Helper()
	s, err = tunnel.Pools{H3: c.pool}.OpenUDP(t.Context(), tunnel.Key{Addr: c.at}, true, target, nil)
	if err != nil {
		return nil, nil, err
	}
	got, ended := make(chan string, 64), make(chan struct{})
	go func() {
		defer close(ended)
		defer close(got)
		_ = s.Receive(func(p []byte, _ bool) {
			if p != nil {
				got <- string(p)
			}
		})
	}()
	t.Cleanup(func() { s.Close(false); <-ended })
	if err := s.Send([]byte("ping"), false); err != nil {
		t.Fatal(err)
	}
	if p := <-got; p != "ping" {
		t.Fatalf("came back: %q", p)
	}
	return s, got, nil
}

// logged are the lines of an access log, each an object.
type logged struct {
	mu  sync.Mutex
	all []map[string]any // guarded by mu
}

// Write implements zapcore.WriteSyncer.
func (l *logged) Write(p []byte) (int, error) {
	var line map[string]any
	if err := json.Unmarshal(p, &line); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, line)
	return len(p), nil
}

// Sync implements zapcore.WriteSyncer.
func (l *logged) Sync() error { return nil }

// logged waits for a line of the access log and gives its fields.
func (b *udpBed) logged(what string, is func(map[string]any) bool) (found map[string]any) {
	b.t.Helper()
	testkit.Until(b.t, what, func() bool {
		b.access.mu.Lock()
		defer b.access.mu.Unlock()
		for _, line := range b.access.all {
			if found = line; is(line) {
				return true
			}
		}
		return false
	})
	return found
}

// Over HTTP/3 a session is what it is over HTTP/2: it has its answers, its line in the
// access log, and its limit, which it shares with those over HTTP/2.
func TestSessionsOverHTTP3(t *testing.T) {
	b := newUDPBed(t, 2)
	c := b.quic("client")
	s, answers, err := c.open(b.pod)
	if err != nil {
		t.Fatal(err)
	}
	if s.Transport != tunnel.H3 || s.Peer.NegotiatedProtocol != identity.DatagramProtocol {
		t.Errorf("the session is over %s, the connection speaks %s", s.Transport, s.Peer.NegotiatedProtocol)
	}
	for _, p := range []string{"a", "b", ""} { // three in one payload
		if err := s.Send([]byte(p), p != ""); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"a", "b", ""} {
		if got := <-answers; got != want {
			t.Errorf("came back: %q, want %q", got, want)
		}
	}
	if _, err := b.open(b.tls("client")); err != nil {
		t.Errorf("a session over HTTP/2 beside it: %v", err)
	}
	_, _, err = c.open(b.pod)
	var r *hbone.RefusedError
	if !errors.As(err, &r) || r.Status != 502 || !strings.Contains(r.ProxyStatus, "limit udp_sessions") {
		t.Errorf("a third session: %v", err)
	}
	s.Close(true)
	testkit.Until(t, "what has ended makes room", func() bool {
		_, _, err := c.open(b.pod)
		return err == nil
	})
	line := b.logged("the session is logged", func(l map[string]any) bool { return l["bytes_sent"] == float64(len("pingab")) })
	for k, want := range map[string]any{
		"tunnel": "h3", "protocol": "udp", "bytes_recv": float64(len("pingab")), "src.workload": "client", "src.identity": "spiffe://cluster.local/ns/shop/sa/client", "dst.workload": "game", "error": nil, "dst.tunnel": nil,
	} {
		if line[k] != want {
			t.Errorf("%s in the log is %v, want %v", k, line[k], want)
		}
	}
	b.logged("the refused one is logged", func(l map[string]any) bool {
		return l["tunnel"] == "h3" && l["response_flags"] == "UO"
	})
}

// What a waypoint does not take over HTTP/3 is refused for a reason: connections, other
// protocols, and what is not bound to it.
func TestRefusedOverHTTP3(t *testing.T) {
	b := newUDPBed(t, 2)
	c := b.quic("client")
	for what, tc := range map[string]struct {
		req    hbone.Request
		status int
		reason string
	}{
		"a connection":     {hbone.Request{Authority: b.pod.String()}, 501, "connections come over HTTP/2"},
		"another protocol": {hbone.Request{Authority: b.pod.String(), Protocol: "websocket", Path: "/"}, 501, "CONNECT-UDP alone"},
		"no path":          {hbone.Request{Authority: b.pod.String(), Protocol: masque.Protocol, Path: "/"}, 400, "http_request_error"},
	} {
		_, _, _, err := c.pool.Open(t.Context(), tunnel.Key{}, tc.req)
		var r *hbone.RefusedError
		if !errors.As(err, &r) || r.Status != tc.status || !strings.Contains(r.ProxyStatus, tc.reason) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, _, err := c.open(netip.MustParseAddrPort("192.0.2.99:53"))
	var r *hbone.RefusedError
	if !errors.As(err, &r) || r.Status != 503 || !strings.Contains(r.ProxyStatus, "bound to waypoint shop/wp") {
		t.Errorf("what is not bound: %v", err)
	}
}

// An answer that the path does not take is dropped and counted, and the session goes on.
func TestTooLargeOverHTTP3(t *testing.T) {
	b := newUDPBed(t, 2)
	s, answers, err := b.quic("client").open(b.pod)
	if err != nil {
		t.Fatal(err)
	}
	b.grow.Store(1500)
	if err := s.Send([]byte("more"), false); err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, "the large answer is counted", func() bool {
		return testutil.ToFloat64(b.proxy.cfg.Metrics.drops.WithLabelValues("too_large")) == 1
	})
	b.grow.Store(0)
	if err := s.Send([]byte("less"), false); err != nil {
		t.Fatal(err)
	}
	if got := <-answers; got != "less" {
		t.Errorf("%d bytes came back", len(got))
	}
}
