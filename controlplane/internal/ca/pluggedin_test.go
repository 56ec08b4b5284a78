package ca_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ambit-mesh/ambit/controlplane/internal/ca"
	"github.com/ambit-mesh/ambit/controlplane/internal/nodes"
)

// node of a PKI: a certificate and its key.
type signer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func makeCA(t *testing.T, cn string, parent *signer, change func(*x509.Certificate)) *signer {
	t.Helper()
	key := newKey(t)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: cn},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(240 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	if change != nil {
		change(tmpl)
	}
	from := &signer{cert: tmpl, key: key}
	if parent != nil {
		from = parent
	}
	der, err := x509.CreateCertificate(nil, tmpl, from.cert, key.Public(), from.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{cert: cert, key: key}
}

type pluggedIn struct {
	roots, chain []*signer
	issuing      *signer
	key          crypto.Signer
}

func (p pluggedIn) write(t *testing.T, dir string) ca.Files {
	t.Helper()
	certs := func(name string, list ...*signer) string {
		var data []byte
		for _, s := range list {
			data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.cert.Raw})...)
		}
		return writeFile(t, filepath.Join(dir, name), data)
	}
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		t.Fatal(err)
	}
	f := ca.Files{
		Root: certs("root.pem", p.roots...), Cert: certs("ca.pem", p.issuing),
		Key: writeFile(t, filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	}
	if len(p.chain) > 0 {
		f.Chain = certs("chain.pem", p.chain...)
	}
	return f
}

func writeFile(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPluggedIn(t *testing.T) {
	root := makeCA(t, "root", nil, nil)
	middle := makeCA(t, "middle", root, nil)
	narrow := makeCA(t, "narrow", root, func(c *x509.Certificate) { c.MaxPathLenZero = true })
	elsewhere := makeCA(t, "elsewhere", nil, nil)
	under := func(parent *signer, change func(*x509.Certificate)) *signer {
		return makeCA(t, "issuing", parent, change)
	}
	direct, below, tooDeep := under(root, nil), under(middle, nil), under(narrow, nil)
	expired := under(root, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	early := under(root, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })
	noCA := under(root, func(c *x509.Certificate) { c.IsCA = false; c.KeyUsage = x509.KeyUsageDigitalSignature })
	constrained := under(root, func(c *x509.Certificate) { c.PermittedURIDomains = []string{"other.example"} })
	for name, tc := range map[string]struct {
		p     pluggedIn
		chain int
		want  string
	}{
		"issuing under root":      {pluggedIn{roots: []*signer{root}, issuing: direct, key: direct.key}, 3, ""},
		"root issues":             {pluggedIn{roots: []*signer{root}, issuing: root, key: root.key}, 2, ""},
		"two levels":              {pluggedIn{roots: []*signer{elsewhere, root}, issuing: below, chain: []*signer{middle}, key: below.key}, 4, ""},
		"chain repeats the rest":  {pluggedIn{roots: []*signer{root}, issuing: below, chain: []*signer{below, middle, root}, key: below.key}, 4, ""},
		"missing link":            {pluggedIn{roots: []*signer{root}, issuing: below, key: below.key}, 0, "does not lead to a root"},
		"key of another":          {pluggedIn{roots: []*signer{root}, issuing: direct, key: below.key}, 0, "is not the key of"},
		"foreign root":            {pluggedIn{roots: []*signer{elsewhere}, issuing: direct, key: direct.key}, 0, "does not lead to a root"},
		"expired":                 {pluggedIn{roots: []*signer{root}, issuing: expired, key: expired.key}, 0, "expired at"},
		"not yet valid":           {pluggedIn{roots: []*signer{root}, issuing: early, key: early.key}, 0, "not valid before"},
		"no CA":                   {pluggedIn{roots: []*signer{root}, issuing: noCA, key: noCA.key}, 0, "is not a CA certificate"},
		"path length exceeded":    {pluggedIn{roots: []*signer{root}, issuing: tooDeep, chain: []*signer{narrow}, key: tooDeep.key}, 0, "too many intermediates"},
		"name constraint forbids": {pluggedIn{roots: []*signer{root}, issuing: constrained, key: constrained.key}, 0, "not permitted"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t.TempDir())
			cfg.PluggedIn = tc.p.write(t, t.TempDir())
			a, err := ca.New(cfg)
			if tc.want != "" {
				assertError(t, err, tc.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			resp, err := ca.NewService(a, onlyShop{}).CreateCertificate(nodes.NewContext(t.Context(), nodes.Caller{Node: "n1"}), ask(shop, csr(t, newKey(t), &x509.CertificateRequest{URIs: []*url.URL{uri(t, shop)}}), 0))
			if err != nil {
				t.Fatal(err)
			}
			if len(resp.CertChain) != tc.chain {
				t.Errorf("chain of %d, want %d", len(resp.CertChain), tc.chain)
			}
			leaf, inter, roots := parseChain(t, resp.CertChain)
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
				t.Error(err)
			}
			if err := a.Rotate(); err == nil {
				t.Error("rotated a root that is not ours")
			}
		})
	}
}

func TestPluggedInKeyMustBePrivate(t *testing.T) {
	root := makeCA(t, "root", nil, nil)
	cfg := config(t.TempDir())
	cfg.PluggedIn = pluggedIn{roots: []*signer{root}, issuing: root, key: root.key}.write(t, t.TempDir())
	if err := os.Chmod(cfg.PluggedIn.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := ca.New(cfg)
	assertError(t, err, "chmod 0600")
}

func TestPluggedInFilesAreReloaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		root := makeCA(t, "root", nil, nil)
		one, two := makeCA(t, "one", root, nil), makeCA(t, "two", root, nil)
		cfg := config(t.TempDir())
		core, logs := observer.New(zap.ErrorLevel)
		cfg.Log = zap.New(core)
		cfg.PluggedIn = pluggedIn{roots: []*signer{root}, issuing: one, key: one.key}.write(t, dir)
		a := newAuthority(t, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		before := a.Status().IssuerSerial
		synctest.Wait()

		touch := func() {
			for _, f := range []string{cfg.PluggedIn.Cert, cfg.PluggedIn.Key} {
				// File times are real, the bubble's clock is not.
				if err := os.Chtimes(f, time.Time{}, time.Now().Add(time.Hour)); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		pluggedIn{roots: []*signer{root}, issuing: two, key: one.key}.write(t, dir)
		touch()
		if a.Status().IssuerSerial != before || logs.Len() != 1 {
			t.Fatalf("mismatching files: issuer changed or logged %d times", logs.Len())
		}
		pluggedIn{roots: []*signer{root}, issuing: two, key: two.key}.write(t, dir)
		touch()
		if a.Status().IssuerSerial == before {
			t.Fatal("good files not taken")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
