package ca

import (
	"crypto/x509"
	"encoding/pem"
	"net/url"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/identity"
)

var fuzzID = identity.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "cart"}

// FuzzParseCSR: no input crashes, and what passes is a P-256 key whose CSR names
// nothing but the identity.
func FuzzParseCSR(f *testing.F) {
	key, err := newKey()
	if err != nil {
		f.Fatal(err)
	}
	foreign := fuzzID
	foreign.Namespace = "bank"
	for _, tmpl := range []*x509.CertificateRequest{
		{}, {URIs: []*url.URL{fuzzID.URL()}}, {URIs: []*url.URL{foreign.URL()}}, {DNSNames: []string{"a.example"}, EmailAddresses: []string{"a@b"}},
	} {
		der, err := x509.CreateCertificateRequest(nil, tmpl, key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})))
	}
	f.Add("")
	f.Add("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		pub, err := parseCSR(text, fuzzID)
		if err != nil {
			return
		}
		block, _ := pem.Decode([]byte(text))
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil || pub.Params().Name != "P-256" {
			t.Fatalf("accepted %v, %v", err, pub.Params().Name)
		}
		if len(csr.DNSNames)+len(csr.EmailAddresses)+len(csr.IPAddresses) > 0 {
			t.Fatal("accepted a name that is no URI")
		}
		for _, u := range csr.URIs {
			if u.String() != fuzzID.String() {
				t.Fatalf("accepted %s", u)
			}
		}
	})
}

// FuzzDecodeState: no damage of the state file crashes, and what passes can be
// written and read again.
func FuzzDecodeState(f *testing.F) {
	cfg := &Config{TrustDomain: "cluster.local", TTL: time.Hour, IntermediateLife: 24 * time.Hour, RootLife: 240 * time.Hour, RotationOverlap: time.Hour}
	now := time.Now()
	g, err := mintGeneration(cfg, now)
	if err != nil {
		f.Fatal(err)
	}
	s := &state{phase: steady, issuing: g}
	add := func(s *state) {
		data, err := encodeState(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	add(s)
	if s, err = s.introduce(cfg, now); err != nil {
		f.Fatal(err)
	}
	add(s)
	if s, _, err = s.step(cfg, now.Add(2*time.Hour)); err != nil {
		f.Fatal(err)
	}
	add(s)
	f.Add([]byte(`{"format":1,"phase":"steady"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeState(data)
		if err != nil {
			return
		}
		again, err := encodeState(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeState(again); err != nil {
			t.Fatal(err)
		}
	})
}
