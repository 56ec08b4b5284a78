// Package pki makes the certificates and kubeconfigs that the parts of a cluster know each other by. Keys are written to
// files: they are good for a cluster on one machine and for as long as it lives.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// lifetime is long for a cluster that is made for an afternoon.
const lifetime = 365 * 24 * time.Hour

// Authority signs certificates and writes them to a folder.
type Authority struct {
	dir, name string
	cert      *x509.Certificate
	key       crypto.Signer
	pem       []byte
}

// Subject is who a certificate is for: Group is what Kubernetes takes from the organization. Hosts are names and
// addresses.
type Subject struct {
	Name, Group string
	Hosts       []string
}

// NewAuthority makes an authority, whose certificate is in name.crt.
func NewAuthority(dir, name string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template, err := template(Subject{Name: name})
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = nil
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a := &Authority{dir: dir, name: name, cert: cert, key: key, pem: pemCert(der)}
	_, err = a.write(name, key, a.pem)
	return a, err
}

// Issue writes name.crt and name.key, and gives their content.
func (a *Authority) Issue(name string, s Subject) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	template, err := template(s)
	if err != nil {
		return Pair{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("certificate %s: %w", name, err)
	}
	return a.write(name, key, pemCert(der))
}

// Pair is a certificate and its key, in PEM.
type Pair struct{ Cert, Key []byte }

func (a *Authority) write(name string, key crypto.Signer, cert []byte) (Pair, error) {
	secret, err := pemKey(key)
	if err != nil {
		return Pair{}, err
	}
	if err := os.WriteFile(filepath.Join(a.dir, name+".key"), secret, 0o600); err != nil {
		return Pair{}, err
	}
	return Pair{cert, secret}, os.WriteFile(filepath.Join(a.dir, name+".crt"), cert, 0o644)
}

// SigningKey writes name.key and the public key name.pub, which service account tokens are signed and checked with.
func SigningKey(dir, name string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	secret, err := pemKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".key"), secret, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o644)
}

func template(s Subject) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: s.Name},
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(lifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if s.Group != "" {
		c.Subject.Organization = []string{s.Group}
	}
	for _, h := range s.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, h)
		}
	}
	return c, nil
}

func pemCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// pemKey uses the form that every part of Kubernetes reads (SEC 1).
func pemKey(key crypto.Signer) ([]byte, error) {
	k, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key of type %T", key)
	}
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}
