package identity

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Certificate is a workload's key and certificate chain with the roots that came
// with it. It is immutable.
type Certificate struct {
	ID ID
	// Chain is the leaf and its intermediates.
	Chain []*x509.Certificate
	// Roots are what peers of the same trust domain are checked against.
	Roots []*x509.Certificate

	key    crypto.Signer
	tls    tls.Certificate
	pool   *x509.CertPool
	bundle *x509bundle.Bundle
	check  func(chain []*x509.Certificate) error // nil for none
}

// Guarded gives the certificate with a further check of peers' chains, the leaf first,
// after they were verified: whether something in them is revoked.
func (c *Certificate) Guarded(check func(chain []*x509.Certificate) error) *Certificate {
	guarded := *c
	guarded.check = check
	return &guarded
}

func (c *Certificate) checkPeer(s *tls.ConnectionState) error {
	if c.check == nil {
		return nil
	}
	return c.check(s.PeerCertificates)
}

// NewCertificate checks that the parts belong together: the leaf carries exactly
// the identity, holds the key, is valid now, and chains to one of the roots.
func NewCertificate(id ID, key crypto.Signer, chain, roots []*x509.Certificate, now time.Time) (*Certificate, error) {
	if len(chain) == 0 || len(roots) == 0 {
		return nil, fmt.Errorf("certificate for %s: want a leaf and at least one root, got %d and %d", id, len(chain), len(roots))
	}
	leaf := chain[0]
	got, err := FromCertificate(leaf)
	if err != nil {
		return nil, fmt.Errorf("certificate for %s: %w", id, err)
	}
	if leaf.IsCA {
		return nil, fmt.Errorf("certificate for %s: %w", id, errAuthority)
	}
	if got != id {
		return nil, fmt.Errorf("certificate for %s: issued for %s instead", id, got)
	}
	pub, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(key.Public()) {
		return nil, fmt.Errorf("certificate for %s: issued for another key", id)
	}
	td, err := spiffeid.TrustDomainFromString(id.TrustDomain)
	if err != nil {
		return nil, fmt.Errorf("certificate for %s: %w", id, err)
	}
	c := &Certificate{ID: id, Chain: chain, Roots: roots, key: key, pool: x509.NewCertPool(), bundle: x509bundle.FromX509Authorities(td, roots)}
	for _, r := range roots {
		c.pool.AddCert(r)
	}
	inter := x509.NewCertPool()
	c.tls = tls.Certificate{PrivateKey: key, Leaf: leaf}
	for i, cert := range chain {
		c.tls.Certificate = append(c.tls.Certificate, cert.Raw)
		if i > 0 {
			inter.AddCert(cert)
		}
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: c.pool, Intermediates: inter, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return nil, fmt.Errorf("certificate for %s: %w", id, err)
	}
	return c, nil
}

// Leaf is the workload's own certificate.
func (c *Certificate) Leaf() *x509.Certificate { return c.Chain[0] }

// RenewAt is when the certificate has lived half its life.
func (c *Certificate) RenewAt() time.Time {
	l := c.Leaf()
	return l.NotBefore.Add(l.NotAfter.Sub(l.NotBefore) / 2)
}

// ErrNoIdentity is a certificate without exactly one SPIFFE ID.
var ErrNoIdentity = errors.New("certificate does not carry exactly one SPIFFE ID")

// errAuthority is a certificate of a CA where one of a workload should be
// (X.509-SVID section 4.1).
var errAuthority = errors.New("the certificate is a certificate authority's")

// FromCertificate gives the identity in a certificate's URI SAN. A certificate
// with any other URI is refused (X.509-SVID section 2).
func FromCertificate(cert *x509.Certificate) (ID, error) {
	if len(cert.URIs) != 1 {
		return ID{}, fmt.Errorf("%w: %d URIs", ErrNoIdentity, len(cert.URIs))
	}
	return Parse(cert.URIs[0].String())
}

// FromState gives the identity of a verified TLS peer.
func FromState(s *tls.ConnectionState) (ID, error) {
	if len(s.PeerCertificates) == 0 {
		return ID{}, ErrNoIdentity
	}
	return FromCertificate(s.PeerCertificates[0])
}

// What HBONE speaks: over TCP, and over QUIC.
const (
	alpn  = "h2"
	alpn3 = "h3"
)

// DatagramProtocol is HTTP/3 whose ends both know that there are HTTP datagrams, and do
// not say so in their settings: what is "h3" to others.
const DatagramProtocol = "ambit-h3"

// ClientConfig gives the configuration to connect as this workload to a peer that
// must prove one of the given identities, of the same trust domain's roots.
func (c *Certificate) ClientConfig(peers ...ID) (*tls.Config, error) {
	return c.clientConfig(peers, alpn)
}

// QUICClientConfig is ClientConfig for HTTP/3.
func (c *Certificate) QUICClientConfig(peers ...ID) (*tls.Config, error) {
	return c.clientConfig(peers, DatagramProtocol, alpn3)
}

func (c *Certificate) clientConfig(peers []ID, alpn ...string) (*tls.Config, error) {
	ids := make([]spiffeid.ID, 0, len(peers))
	for _, p := range peers {
		id, err := spiffeid.FromString(p.String())
		if err != nil {
			return nil, fmt.Errorf("identity of the peer: %w", err)
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil, errors.New("identity of the peer: none given")
	}
	cfg := tlsconfig.MTLSClientConfig(svidSource{c}, c.bundle, tlsconfig.AuthorizeOneOf(ids...))
	cfg.VerifyConnection = func(s tls.ConnectionState) error { return c.checkPeer(&s) }
	c.common(cfg, alpn...)
	return cfg, nil
}

// ServerConfig gives the configuration to serve: get is asked for the certificate
// at each handshake. Clients must prove an identity of the same trust domain.
func ServerConfig(get func() (*Certificate, error)) *tls.Config { return serverConfig(get, alpn) }

// QUICServerConfig is ServerConfig for HTTP/3.
func QUICServerConfig(get func() (*Certificate, error)) *tls.Config {
	return serverConfig(get, DatagramProtocol, alpn3)
}

func serverConfig(get func() (*Certificate, error), alpn ...string) *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS13}
	cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c, err := get()
		if err != nil {
			return nil, err
		}
		// The standard library's own verification answers each kind of bad
		// certificate with its own alert.
		per := &tls.Config{
			Certificates: []tls.Certificate{c.tls},
			ClientAuth:   tls.RequireAndVerifyClientCert,
			ClientCAs:    c.pool,
			VerifyConnection: func(s tls.ConnectionState) error {
				peer, err := FromState(&s)
				if err != nil {
					return err
				}
				if s.PeerCertificates[0].IsCA {
					return fmt.Errorf("client %s: %w", peer, errAuthority)
				}
				if peer.TrustDomain != c.ID.TrustDomain {
					return fmt.Errorf("client %s is of another trust domain than %s", peer, c.ID.TrustDomain)
				}
				if err := c.checkPeer(&s); err != nil {
					return fmt.Errorf("client %s: %w", peer, err)
				}
				return nil
			},
		}
		c.common(per, alpn...)
		if offered := hello.SupportedProtos; len(offered) > 0 && !slices.ContainsFunc(offered, func(p string) bool { return slices.Contains(alpn, p) }) {
			// The standard library takes a client that offers http/1.1 alone for one
			// without ALPN. RFC 7301 section 3.2 wants an alert, which this brings about.
			per.NextProtos = []string{"none"}
		}
		return per, nil
	}
	return cfg
}

// common sets what both ends have: TLS 1.3 only, with the key exchanges of the
// standard library, which prefers X25519MLKEM768; no session is resumed, so that
// every connection proves its identities anew.
func (c *Certificate) common(cfg *tls.Config, alpn ...string) {
	cfg.MinVersion = tls.VersionTLS13
	cfg.NextProtos = alpn
	cfg.SessionTicketsDisabled = true
	// Tunnels carry bulk: full records from the start.
	cfg.DynamicRecordSizingDisabled = true
}

// svidSource hands the certificate to the SPIFFE library.
type svidSource struct{ c *Certificate }

// GetX509SVID implements x509svid.Source.
func (s svidSource) GetX509SVID() (*x509svid.SVID, error) {
	id, err := spiffeid.FromString(s.c.ID.String())
	if err != nil {
		return nil, err
	}
	return &x509svid.SVID{ID: id, Certificates: s.c.Chain, PrivateKey: s.c.key}, nil
}

// ParsePEM reads every certificate of PEM text. Text between the blocks is left
// alone, but a block that is cut short or holds something else is an error: a file
// caught half-written must not pass for one with fewer certificates.
func ParsePEM(text []byte) ([]*x509.Certificate, error) {
	begun := bytes.Count(text, []byte("-----BEGIN"))
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %q: want CERTIFICATE", clip(block.Type))
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	switch {
	case begun == 0:
		return nil, errors.New("no PEM certificate")
	case len(certs) != begun:
		return nil, fmt.Errorf("PEM: %d of %d blocks are malformed or cut short", begun-len(certs), begun)
	}
	return certs, nil
}
