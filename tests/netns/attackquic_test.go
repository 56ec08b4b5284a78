package netns_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/ambit-mesh/ambit/internal/hbone/hbonetest"
	"github.com/ambit-mesh/ambit/internal/masque"
)

// quicFrom gives a socket for QUIC, and the address of the attacked pod.
func (a *attacker) quicFrom(t *testing.T) (*quic.Transport, *net.UDPAddr) {
	t.Helper()
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: c}
	t.Cleanup(func() {
		_ = tr.Close()
		_ = c.Close()
	})
	return tr, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(a.at("15008")))
}

// quicPeer is let in, and may go on from there.
func (a *attacker) quicPeer(t *testing.T) *hbonetest.QUICPeer {
	t.Helper()
	tr, at := a.quicFrom(t)
	p := hbonetest.DialQUIC(t, tr, at, a.good3)
	p.Hello()
	return p
}

func attackQUICHandshakes(t *testing.T, a *attacker) {
	tr, at := a.quicFrom(t)
	for _, h := range hbonetest.BadHandshakes(t, a.ca, a.id, a.good3) {
		t.Run(h.Name, func(t *testing.T) { h.RefusedOverQUIC(t, tr, at) })
	}
	t.Run("good", func(t *testing.T) { a.quicPeer(t).Accepted(a.at("8080")) })
}

func attackQUICRequests(t *testing.T, a *attacker) {
	for _, tc := range a.badRequests() {
		t.Run(tc.name, func(t *testing.T) {
			p := a.quicPeer(t)
			p.Refused(p.Stream(p.Headers(tc.fields...)), tc.status, tc.reason)
			p.Accepted(a.at("8080")) // others go on
		})
	}
	t.Run("no authority", func(t *testing.T) {
		p := a.quicPeer(t)
		p.WantReset(p.Stream(p.Headers(":method", "CONNECT")), http3.ErrCodeMessageError)
		p.Accepted(a.at("8080"))
	})
	udp := func(authority, path string) []string {
		return []string{":method", "CONNECT", ":protocol", masque.Protocol, ":scheme", "https", ":authority", authority, ":path", path, "capsule-protocol", "?1"}
	}
	path := func(addr string) string { return masque.Path(netip.MustParseAddrPort(addr)) }
	for _, tc := range []badRequest{
		{"datagrams to loopback", udp(a.at("15008"), path("127.0.0.1:15000")), "400", "authority 127.0.0.1:15000 is not this pod"},
		{"datagrams to another pod", udp(a.at("15008"), path("10.200.0.1:53")), "400", "authority 10.200.0.1:53 is not this pod"},
		{"datagrams to the tunnel", udp(a.at("15008"), path(a.at("15008"))), "503", "port 15008 is the proxy's own"},
		{"datagrams to outbound capture", udp(a.at("15008"), path(a.at("15001"))), "503", "port 15001 is the proxy's own"},
		{"datagrams to nowhere", udp(a.at("15008"), "/.well-known/masque/udp/x/"), "400", "http_request_error"},
		{"another protocol", []string{":method", "CONNECT", ":protocol", "connect-ip", ":scheme", "https", ":authority", "x:1", ":path", "/"}, "501", "no such protocol here"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := a.quicPeer(t)
			p.Refused(p.Stream(p.Headers(tc.fields...)), tc.status, tc.reason)
			p.Accepted(a.at("8080"))
		})
	}
}

// attackQUICFloods opens and resets streams, sends datagrams of nothing and of
// sessions that are there, and packets of no connection.
func attackQUICFloods(t *testing.T, a *attacker) {
	t.Run("rapid reset", func(t *testing.T) {
		p := a.quicPeer(t)
		for range 3000 {
			s := p.Connect(a.at("8085"))
			s.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
			s.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
		}
		p.Accepted(a.at("8085"))
	})
	t.Run("streams without an end of their request", func(t *testing.T) {
		p := a.quicPeer(t)
		head := p.Headers(":method", "CONNECT", ":authority", a.at("8085"))
		for n := 0; ; n++ {
			s, err := p.Conn.OpenStream()
			if err != nil {
				if n < 100 {
					t.Fatalf("%d streams, and then %v", n, err)
				}
				break
			}
			_, err = s.Write(head[:len(head)-1])
			p.OK(err)
		}
		a.quicPeer(t).Accepted(a.at("8085"))
	})
	t.Run("datagrams", func(t *testing.T) {
		p := a.quicPeer(t)
		for i := range 20000 {
			_ = p.Conn.SendDatagram(append([]byte{byte(i) & 0x3f}, make([]byte, i%1000)...))
		}
		p.Accepted(a.at("8080"))
	})
	t.Run("packets of no connection", func(t *testing.T) {
		c, err := net.Dial("udp", a.at("15008"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for i := range 20000 {
			_, _ = c.Write(append([]byte{0x40 | byte(i&0x3f)}, make([]byte, 100+i%1100)...))
			_, _ = c.Write(append([]byte{0xc0, 0, 0, 0, 1, 8, byte(i), byte(i >> 8)}, make([]byte, 1250)...))
		}
		a.quicPeer(t).Accepted(a.at("8080"))
	})
}

// door holds what is sent until it is open, and tells of each sender that waits.
type door struct {
	net.PacketConn
	waiting, open chan struct{}
}

// WriteTo implements net.PacketConn.
func (d *door) WriteTo(p []byte, to net.Addr) (int, error) {
	select {
	case <-d.open:
	default:
		d.waiting <- struct{}{}
		<-d.open
	}
	return d.PacketConn.WriteTo(p, to)
}

// attackEndlessQUICHandshakes begins far more handshakes than an address, or who has
// not proved one, has at a time, and ends none.
func attackEndlessQUICHandshakes(t *testing.T, a *attacker) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stuck := a.good3.Clone()
	stuck.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	stuck.CurvePreferences = []tls.CurveID{tls.X25519} // the least work for whoever begins
	tr, at := a.quicFrom(t)
	const many = 800
	door := &door{PacketConn: tr.Conn, waiting: make(chan struct{}, many), open: make(chan struct{})}
	tr.Conn = door
	ended := make(chan error, many)
	for range many {
		wg.Go(func() {
			_, err := tr.Dial(ctx, at, stuck, &quic.Config{HandshakeIdleTimeout: time.Minute})
			ended <- err
		})
	}
	// They come at once, however long this machine takes to make them: the server has
	// none of them for longer than some seconds.
	for range many {
		select {
		case <-door.waiting:
		case err := <-ended:
			t.Fatalf("before anything was sent: %v", err)
		}
	}
	close(door.open)
	late := time.After(time.Minute)
	for n, turned := 0, false; !turned; n++ {
		select {
		case err := <-ended:
			var refused *quic.TransportError
			turned = errors.As(err, &refused) && refused.ErrorCode == quic.ConnectionRefused
		case <-late:
			t.Fatalf("of %d handshakes %d have ended, none by CONNECTION_REFUSED", many, n)
		}
	}
	// Those that have begun are given up, and there is room again.
	for deadline := time.Now().Add(time.Minute); ; {
		dial, done := context.WithTimeout(ctx, 10*time.Second)
		c, err := tr.Dial(dial, at, a.good3, nil)
		if err == nil {
			// The server has the last word.
			select {
			case <-c.Context().Done():
				err = context.Cause(c.Context())
			case <-time.After(time.Second):
			}
			_ = c.CloseWithError(0, "")
		}
		done()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	a.quicPeer(t).Accepted(a.at("8080"))
}
