package relay_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/relay"
	"github.com/ambit-mesh/ambit/internal/relay/end"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// process is a server that echoes streams and says who it is.
type process struct {
	name   string
	sock   *relay.Socket
	tr     *quic.Transport
	ln     *quic.Listener
	cancel context.CancelFunc
	done   chan struct{}
}

var serverTLS = func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}, NextProtos: []string{"test"}}
}()

// start begins a process at an address, any if that has no port, after another one.
func start(t *testing.T, name string, at netip.AddrPort, before *process) *process {
	t.Helper()
	c, err := netns.ListenUDP(nil, at, netns.UDPOptions{Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	var fds []int
	if before != nil {
		if fds, err = before.sock.FDs(); err != nil {
			t.Fatal(err)
		}
	}
	p := &process{name: name, done: make(chan struct{})}
	if p.sock, err = relay.Open(c, fds...); err != nil {
		t.Fatal(err)
	}
	p.tr = &quic.Transport{Conn: p.sock, ConnectionIDGenerator: p.sock.ConnectionIDs(), StatelessResetKey: p.sock.ResetKey()}
	if p.ln, err = p.tr.Listen(serverTLS, &quic.Config{}); err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(context.Background())
	go p.serve(ctx)
	t.Cleanup(p.stop)
	return p
}

func (p *process) addr() netip.AddrPort { return p.sock.LocalAddr().(*net.UDPAddr).AddrPort() }

func (p *process) serve(ctx context.Context) {
	defer close(p.done)
	for {
		c, err := p.ln.Accept(ctx)
		if err != nil {
			return
		}
		go func() {
			for {
				s, err := c.AcceptStream(context.Background())
				if err != nil {
					return
				}
				_, _ = s.Write([]byte(p.name))
				_, _ = io.Copy(s, s)
				_ = s.Close()
			}
		}()
	}
}

// stop ends a process and all of its connections, with a word to each.
func (p *process) stop() {
	p.cancel()
	<-p.done
	_ = p.tr.Close()
	_ = p.sock.Close()
}

func dial(t *testing.T, at netip.AddrPort) *quic.Conn {
	t.Helper()
	c, err := quic.DialAddr(t.Context(), at.String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"test"}}, &quic.Config{MaxIdleTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseWithError(0, "") })
	return c
}

// served opens a stream, has so many bytes echoed, and checks by whom.
func served(t *testing.T, c *quic.Conn, by string, size int) {
	t.Helper()
	s, err := c.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", by, err)
	}
	_ = s.SetDeadline(time.Now().Add(20 * time.Second))
	go func() {
		_, _ = s.Write(make([]byte, size))
		_ = s.Close()
	}()
	got, err := io.ReadAll(s)
	if err != nil || len(got) != len(by)+size || string(got[:len(by)]) != by {
		t.Fatalf("%d bytes of %.10q, %v; want %d by %q", len(got), got, err, len(by)+size, by)
	}
}

// reset sees that a connection is answered with a stateless reset: to what is sent now,
// or to an acknowledgement that was sent before.
func reset(t *testing.T, c *quic.Conn) {
	t.Helper()
	s, err := c.OpenStream()
	if err == nil {
		_, err = s.Write(make([]byte, 100))
	}
	if err == nil {
		_, err = s.Read(make([]byte, 1))
	}
	if reset := (*quic.StatelessResetError)(nil); !errors.As(err, &reset) {
		t.Errorf("%v, want a stateless reset", err)
	}
}

var loopbacks = map[string]netip.AddrPort{
	"IPv4": netip.MustParseAddrPort("127.0.0.1:0"), "both families": netip.AddrPortFrom(netip.IPv6Unspecified(), 0),
}

// Each process keeps its connections, whoever comes after it.
func TestConnectionsStay(t *testing.T) {
	for name, at := range loopbacks {
		t.Run(name, func(t *testing.T) {
			one := start(t, "one", at, nil)
			at := one.addr()
			to := at
			if at.Addr().IsUnspecified() {
				to = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port())
			}
			first := dial(t, to)
			served(t, first, "one", 1000)

			two := start(t, "two", at, one)
			served(t, first, "one", 1<<18)
			second := dial(t, to)
			served(t, second, "two", 1000)

			three := start(t, "three", at, two)
			third := dial(t, to)
			served(t, third, "three", 1000)
			served(t, second, "two", 1<<18)
			served(t, first, "one", 1<<18)

			two.stop()
			served(t, first, "one", 1000)
			served(t, third, "three", 1000)
			// The newest ends: the kernel gives its datagrams to who is left.
			three.stop()
			served(t, first, "one", 1<<18)
		})
	}
}

// The last processes of a port are served, and no more: what a pod's ztunnels leave
// behind does not grow with how often they are replaced.
func TestTheOldestGo(t *testing.T) {
	last := start(t, "0", loopbacks["IPv4"], nil)
	at := last.addr()
	conns := []*quic.Conn{dial(t, at)}
	for i := 1; i <= relay.MaxFormer+1; i++ {
		last = start(t, fmt.Sprint(i), at, last)
		conns = append(conns, dial(t, at))
	}
	for i, c := range conns[1:] {
		served(t, c, fmt.Sprint(i+1), 1000)
	}
	fds, err := last.sock.FDs()
	if err != nil || len(fds) != relay.MaxFormer+1 {
		t.Errorf("%d descriptors for a successor, %v", len(fds), err)
	}
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
	reset(t, conns[0])
}

// A former process that reads nothing, and a peer that floods it, hold up nobody else.
func TestFormerProcessHangs(t *testing.T) {
	c, err := netns.ListenUDP(nil, loopbacks["IPv4"], netns.UDPOptions{Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	hung, err := relay.Open(c) // nobody calls ReadBatch
	if err != nil {
		t.Fatal(err)
	}
	defer hung.Close()
	next := start(t, "next", hung.LocalAddr().(*net.UDPAddr).AddrPort(), &process{sock: hung})
	id, err := hung.ConnectionIDs().GenerateConnectionID()
	if err != nil {
		t.Fatal(err)
	}
	flood, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(next.addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer flood.Close()
	served(t, dial(t, next.addr()), "next", 1000)
	datagram := append(append([]byte{0x41}, id.Bytes()...), make([]byte, 1200)...)
	for range 20_000 {
		_, _ = flood.Write(datagram)
	}
	served(t, dial(t, next.addr()), "next", 1<<16)
}

// A process that ends without a word is missed at once: its successor resets what is
// still sent to it.
func TestResetAfterAKill(t *testing.T) {
	one := start(t, "one", loopbacks["IPv4"], nil)
	c := dial(t, one.addr())
	served(t, c, "one", 1000)
	fds, err := one.sock.FDs()
	if err != nil {
		t.Fatal(err)
	}
	at := one.addr()
	// Its sockets are closed before it can say anything.
	_ = one.sock.Close()

	sock, err := netns.ListenUDP(nil, at, netns.UDPOptions{Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	successor, err := relay.Open(sock, fds...)
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: successor, ConnectionIDGenerator: successor.ConnectionIDs(), StatelessResetKey: successor.ResetKey()}
	ln, err := tr.Listen(serverTLS, &quic.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer successor.Close()
	defer tr.Close()
	defer ln.Close()
	reset(t, c)
}

// What is no relay is closed and not used; an end that was used is still one.
func TestForeignDescriptors(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Send(pair[0], []byte("ambit relay 1\nshort"), 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	udp, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range []int{pair[1], udp, -1} {
		if end.Is(fd) {
			t.Errorf("%d is taken for a relay", fd)
		}
	}
	c, err := netns.ListenUDP(nil, loopbacks["IPv4"], netns.UDPOptions{Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	s, err := relay.Open(c, pair[1], udp)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := unix.Send(pair[0], []byte("x"), unix.MSG_NOSIGNAL); err == nil {
		t.Errorf("the other end is still open")
	}
	fds, err := s.FDs()
	if err != nil || len(fds) != 1 || !end.Is(fds[0]) || !end.Is(fds[0]) {
		t.Errorf("%v, %v", fds, err)
	}
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
