package hbone3_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/quic-go/quic-go"

	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

// turns counts what a server has turned away.
type turns struct {
	mu     sync.Mutex
	n      map[hbone3.Turned]int // guarded by mu
	failed []string              // guarded by mu
}

func (u *turns) config(cfg hbone3.Config) hbone3.Config {
	u.n = make(map[hbone3.Turned]int)
	cfg.OnTurned = func(why hbone3.Turned) {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.n[why]++
	}
	cfg.OnFailed = func(_ net.Addr, err error) {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.failed = append(u.failed, err.Error())
	}
	return cfg
}

func (u *turns) of(why hbone3.Turned) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.n[why]
}

// sealed is a socket whose QUIC sends first packets and then nothing, counted.
type sealed struct {
	*net.UDPConn
	mu             sync.Mutex
	room           int // packets that may still be sent; guarded by mu
	sent, received int // bytes; guarded by mu
}

// onFirst gives a transport from which so many packets are sent.
func onFirst(t *testing.T, from string, packets int) (*quic.Transport, *sealed) {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from+":0")))
	if err != nil {
		t.Fatal(err)
	}
	s := &sealed{UDPConn: c, room: packets}
	tr := &quic.Transport{Conn: s}
	t.Cleanup(func() { _ = tr.Close(); _ = c.Close() })
	return tr, s
}

// WriteTo and ReadFrom hide what else the library would use of a UDP socket.
func (s *sealed) WriteTo(b []byte, to net.Addr) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.room == 0 {
		return len(b), nil // lost
	}
	s.room--
	s.sent += len(b)
	return s.UDPConn.WriteTo(b, to)
}

func (s *sealed) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := s.UDPConn.ReadFrom(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received += n
	return n, from, err
}

// SyscallConn and the rest are not there for the library.
func (s *sealed) SyscallConn() {}

// SetReadBuffer, SetWriteBuffer, ReadMsgUDP and WriteMsgUDP likewise.
func (s *sealed) SetReadBuffer()  {}
func (s *sealed) SetWriteBuffer() {}
func (s *sealed) ReadMsgUDP()     {}
func (s *sealed) WriteMsgUDP()    {}

func (s *sealed) bytes() (sent, received int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent, s.received
}

// begin begins a handshake that never ends.
func begin(ctx context.Context, wg *sync.WaitGroup, tr *quic.Transport, addr netip.AddrPort, cfg *tls.Config) {
	wg.Go(func() { _, _ = tr.Dial(ctx, net.UDPAddrFromAddrPort(addr), cfg, nil) })
}

// Peers that prove their address and then leave their handshakes open have a part of
// the room, and those that prove nothing another; who comes from elsewhere gets in.
func TestHandshakesAreBounded(t *testing.T) {
	var u turns
	tn := newTunnel(t, u.config(hbone3.Config{MaxHandshakes: 16, HandshakeTimeout: 30e9}), connectTCP)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	// The first flight alone, two packets: from addresses that might be forged.
	for range 10 {
		tr, _ := onFirst(t, "127.0.0.2", 2)
		begin(ctx, &wg, tr, tn.addr, tn.client)
	}
	testkit.Until(t, "others are asked to prove their address", func() bool { return u.of(hbone3.TurnedUnproved) > 0 })
	// With the proof, and then nothing: the last flight is never sent.
	stuck := tn.client.Clone()
	stuck.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	ended := make(chan error, 10)
	for range 10 {
		tr, _ := onFirst(t, "127.0.0.3", 100)
		wg.Go(func() {
			_, err := tr.Dial(ctx, net.UDPAddrFromAddrPort(tn.addr), stuck, nil)
			ended <- err
		})
	}
	// Four have the share of their address; the others are told.
	for range 6 {
		var te *quic.TransportError
		if err := <-ended; !errors.As(err, &te) || te.ErrorCode != quic.ConnectionRefused {
			t.Fatalf("got %v, want CONNECTION_REFUSED", err)
		}
	}
	if u.of(hbone3.TurnedSource) < 6 {
		t.Errorf("turned away: %v", u.n)
	}
	// Others are served nevertheless.
	for range 5 {
		cc, err := hbone3.Dial(t.Context(), tn.tr, tn.addr, tn.client, hbone3.Config{})
		if err != nil {
			t.Fatalf("from another address: %v", err)
		}
		cc.Drain()
		<-cc.Done()
	}
	if n := u.of(hbone3.TurnedFull); n != 0 {
		t.Errorf("%d were turned away as if there was no room at all", n)
	}
}

// With every place taken nobody gets in, and is told so; when handshakes end there
// is room again.
func TestRoomForHandshakesComesBack(t *testing.T) {
	var u turns
	tn := newTunnel(t, u.config(hbone3.Config{MaxHandshakes: 1, HandshakeTimeout: 1e9}), connectTCP)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	tr, one := onFirst(t, "127.0.0.2", 2)
	begin(ctx, &wg, tr, tn.addr, tn.client)
	testkit.Until(t, "the server answers the first", func() bool { _, got := one.bytes(); return got > 0 })
	if _, err := hbone3.Dial(t.Context(), tn.tr, tn.addr, tn.client, hbone3.Config{}); !hbone3.Unavailable(err) || hbone3.Unreachable(err) {
		t.Errorf("got %v, want that the peer is busy", err)
	}
	testkit.Until(t, "the unfinished one is given up", func() bool { return u.of(hbone3.TurnedUnfinished) == 1 })
	cc, err := hbone3.Dial(t.Context(), tn.tr, tn.addr, tn.client, hbone3.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cc.Drain()
	<-cc.Done()
	if u.of(hbone3.TurnedFull) == 0 { // more than once: a first flight is of two packets
		t.Errorf("turned away: %v", u.n)
	}
}

// Who sends the first packets in somebody else's name has no more than three times its
// bytes sent there (RFC 9000 section 8), whatever the server does until it gives up.
func TestAmplification(t *testing.T) {
	for name, cfg := range map[string]hbone3.Config{"handshake": {HandshakeTimeout: 1e9}, "asked for proof": {Handshakes: 1, MaxHandshakes: 4, HandshakeTimeout: 1e9}} {
		t.Run(name, func(t *testing.T) {
			var u turns
			tn := newTunnel(t, u.config(cfg), connectTCP)
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			var all []*sealed
			for range 8 {
				tr, s := onFirst(t, "127.0.0.2", 2)
				begin(ctx, &wg, tr, tn.addr, tn.client)
				all = append(all, s)
				// One by one: proof is asked of no more than a few in a queue.
				testkit.Until(t, "an answer came", func() bool { _, got := s.bytes(); return got > 0 })
			}
			testkit.Until(t, "the server has given up", func() bool {
				return u.of(hbone3.TurnedUnfinished)+u.of(hbone3.TurnedUnproved) >= len(all)
			})
			for _, s := range all {
				if sent, got := s.bytes(); got > 3*sent {
					t.Errorf("%d bytes for %d", got, sent)
				}
			}
		})
	}
}
