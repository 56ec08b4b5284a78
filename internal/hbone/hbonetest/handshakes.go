package hbonetest

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

// BadHandshake is a client that a server has to turn away.
type BadHandshake struct {
	Name string
	cfg  *tls.Config
	// alert is what the server answers; 0 where it closes the connection in order.
	alert tls.AlertError
}

// Alerts, RFC 8446 section 6.
const (
	alertBadCertificate tls.AlertError = 42
	alertExpired        tls.AlertError = 45
	alertUnknownCA      tls.AlertError = 48
	alertVersion        tls.AlertError = 70
	alertRequired       tls.AlertError = 116
	alertNoProtocol     tls.AlertError = 120
)

// BadHandshakes are what becomes of the good configuration of the client id, whose
// certificates ca issues.
func BadHandshakes(t testing.TB, ca *testkit.CA, id identity.ID, good *tls.Config) []BadHandshake {
	ours := func(change func(*x509.Certificate)) *tls.Config { return Presenting(good, ca, id, change) }
	without := func(change func(*tls.Config)) *tls.Config {
		cfg := good.Clone()
		change(cfg)
		return cfg
	}
	foreign := id
	foreign.TrustDomain = "elsewhere.example"
	self := id.URL().String()
	return []BadHandshake{
		{"no certificate", without(func(c *tls.Config) {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
		}), alertRequired},
		{"expired certificate", ours(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }), alertExpired},
		{"certificate of the future", ours(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), alertExpired},
		{"foreign root", Presenting(good, testkit.NewCA(t), id, nil), alertUnknownCA},
		{"other trust domain", Presenting(good, ca, foreign, nil), alertBadCertificate},
		{"no URI", ours(uris()), alertBadCertificate},
		{"two URIs", ours(uris(self, self)), alertBadCertificate},
		{"URI of another scheme", ours(uris("https://cluster.local/ns/shop/sa/client")), alertBadCertificate},
		{"URI of another shape", ours(uris("spiffe://cluster.local/shop/client")), alertBadCertificate},
		{"certificate authority as workload", ours(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), alertBadCertificate},
		{"certificate for servers only", ours(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }), alertBadCertificate},
		{"TLS 1.2", without(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), alertVersion},
		{"ALPN http/1.1", without(func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }), alertNoProtocol},
		// Nothing was offered that could be refused: the connection is closed in order.
		{"no ALPN", without(func(c *tls.Config) { c.NextProtos = nil }), 0},
	}
}

// Refused tries it on a fresh connection, and fails the test if it is let in or
// answered otherwise than it must be.
func (h BadHandshake) Refused(t testing.TB, sock net.Conn) {
	t.Helper()
	c := tls.Client(sock, h.cfg)
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	err := c.Handshake()
	if err == nil {
		// The client's part of the handshake ends before the server has decided.
		_, _ = c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	want := io.EOF.Error()
	if h.alert != 0 {
		want = "remote error: " + h.alert.Error()
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("got %v, want %s", err, want)
	}
}

// Presenting gives a client configuration that presents a certificate of the CA,
// changed, whatever its owner thinks of it.
func Presenting(good *tls.Config, ca *testkit.CA, id identity.ID, change func(*x509.Certificate)) *tls.Config {
	key, leaf := ca.Issue(id, change)
	cfg := good.Clone()
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
