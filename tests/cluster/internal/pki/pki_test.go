package pki

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
)

// What is issued is trusted for its names, by those who trust the authority, and by nobody else.
func TestIssue(t *testing.T) {
	dir := t.TempDir()
	c, err := New(dir, "https://192.0.2.1:6443", "kubernetes", "192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(c.PKI, "apiserver.crt"), filepath.Join(c.PKI, "apiserver.key"))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	for authority, want := range map[string]bool{"ca": true, "front-proxy-ca": false} {
		text, err := os.ReadFile(filepath.Join(c.PKI, authority+".crt"))
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(text)
		for _, host := range []string{"kubernetes", "192.0.2.1"} {
			if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); (err == nil) != want {
				t.Errorf("%s for %s: %v", authority, host, err)
			}
		}
	}
	if _, err := cert.Verify(x509.VerifyOptions{DNSName: "other"}); err == nil {
		t.Error("trusted for a name that it does not have")
	}
}
