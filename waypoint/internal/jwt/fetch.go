package jwt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Fetcher gets what is at a URI. It returns when ctx ends.
type Fetcher interface {
	Fetch(ctx context.Context, uri string) ([]byte, error)
}

// HTTPFetcher fetches by http and https. It does without a proxy, and keeps no
// connections between fetches.
type HTTPFetcher struct{ client *http.Client }

var _ Fetcher = (*HTTPFetcher)(nil)

// Dial connects to an address, host:port.
type Dial func(ctx context.Context, network, addr string) (net.Conn, error)

// NewHTTPFetcher makes one that connects with dial; nil: as the machine does.
func NewHTTPFetcher(dial Dial) *HTTPFetcher {
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	return &HTTPFetcher{&http.Client{CheckRedirect: redirect, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			return dial(ctx, network, addr)
		},
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    5 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableKeepAlives:      true,
		ForceAttemptHTTP2:      true,
	}}}
}

const maxRedirects = 3

var errDowngrade = errors.New("redirected from https to http")

func redirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("redirected more than %d times", maxRedirects)
	}
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return errDowngrade
	}
	return nil
}

// Fetch implements Fetcher.
func (f *HTTPFetcher) Fetch(ctx context.Context, uri string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	req.Header.Set("User-Agent", "ambit-waypoint")
	resp, err := f.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %d", resp.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxSetBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxSetBytes {
		return nil, fmt.Errorf("it answered more than %d bytes", maxSetBytes)
	}
	return b, nil
}
