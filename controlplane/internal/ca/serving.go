package ca

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
)

// serving is the control plane's own certificate.
type serving struct {
	mu      sync.Mutex
	cert    *tls.Certificate // guarded by mu
	issuer  *issuer          // guarded by mu; who signed cert
	renewAt time.Time        // guarded by mu
}

// ServerTLS gives the configuration of the control plane's listener. Clients
// prove themselves by a bearer token, so none is asked for a certificate.
func (a *Authority) ServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{"h2"},
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return a.servingCertificate()
		},
	}
}

// servingCertificate renews at half life and when the issuer has changed. If
// that fails the former certificate serves until it expires.
func (a *Authority) servingCertificate() (*tls.Certificate, error) {
	s, now, is := &a.serving, a.cfg.Now(), a.current.Load().issuer
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cert != nil && s.issuer == is && now.Before(s.renewAt) {
		return s.cert, nil
	}
	cert, err := a.mintServing(is, now)
	if err != nil {
		if s.cert != nil && now.Before(s.cert.Leaf.NotAfter) {
			a.cfg.Log.Error("serving certificate not renewed; the former one serves until it expires", zap.Time("expires", s.cert.Leaf.NotAfter), zap.Error(err))
			return s.cert, nil
		}
		return nil, err
	}
	s.cert, s.issuer = cert, is
	s.renewAt = now.Add(cert.Leaf.NotAfter.Sub(now) / 2)
	return cert, nil
}

func (a *Authority) mintServing(is *issuer, now time.Time) (*tls.Certificate, error) {
	key, err := newKey()
	if err != nil {
		return nil, fmt.Errorf("serving certificate: %w", err)
	}
	notBefore, notAfter, err := is.validity(now, a.cfg.TTL)
	if err != nil {
		return nil, fmt.Errorf("serving certificate: %w", err)
	}
	leaf, err := is.signServing(a.cfg.ServingNames, key.Public(), notBefore, notAfter)
	if err != nil {
		return nil, fmt.Errorf("serving certificate: %w", err)
	}
	cert := &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	for _, text := range is.chain {
		block, _ := pem.Decode([]byte(text))
		cert.Certificate = append(cert.Certificate, block.Bytes)
	}
	return cert, nil
}
