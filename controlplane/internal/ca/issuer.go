package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"

	"github.com/ambit-mesh/ambit/internal/identity"
)

// errIssuerExpired is what signing with an expired issuer gives.
var errIssuerExpired = errors.New("the issuing certificate has expired")

// issuer signs leaves. It is immutable.
type issuer struct {
	cert *x509.Certificate
	key  crypto.Signer
	// chain is what a leaf's holder presents after it: PEM, one certificate per
	// element, roots excluded.
	chain []string
}

// trust is what is issued from and published at one moment. It is immutable.
type trust struct {
	issuer *issuer
	roots  []*x509.Certificate
	bundle string // roots, PEM
	// revoked are the revocation lists of the authorities, DER.
	revoked [][]byte
}

func newTrust(is *issuer, roots ...*x509.Certificate) *trust {
	t := &trust{issuer: is, roots: roots}
	for _, r := range roots {
		t.bundle += encodeCert(r)
	}
	return t
}

// root gives the published root that the issuer chains to, by subject key.
func (t *trust) root() *x509.Certificate { return t.roots[0] }

// validity gives the life of a leaf that is to live ttl from now: backdated for
// clocks that are behind, whole seconds as certificates have them, and never
// beyond the issuer's own end.
func (is *issuer) validity(now time.Time, ttl time.Duration) (notBefore, notAfter time.Time, err error) {
	notBefore = now.Add(-min(leafSkew, ttl/10)).Truncate(time.Second)
	notAfter = now.Add(ttl).Truncate(time.Second)
	if notAfter.After(is.cert.NotAfter) {
		notAfter = is.cert.NotAfter
	}
	if !notAfter.After(now) {
		return notBefore, notAfter, errIssuerExpired
	}
	return notBefore, notAfter, nil
}

// signWorkload issues a certificate for id and nothing else.
func (is *issuer) signWorkload(id identity.ID, pub crypto.PublicKey, notBefore, notAfter time.Time) (*x509.Certificate, error) {
	return is.signLeaf(&x509.Certificate{
		URIs:        []*url.URL{id.URL()},
		NotBefore:   notBefore,
		NotAfter:    notAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, pub)
}

// signServing issues a certificate for a server under DNS names and addresses.
func (is *issuer) signServing(names []string, pub crypto.PublicKey, notBefore, notAfter time.Time) (*x509.Certificate, error) {
	tmpl := &x509.Certificate{NotBefore: notBefore, NotAfter: notAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	return is.signLeaf(tmpl, pub)
}

func (is *issuer) signLeaf(tmpl *x509.Certificate, pub crypto.PublicKey) (*x509.Certificate, error) {
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.BasicConstraintsValid = true
	return sign(tmpl, is.cert, pub, is.key)
}

// mintRoot makes a self-signed root.
func mintRoot(trustDomain string, now time.Time, life time.Duration) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	tmpl := authorityTemplate("Ambit root CA", trustDomain, now, life)
	tmpl.MaxPathLen = 1
	cert, err := sign(tmpl, tmpl, key.Public(), key)
	return cert, key, err
}

// mintIntermediate makes an issuing certificate under root that does not outlive it.
func mintIntermediate(trustDomain string, root *x509.Certificate, rootKey crypto.Signer, now time.Time, life time.Duration) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	tmpl := authorityTemplate("Ambit issuing CA", trustDomain, now, life)
	tmpl.MaxPathLenZero = true
	if tmpl.NotAfter.After(root.NotAfter) {
		tmpl.NotAfter = root.NotAfter
	}
	cert, err := sign(tmpl, root, key.Public(), rootKey)
	return cert, key, err
}

func authorityTemplate(cn, trustDomain string, now time.Time, life time.Duration) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: cn, Organization: []string{trustDomain}},
		NotBefore:             now.Add(-min(time.Hour, life/10)).Truncate(time.Second),
		NotAfter:              now.Add(life).Truncate(time.Second),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func sign(tmpl, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	// RFC 5280 section 4.1.2.2: positive, at most 20 bytes, unique per issuer.
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, err
	}
	tmpl.SerialNumber = serial.Add(serial, big.NewInt(1))
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

func encodeCert(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}
