package ca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	recordName   = "authority.json"
	recordFormat = 1
	maxRecord    = 1 << 20
)

// record is state on disk: one file, so that no crash separates a key from its
// certificate or a phase from its keys.
type record struct {
	Format  int               `json:"format"`
	Phase   phase             `json:"phase"`
	Until   time.Time         `json:"until,omitzero"`
	Issuing generationRecord  `json:"issuing"`
	Other   *generationRecord `json:"other,omitempty"`
}

type generationRecord struct {
	RootCert          string  `json:"rootCert"`
	RootKey           string  `json:"rootKey,omitempty"`
	Cert              string  `json:"cert"`
	Key               string  `json:"key,omitempty"`
	LongestTTLSeconds float64 `json:"longestTTLSeconds"`
}

func encodeState(s *state) ([]byte, error) {
	rec := record{Format: recordFormat, Phase: s.phase, Until: s.until}
	var err error
	if rec.Issuing, err = s.issuing.encode(); err != nil {
		return nil, err
	}
	if s.other != nil {
		other, err := s.other.encode()
		if err != nil {
			return nil, err
		}
		rec.Other = &other
	}
	return json.MarshalIndent(rec, "", "  ")
}

func decodeState(data []byte) (*state, error) {
	var rec record
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&rec); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("data after the end")
	}
	if rec.Format != recordFormat {
		return nil, fmt.Errorf("format %d, want %d", rec.Format, recordFormat)
	}
	s := &state{phase: rec.Phase, until: rec.Until}
	var err error
	if s.issuing, err = rec.Issuing.decode(true); err != nil {
		return nil, fmt.Errorf("issuing: %w", err)
	}
	switch rec.Phase {
	case steady:
		if rec.Other != nil {
			return nil, errors.New("a second root in phase steady")
		}
		return s, nil
	case introducing, retiring:
		if rec.Other == nil || rec.Until.IsZero() {
			return nil, fmt.Errorf("phase %s without a second root or without its end", rec.Phase)
		}
	default:
		return nil, fmt.Errorf("phase %q", clip(string(rec.Phase)))
	}
	if s.other, err = rec.Other.decode(rec.Phase == introducing); err != nil {
		return nil, fmt.Errorf("other: %w", err)
	}
	return s, nil
}

func (g *generation) encode() (generationRecord, error) {
	rec := generationRecord{RootCert: encodeCert(g.root), Cert: encodeCert(g.cert), LongestTTLSeconds: g.longestTTL.Seconds()}
	for _, k := range []struct {
		key crypto.Signer
		to  *string
	}{{g.rootKey, &rec.RootKey}, {g.key, &rec.Key}} {
		if k.key == nil {
			continue
		}
		der, err := x509.MarshalPKCS8PrivateKey(k.key)
		if err != nil {
			return rec, err
		}
		*k.to = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	return rec, nil
}

// decode proves that the parts belong together.
func (rec *generationRecord) decode(withKeys bool) (*generation, error) {
	const maxTTLSeconds = 100 * 365 * 24 * 3600
	if rec.LongestTTLSeconds <= 0 || rec.LongestTTLSeconds > maxTTLSeconds {
		return nil, fmt.Errorf("longestTTLSeconds %v", rec.LongestTTLSeconds)
	}
	g := &generation{longestTTL: time.Duration(rec.LongestTTLSeconds * float64(time.Second))}
	var err error
	if g.root, err = parseOneCert(rec.RootCert); err != nil {
		return nil, fmt.Errorf("rootCert: %w", err)
	}
	if g.cert, err = parseOneCert(rec.Cert); err != nil {
		return nil, fmt.Errorf("cert: %w", err)
	}
	if err := g.cert.CheckSignatureFrom(g.root); err != nil {
		return nil, fmt.Errorf("cert is not signed by rootCert: %w", err)
	}
	if !withKeys {
		return g, nil
	}
	if g.rootKey, err = parseKeyOf(rec.RootKey, g.root); err != nil {
		return nil, fmt.Errorf("rootKey: %w", err)
	}
	if g.key, err = parseKeyOf(rec.Key, g.cert); err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return g, nil
}

func parseOneCert(text string) (*x509.Certificate, error) {
	certs, err := parseCerts([]byte(text))
	if err != nil {
		return nil, err
	}
	if len(certs) != 1 {
		return nil, fmt.Errorf("%d certificates, want one", len(certs))
	}
	return certs[0], nil
}

func parseKeyOf(text string, cert *x509.Certificate) (crypto.Signer, error) {
	key, err := parseKey([]byte(text))
	if err != nil {
		return nil, err
	}
	if !keyMatches(key, cert) {
		return nil, errors.New("does not belong to its certificate")
	}
	return key, nil
}

func keyMatches(key crypto.Signer, cert *x509.Certificate) bool {
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(cert.PublicKey)
}
