package hbone_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/hbonetest"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

func clientID() identity.ID {
	return identity.ID{TrustDomain: identity.DefaultTrustDomain, Namespace: "shop", ServiceAccount: "client"}
}

func TestServerAnswersBadHandshakesWithTheirAlert(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	for _, h := range hbonetest.BadHandshakes(t, tn.ca, clientID(), tn.client) {
		t.Run(h.Name, func(t *testing.T) { h.Refused(t, dial(t, tn.addr)) })
	}
	select {
	case <-tn.conns:
		t.Fatal("one of them was let in")
	default:
	}
}

func TestServerClosesWhatIsNotTLS(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	c := dial(t, tn.addr)
	_, _ = c.Write([]byte("CONNECT 10.0.0.1:80 HTTP/1.1\r\nHost: 10.0.0.1:80\r\n\r\n"))
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Fatalf("got %q, %v, want the end", b, err)
	}
}

func TestClientWantsTheExactIdentity(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	for _, tc := range []struct {
		name    string
		ns, sa  string
		foreign bool
	}{
		{name: "another service account", ns: "shop", sa: "other"},
		{name: "another namespace", ns: "other", sa: "server"},
		{name: "of a foreign root", ns: "shop", sa: "server", foreign: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ca := tn.ca
			if tc.foreign {
				ca = testkit.NewCA(t)
			}
			cfg, err := ca.Workload("shop", "client").ClientConfig(ca.Workload(tc.ns, tc.sa).ID)
			if err != nil {
				t.Fatal(err)
			}
			saw := make(chan error, 1)
			addr := listen(t, func(ctx context.Context, c net.Conn) {
				_, err := hbone.NewServerConn(ctx, c, tn.server, hbone.Config{}, nil)
				saw <- err
			})
			_, err = hbone.NewClientConn(t.Context(), dial(t, addr), cfg, hbone.Config{})
			var handshake *hbone.HandshakeError
			if !errors.As(err, &handshake) {
				t.Fatalf("got %v, want a handshake error", err)
			}
			if !tc.foreign && !strings.Contains(err.Error(), "spiffe://cluster.local/ns/shop/sa/server") {
				t.Errorf("%v does not name who was met", err)
			}
			if err := <-saw; err == nil || !strings.Contains(err.Error(), "remote error: tls: bad certificate") {
				t.Errorf("the server saw %v, want the alert", err)
			}
		})
	}
}

func TestClientLearnsWhyItsCertificateWasRefused(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	tn.client = hbonetest.Presenting(tn.client, tn.ca, clientID(), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) })
	_, _, _, err := tn.pool.Open(t.Context(), tn.addr, hbone.Request{Authority: "10.0.0.1:80"})
	var handshake *hbone.HandshakeError
	if !errors.As(err, &handshake) || !strings.Contains(err.Error(), "expired certificate") {
		t.Fatalf("got %v, want a handshake error that says expired", err)
	}
	testkit.Until(t, "the pool forgets the connection", func() bool { return tn.pool.Len() == 0 })
}

func TestReadyTellsOfARefusedCertificate(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	for _, tc := range []struct {
		name string
		cfg  *tls.Config
		want string
	}{
		{"good", tn.client, ""},
		{"foreign", hbonetest.Presenting(tn.client, testkit.NewCA(t), clientID(), nil), "unknown certificate authority"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cc, err := hbone.NewClientConn(t.Context(), dial(t, tn.addr), tc.cfg, hbone.Config{})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- cc.Run(ctx) }()
			err = cc.Ready(t.Context())
			cancel()
			rerr := <-ended
			if tc.want == "" {
				if err != nil || !errors.Is(rerr, hbone.ErrClosed) {
					t.Fatalf("Ready %v, Run %v", err, rerr)
				}
				return
			}
			var handshake *hbone.HandshakeError
			if !errors.As(err, &handshake) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("Ready %v, want %s", err, tc.want)
			}
		})
	}
}
