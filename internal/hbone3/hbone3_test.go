package hbone3_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/goleak"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/masque"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tunnel is a server with a handler and what connects to it.
type tunnel struct {
	ca     *testkit.CA
	addr   netip.AddrPort
	server *hbone3.Server
	client *tls.Config
	tr     *quic.Transport
	pool   *hbone3.Pool[string]
}

func newTunnel(t *testing.T, cfg hbone3.Config, h hbone3.Handler) *tunnel {
	t.Helper()
	ca := testkit.NewCA(t)
	cert := ca.Workload("shop", "server")
	sock := listenUDP(t)
	tn := &tunnel{ca: ca, addr: sock.LocalAddr().(*net.UDPAddr).AddrPort()}
	var err error
	if tn.server, err = hbone3.NewServer(sock, identity.QUICServerConfig(func() (*identity.Certificate, error) { return cert, nil }), cfg, h); err != nil {
		t.Fatal(err)
	}
	if tn.client, err = ca.Workload("shop", "client").QUICClientConfig(cert.ID); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = tn.server.Run(ctx) })
	own := listenUDP(t)
	tn.tr = &quic.Transport{Conn: own}
	tn.pool = hbone3.NewPool(func(ctx context.Context, _ string) (*hbone3.ClientConn, error) {
		return hbone3.Dial(ctx, tn.tr, tn.addr, tn.client, cfg)
	})
	t.Cleanup(func() {
		ended, stop := context.WithCancel(context.Background())
		stop()
		tn.pool.Drain(ended)
		cancel()
		wg.Wait()
		_ = tn.tr.Close()
		_ = own.Close()
	})
	return tn
}

func listenUDP(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func connectTCP(_ context.Context, in *hbone3.Incoming) {
	app, err := net.Dial("tcp", in.Authority)
	if err != nil {
		in.Refuse(503, hbone.ProxyStatus("connection_refused", err.Error()))
		return
	}
	defer app.Close()
	s, err := in.Accept(hbone.Field{Name: "baggage", Value: "a=b"})
	if err != nil {
		return
	}
	_ = s.Splice(app)
}

// echoTCP answers what it got when its client has half-closed, or resets.
func echoTCP(t *testing.T, reset bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				if reset {
					_, _ = c.Read(make([]byte, 1))
					_ = c.(*net.TCPConn).SetLinger(0)
					return
				}
				b, _ := io.ReadAll(c)
				_, _ = c.Write(b)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// pipe gives the application's two ends of a TCP connection.
func pipe(t *testing.T) (app, proxy *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

func TestStreams(t *testing.T) {
	tn := newTunnel(t, hbone3.Config{}, connectTCP)
	addr := echoTCP(t, false)
	for _, size := range []int{0, 1, 1 << 20} {
		s, resp, cc, err := tn.pool.Open(t.Context(), "k", hbone.Request{Authority: addr, Fields: []hbone.Field{{Name: "forwarded", Value: `for="1.2.3.4:5"`}}})
		if err != nil {
			t.Fatal(err)
		}
		if resp.Get("baggage") != "a=b" {
			t.Errorf("answer %v", resp.Fields)
		}
		state := cc.PeerState()
		if id, err := identity.FromState(&state); err != nil || id.ServiceAccount != "server" {
			t.Errorf("peer %v, %v", id, err)
		}
		if state.Version != tls.VersionTLS13 || state.CurveID != tls.X25519MLKEM768 {
			t.Errorf("TLS %x, key exchange %s", state.Version, state.CurveID)
		}
		app, proxy := pipe(t)
		done := make(chan error, 1)
		go func() { done <- s.Splice(proxy) }()
		data := bytes.Repeat([]byte("x"), size)
		go func() { _, _ = app.Write(data); _ = app.CloseWrite() }()
		if got, err := io.ReadAll(app); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes came back, %v; want %d", len(got), err, size)
		}
		if err := <-done; err != nil {
			t.Errorf("splice: %v", err)
		}
		if sent, recv := s.Transferred(); sent != int64(size) || recv != int64(size) {
			t.Errorf("counted %d and %d, want %d", sent, recv, size)
		}
	}
}

func TestResetIsPassedOn(t *testing.T) {
	tn := newTunnel(t, hbone3.Config{}, connectTCP)
	s, _, _, err := tn.pool.Open(t.Context(), "k", hbone.Request{Authority: echoTCP(t, true)})
	if err != nil {
		t.Fatal(err)
	}
	app, proxy := pipe(t)
	done := make(chan error, 1)
	go func() { done <- s.Splice(proxy) }()
	_, _ = app.Write([]byte("x"))
	if _, err := app.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("application read: %v, want a reset", err)
	}
	var reset *hbone.ResetError
	if err := <-done; !errors.As(err, &reset) || !reset.Remote {
		t.Errorf("splice: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	tn := newTunnel(t, hbone3.Config{}, func(_ context.Context, in *hbone3.Incoming) {
		in.Refuse(401, hbone.ProxyStatus("http_request_denied", "no"))
	})
	var refused *hbone.RefusedError
	_, _, _, err := tn.pool.Open(t.Context(), "k", hbone.Request{Authority: "127.0.0.1:1"})
	if !errors.As(err, &refused) || refused.Status != 401 || refused.ProxyStatus != `ambit; error=http_request_denied; details="no"` {
		t.Errorf("got %v", err)
	}
}

// Each kind of wrong peer is found out before a stream is opened.
func TestIdentities(t *testing.T) {
	tn := newTunnel(t, hbone3.Config{}, func(context.Context, *hbone3.Incoming) { t.Error("a stream got through") })
	stranger := testkit.NewCA(t)
	server, client := tn.ca.Workload("shop", "server"), tn.ca.Workload("shop", "client")
	other := tn.ca.Workload("shop", "other")
	wrongServer, err := client.QUICClientConfig(other.ID)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := stranger.Workload("shop", "client").QUICClientConfig(server.ID)
	if err != nil {
		t.Fatal(err)
	}
	foreign.VerifyPeerCertificate = nil // what we prove is what counts
	anonymous := tn.client.Clone()
	anonymous.GetClientCertificate, anonymous.Certificates = nil, nil
	http2, err := client.ClientConfig(server.ID)
	if err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]*tls.Config{"the server is somebody else": wrongServer, "client of another authority": foreign, "client without certificate": anonymous, "ALPN h2": http2} {
		_, err := hbone3.Dial(t.Context(), tn.tr, tn.addr, cfg, hbone3.Config{})
		var shake *hbone.HandshakeError
		if !errors.As(err, &shake) {
			t.Errorf("%s: %v", name, err)
		}
		if hbone3.Unreachable(err) {
			t.Errorf("%s: taken for a blocked path: %v", name, err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	deaf := listenUDP(t)
	defer deaf.Close()
	own := listenUDP(t)
	tr := &quic.Transport{Conn: own}
	defer own.Close()
	defer tr.Close()
	ca := testkit.NewCA(t)
	cfg, err := ca.Workload("a", "b").QUICClientConfig(ca.Workload("c", "d").ID)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, err = hbone3.Dial(t.Context(), tr, deaf.LocalAddr().(*net.UDPAddr).AddrPort(), cfg, hbone3.Config{HandshakeTimeout: 200 * time.Millisecond})
	if !hbone3.Unreachable(err) || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

func TestDatagrams(t *testing.T) {
	tn := newTunnel(t, hbone3.Config{}, func(_ context.Context, in *hbone3.Incoming) {
		if in.Protocol != masque.Protocol || in.Path != "/.well-known/masque/udp/2001%3Adb8%3A%3A1/53/" {
			in.Refuse(400, in.Path)
			return
		}
		s, err := in.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		if err := s.ReceivePayloads(func(b []byte, _ bool) error { return s.SendPayload(b) }); err != nil {
			t.Errorf("server: %v", err)
		}
		s.End()
	})
	s, _, _, err := tn.pool.Open(t.Context(), "k", hbone.Request{Authority: "x:1", Protocol: masque.Protocol, Path: masque.Path(netip.MustParseAddrPort("[2001:db8::1]:53"))})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string)
	done := make(chan error, 1)
	go func() {
		done <- s.ReceivePayloads(func(b []byte, _ bool) error { got <- string(b); return nil })
	}()
	for _, want := range []string{"one", string(make([]byte, 1290))} {
		if err := s.SendPayload([]byte(want)); err != nil {
			t.Fatal(err)
		}
		if g := <-got; g != want {
			t.Errorf("%d bytes came back, want %d", len(g), len(want))
		}
	}
	var large *hbone3.TooLargeError
	if err := s.SendPayload(make([]byte, 9000)); !errors.As(err, &large) || large.Max < 1290 {
		t.Errorf("9000 bytes: %v", err)
	}
	s.End()
	if err := <-done; err != nil {
		t.Errorf("client: %v", err)
	}
}

// More first packets than there is budget for are answered by Retry, and honest
// clients get through nevertheless.
func TestAddressValidation(t *testing.T) {
	tn := newTunnel(t, hbone3.Config{Handshakes: 1}, connectTCP)
	for i := range 5 {
		cc, err := hbone3.Dial(t.Context(), tn.tr, tn.addr, tn.client, hbone3.Config{})
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		cc.Drain()
		<-cc.Done()
	}
}

// A client whose packets come from another address from now on keeps its streams.
func TestMigration(t *testing.T) {
	tn := newTunnel(t, hbone3.Config{}, func(_ context.Context, in *hbone3.Incoming) {
		s, err := in.Accept()
		if err != nil {
			return
		}
		_ = s.ReceivePayloads(func(b []byte, _ bool) error { return s.SendPayload(b) })
	})
	nat := newRebinder(t, tn.addr)
	cc, err := hbone3.Dial(t.Context(), tn.tr, nat.addr, tn.client, hbone3.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := cc.Open(t.Context(), hbone.Request{Authority: "x:1", Protocol: masque.Protocol, Path: "/"})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 64)
	done := make(chan error, 1)
	go func() { done <- s.ReceivePayloads(func(b []byte, _ bool) error { got <- string(b); return nil }) }()
	beat := func(text string) {
		t.Helper()
		// Datagrams may be lost while the path changes.
		deadline := time.After(10 * time.Second)
		for {
			if err := s.SendPayload([]byte(text)); err != nil {
				t.Fatal(err)
			}
			select {
			case g := <-got:
				if g == text {
					return
				}
			case <-time.After(50 * time.Millisecond):
			case <-deadline:
				t.Fatalf("no answer %s", text)
			}
		}
	}
	beat("before")
	nat.rebind(t)
	beat("after")
	cc.Drain()
	s.Reset(hbone.CodeCancel)
	<-done
	<-cc.Done()
}

// rebinder passes datagrams on to a server, from an address that it can change.
type rebinder struct {
	addr  netip.AddrPort
	tap   func([]byte) // sees what goes to the server; may be nil; guarded by mu
	front *net.UDPConn
	to    *net.UDPAddr
	mu    sync.Mutex
	back  *net.UDPConn // guarded by mu
	peer  netip.AddrPort
	wg    sync.WaitGroup
}

func newRebinder(t *testing.T, server netip.AddrPort) *rebinder {
	r := &rebinder{front: listenUDP(t), to: net.UDPAddrFromAddrPort(server)}
	r.addr = r.front.LocalAddr().(*net.UDPAddr).AddrPort()
	r.rebind(t)
	r.wg.Go(func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := r.front.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			r.mu.Lock()
			r.peer = from
			if r.tap != nil {
				r.tap(buf[:n])
			}
			_, _ = r.back.WriteToUDP(buf[:n], r.to)
			r.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		r.front.Close()
		r.back.Close()
		r.wg.Wait()
	})
	return r
}

func (r *rebinder) rebind(t *testing.T) {
	back := listenUDP(t)
	r.mu.Lock()
	if r.back != nil {
		r.back.Close()
	}
	r.back = back
	r.mu.Unlock()
	r.wg.Go(func() {
		buf := make([]byte, 2000)
		for {
			n, _, err := back.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			r.mu.Lock()
			_, _ = r.front.WriteToUDPAddrPort(buf[:n], r.peer)
			r.mu.Unlock()
		}
	})
}
