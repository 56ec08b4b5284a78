package ca_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ambit-mesh/ambit/controlplane/internal/ca"
)

// crl gives a revocation list of an authority, PEM.
func crl(t *testing.T, from *signer, serials ...int64) []byte {
	t.Helper()
	tmpl := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	for _, n := range serials {
		tmpl.RevokedCertificateEntries = append(tmpl.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, tmpl, from.cert, from.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// Revocation lists are told of at the start and when they change; one that is not of
// the authority changes nothing.
func TestRevocationListsAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signs := func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }
		root, other := makeCA(t, "root", nil, signs), makeCA(t, "root", nil, signs)
		issuing := makeCA(t, "issuing", root, signs)
		cfg := config(t.TempDir())
		core, logs := observer.New(zap.ErrorLevel)
		cfg.Log = zap.New(core)
		dir := t.TempDir()
		cfg.PluggedIn = pluggedIn{roots: []*signer{root}, issuing: issuing, key: issuing.key}.write(t, dir)
		cfg.PluggedIn.CRL = writeFile(t, filepath.Join(dir, "crl.pem"), append(crl(t, issuing, 1), crl(t, root)...))
		told := make(chan [][]byte, 3)
		cfg.Revoked = func(lists [][]byte) { told <- lists }
		a := newAuthority(t, cfg)
		if lists := <-told; len(lists) != 2 {
			t.Fatalf("%d lists at the start", len(lists))
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		synctest.Wait()
		age := time.Hour
		replace := func(text []byte) {
			writeFile(t, cfg.PluggedIn.CRL, text)
			// File times are real, the bubble's clock is not.
			age += time.Hour
			if err := os.Chtimes(cfg.PluggedIn.CRL, time.Time{}, time.Now().Add(age)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		replace(crl(t, other, 2))
		if len(told) > 0 || logs.Len() != 1 {
			t.Fatalf("a list of another authority: told %d times, %v", len(told), logs.All())
		}
		replace(crl(t, issuing, 1, 2))
		if len(told) != 1 || len(<-told) != 1 {
			t.Fatal("a new list is not told of")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestRevocationListsNeedAPluggedInAuthority(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.PluggedIn.CRL = "crl.pem"
	_, err := ca.New(cfg)
	assertError(t, err, "a plugged-in CA needs all of")
}
