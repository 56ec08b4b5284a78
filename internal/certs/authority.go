package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	capb "github.com/ambit-mesh/ambit/apis/ca"
	"github.com/ambit-mesh/ambit/internal/identity"
)

// Authority issues certificates.
type Authority interface {
	// Issue makes a key and has it certified for id.
	Issue(ctx context.Context, id identity.ID) (*identity.Certificate, error)
}

// Client is the authority behind an IstioCertificateService.
type Client struct {
	rpc capb.IstioCertificateServiceClient
	ttl time.Duration
}

var _ Authority = (*Client)(nil)

// NewClient makes a client that asks for certificates of the given life.
func NewClient(cc grpc.ClientConnInterface, ttl time.Duration) *Client {
	return &Client{rpc: capb.NewIstioCertificateServiceClient(cc), ttl: ttl}
}

// Issue implements Authority.
func (c *Client) Issue(ctx context.Context, id identity.ID) (*identity.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("key for %s: %w", id, err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{id.URL()}}, key)
	if err != nil {
		return nil, fmt.Errorf("CSR for %s: %w", id, err)
	}
	meta, err := structpb.NewStruct(map[string]any{"ImpersonatedIdentity": id.String()})
	if err != nil {
		return nil, fmt.Errorf("CSR for %s: %w", id, err)
	}
	resp, err := c.rpc.CreateCertificate(ctx, &capb.IstioCertificateRequest{
		Csr:              string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
		ValidityDuration: int64(c.ttl / time.Second),
		Metadata:         meta,
	})
	if err != nil {
		return nil, fmt.Errorf("certificate for %s: %w", id, err)
	}
	chain, roots, err := parseChain(resp.GetCertChain())
	if err != nil {
		return nil, fmt.Errorf("certificate for %s: %w", id, err)
	}
	return identity.NewCertificate(id, key, chain, roots, time.Now())
}

// parseChain reads the leaf, the intermediates, and as the last element the roots.
func parseChain(elements []string) (chain, roots []*x509.Certificate, err error) {
	if len(elements) < 2 {
		return nil, nil, errors.New("the authority's answer has no chain and roots")
	}
	for i, text := range elements {
		certs, err := identity.ParsePEM([]byte(text))
		if err != nil {
			return nil, nil, fmt.Errorf("element %d of the authority's answer: %w", i, err)
		}
		if i < len(elements)-1 {
			chain = append(chain, certs...)
		} else {
			roots = certs
		}
	}
	return chain, roots, nil
}
