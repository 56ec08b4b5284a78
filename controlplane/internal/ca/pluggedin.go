package ca

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/controlplane/internal/statefile"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/revocation"
)

const maxPEMFile = 1 << 20

// Files name an operator's CA, all PEM.
type Files struct {
	// Root is the bundle that peers trust; the first one first.
	Root string
	// Cert is the issuing certificate.
	Cert string
	// Key belongs to Cert: PKCS #8, SEC 1 or PKCS #1.
	Key string
	// Chain holds the certificates between Cert and a root. Optional.
	Chain string
	// CRL holds the revocation lists of Cert and of what is above it. Optional.
	CRL string
	// Mounted says that they are of a mounted Secret, which the pod's group reads.
	Mounted bool
}

func (f Files) enabled() bool { return f.Root+f.Cert+f.Key+f.Chain+f.CRL != "" }

func (f Files) validate() error {
	if f.enabled() && (f.Root == "" || f.Cert == "" || f.Key == "") {
		return errors.New("ca: a plugged-in CA needs all of --ca-root-cert, --ca-cert and --ca-key (and --ca-chain if the issuing certificate is not signed by a root)")
	}
	return nil
}

// load reads the files and proves that what they hold can issue: a certificate
// signed with the key must verify against the roots.
func (f Files) load(trustDomain string, now time.Time) (*trust, error) {
	t, err := f.read(trustDomain, now)
	if err != nil && f.Mounted {
		return nil, fmt.Errorf("%w; the file is the key of that name in the Secret that the pod mounts as volume cacerts: correct it there", err)
	}
	return t, err
}

func (f Files) read(trustDomain string, now time.Time) (*trust, error) {
	roots, err := readCerts(f.Root)
	if err != nil {
		return nil, err
	}
	certs, err := readCerts(f.Cert)
	if err != nil {
		return nil, err
	}
	if f.Chain != "" {
		above, err := readCerts(f.Chain)
		if err != nil {
			return nil, err
		}
		certs = append(certs, above...)
	}
	key, err := readKey(f.Key, f.Mounted)
	if err != nil {
		return nil, err
	}
	is := &issuer{cert: certs[0], key: key}
	if err := checkAuthority(f, is, now); err != nil {
		return nil, err
	}
	intermediates := x509.NewCertPool()
	for i, c := range certs {
		if isRoot(c, roots) || (i > 0 && c.Equal(certs[0])) {
			continue
		}
		intermediates.AddCert(c)
		is.chain = append(is.chain, encodeCert(c))
	}
	if roots, err = is.verify(trustDomain, roots, intermediates, now); err != nil {
		return nil, fmt.Errorf("%s: does not lead to a root in %s: %w", f.Cert, f.Root, err)
	}
	t := newTrust(is, roots...)
	if f.CRL != "" {
		if t.revoked, err = f.revocations(append(certs, roots...)); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// revocations reads the revocation lists of some authorities.
func (f Files) revocations(authorities []*x509.Certificate) ([][]byte, error) {
	text, err := os.ReadFile(f.CRL)
	if err != nil {
		return nil, fmt.Errorf("revocation lists: %w", err)
	}
	lists, err := revocation.Load(text, authorities)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.CRL, err)
	}
	return lists, nil
}

func checkAuthority(f Files, is *issuer, now time.Time) error {
	c := is.cert
	switch {
	case !keyMatches(is.key, c):
		return fmt.Errorf("%s: is not the key of the certificate in %s", f.Key, f.Cert)
	case !c.BasicConstraintsValid || !c.IsCA:
		return fmt.Errorf("%s: is not a CA certificate (basicConstraints CA:TRUE is needed)", f.Cert)
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return fmt.Errorf("%s: its key usage does not allow signing certificates", f.Cert)
	case !now.Before(c.NotAfter):
		return fmt.Errorf("%s: expired at %s", f.Cert, c.NotAfter.Format(time.RFC3339))
	case now.Before(c.NotBefore):
		return fmt.Errorf("%s: not valid before %s", f.Cert, c.NotBefore.Format(time.RFC3339))
	}
	return nil
}

// verify signs a certificate for nobody and verifies it, which covers path
// lengths and name constraints. It gives the roots with the one that the chain
// ends in first.
func (is *issuer) verify(trustDomain string, roots []*x509.Certificate, intermediates *x509.CertPool, now time.Time) ([]*x509.Certificate, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	probe := identity.ID{TrustDomain: trustDomain, Namespace: "probe", ServiceAccount: "probe"}
	leaf, err := is.signWorkload(probe, key.Public(), now.Add(-time.Minute), now.Add(time.Minute))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, err
	}
	end := chains[0][len(chains[0])-1]
	ordered := []*x509.Certificate{end}
	for _, r := range roots {
		if !r.Equal(end) {
			ordered = append(ordered, r)
		}
	}
	return ordered, nil
}

func isRoot(c *x509.Certificate, roots []*x509.Certificate) bool {
	for _, r := range roots {
		if r.Equal(c) {
			return true
		}
	}
	return false
}

func readCerts(path string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("CA certificate: %w", err)
	}
	certs, err := parseCerts(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return certs, nil
}

// parseCerts reads one or more PEM certificates.
func parseCerts(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %q where only CERTIFICATE is expected", clip(block.Type))
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("no PEM certificate in it")
	}
	return certs, nil
}

func readKey(path string, mounted bool) (crypto.Signer, error) {
	read := statefile.ReadPrivate
	if mounted {
		read = statefile.ReadMounted
	}
	data, err := read(path, maxPEMFile)
	if err != nil {
		return nil, fmt.Errorf("CA key: %w", err)
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

func parseKey(data []byte) (crypto.Signer, error) {
	// openssl ecparam writes a parameter block before the key.
	block, rest := pem.Decode(data)
	if block != nil && block.Type == "EC PARAMETERS" {
		block, _ = pem.Decode(rest)
	}
	if block == nil {
		return nil, errors.New("no PEM private key in it")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("PEM block %q; want an unencrypted PRIVATE KEY", clip(block.Type))
	}
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("private key of type %T cannot sign", key)
	}
	return signer, nil
}

// stamp changes when one of the files does.
func (f Files) stamp() string {
	var b strings.Builder
	for _, path := range []string{f.Root, f.Cert, f.Key, f.Chain, f.CRL} {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			fmt.Fprintf(&b, "%v;", err)
			continue
		}
		fmt.Fprintf(&b, "%d %d;", info.ModTime().UnixNano(), info.Size())
	}
	return b.String()
}
