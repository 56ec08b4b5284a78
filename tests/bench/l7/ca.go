package l7

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"

	capb "github.com/ambit-mesh/ambit/apis/ca"
	"github.com/ambit-mesh/ambit/internal/identity"
)

// serverName is what the control plane's certificate is for.
const serverName = "controlplane.bench"

// authority certifies everybody of the benchmark, so that both proxies have
// certificates of one kind.
type authority struct {
	capb.UnimplementedIstioCertificateServiceServer
	key  *ecdsa.PrivateKey
	root *x509.Certificate
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench root"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(der)
	return &authority{key: key, root: root}, err
}

func (a *authority) certify(pub crypto.PublicKey, uris []*url.URL, names ...string) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), URIs: uris, DNSNames: names,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	return x509.CreateCertificate(rand.Reader, tmpl, a.root, pub, a.key)
}

// issue makes an identity for a party of the benchmark itself.
func (a *authority) issue(id identity.ID) (*identity.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := a.certify(key.Public(), []*url.URL{id.URL()})
	if err != nil {
		return nil, nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	cert, err := identity.NewCertificate(id, key, []*x509.Certificate{leaf}, []*x509.Certificate{a.root}, time.Now())
	return cert, key, err
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// write puts an identity where Envoy reads it: cert.pem, key.pem and root.pem.
func (a *authority) write(dir string, id identity.ID) error {
	cert, key, err := a.issue(id)
	if err != nil {
		return err
	}
	text, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "cert.pem"), certPEM(cert.Leaf().Raw), 0o644),
		os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: text}), 0o600),
		os.WriteFile(filepath.Join(dir, "root.pem"), certPEM(a.root.Raw), 0o644),
	)
}

// CreateCertificate signs what the waypoint asks for; nobody else can reach it.
func (a *authority) CreateCertificate(_ context.Context, req *capb.IstioCertificateRequest) (*capb.IstioCertificateResponse, error) {
	block, _ := pem.Decode([]byte(req.GetCsr()))
	if block == nil {
		return nil, errors.New("CSR is not PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	der, err := a.certify(csr.PublicKey, csr.URIs)
	if err != nil {
		return nil, err
	}
	return &capb.IstioCertificateResponse{CertChain: []string{string(certPEM(der)), string(certPEM(a.root.Raw))}}, nil
}
