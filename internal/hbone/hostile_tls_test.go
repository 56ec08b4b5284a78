package hbone_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

func clientID() identity.ID {
	return identity.ID{TrustDomain: identity.DefaultTrustDomain, Namespace: "shop", ServiceAccount: "client"}
}

// presenting gives a client configuration that presents a certificate of the CA,
// changed, whatever its owner thinks of it.
func presenting(tn *tunnel, ca *testkit.CA, id identity.ID, change func(*x509.Certificate)) *tls.Config {
	key, leaf := ca.Issue(id, change)
	cfg := tn.client.Clone()
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}, nil
	}
	return cfg
}

// uris makes a change of the URIs of a certificate.
func uris(list ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.URIs = nil
		for _, s := range list {
			u, err := url.Parse(s)
			if err != nil {
				panic(err)
			}
			c.URIs = append(c.URIs, u)
		}
	}
}

func TestServerAnswersBadHandshakesWithTheirAlert(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	ours := func(change func(*x509.Certificate)) *tls.Config { return presenting(tn, tn.ca, clientID(), change) }
	without := func(change func(*tls.Config)) *tls.Config {
		cfg := tn.client.Clone()
		change(cfg)
		return cfg
	}
	foreign := clientID()
	foreign.TrustDomain = "elsewhere.example"
	const self = "spiffe://cluster.local/ns/shop/sa/client"
	for _, tc := range []struct {
		name string
		cfg  *tls.Config
		want string // in the error of the client
	}{
		{"no certificate", without(func(c *tls.Config) {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
		}), "remote error: tls: certificate required"},
		{"expired certificate", ours(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }), "remote error: tls: expired certificate"},
		{"certificate of the future", ours(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), "remote error: tls: expired certificate"},
		{"foreign root", presenting(tn, testkit.NewCA(t), clientID(), nil), "remote error: tls: unknown certificate authority"},
		{"other trust domain", presenting(tn, tn.ca, foreign, nil), "remote error: tls: bad certificate"},
		{"no URI", ours(uris()), "remote error: tls: bad certificate"},
		{"two URIs", ours(uris(self, self)), "remote error: tls: bad certificate"},
		{"URI of another scheme", ours(uris("https://cluster.local/ns/shop/sa/client")), "remote error: tls: bad certificate"},
		{"URI of another shape", ours(uris("spiffe://cluster.local/shop/client")), "remote error: tls: bad certificate"},
		{"certificate authority as workload", ours(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), "remote error: tls: bad certificate"},
		{"certificate for servers only", ours(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }), "remote error: tls: bad certificate"},
		{"TLS 1.2", without(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), "remote error: tls: protocol version not supported"},
		{"ALPN http/1.1", without(func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }), "remote error: tls: no application protocol"},
		// Nothing was offered that could be refused: the connection is closed in order.
		{"no ALPN", without(func(c *tls.Config) { c.NextProtos = nil }), io.EOF.Error()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := tls.Client(dial(t, tn.addr), tc.cfg)
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			err := c.Handshake()
			if err == nil {
				// The client's part of the handshake ends before the server has decided.
				_, _ = c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
				_, err = io.ReadFull(c, make([]byte, 1))
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %s", err, tc.want)
			}
		})
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
	tn.client = presenting(tn, tn.ca, clientID(), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) })
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
		{"foreign", presenting(tn, testkit.NewCA(t), clientID(), nil), "unknown certificate authority"},
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
