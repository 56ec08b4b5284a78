package jwt

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Config of a Manager. Zero values are the defaults.
type Config struct {
	// Fetcher gets keys; nil: an HTTPFetcher.
	Fetcher Fetcher
	Log     *zap.Logger
	// Registerer may be nil.
	Registerer prometheus.Registerer
	// Leeway is how far the issuer's clock may be off; 60 s.
	Leeway time.Duration
	// MaxTokenBytes is how long a token may be; 16 KiB.
	MaxTokenBytes int
	// CacheBytes is what verified tokens may take up, about; 16 MiB.
	CacheBytes int
	// Refresh is how long keys are good for when the provider does not say; 5 min.
	Refresh time.Duration
	// FetchTimeout is how long an endpoint may take, and a request waits for it; 5 s.
	FetchTimeout time.Duration
	// MinInterval is what lies between two fetches that requests ask for; 5 s.
	MinInterval time.Duration
}

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	for _, d := range []struct {
		value     *time.Duration
		byDefault time.Duration
	}{{&c.Leeway, time.Minute}, {&c.Refresh, 5 * time.Minute}, {&c.FetchTimeout, 5 * time.Second}, {&c.MinInterval, 5 * time.Second}} {
		if *d.value <= 0 {
			*d.value = d.byDefault
		}
	}
	if c.MaxTokenBytes <= 0 {
		c.MaxTokenBytes = 16 << 10
	}
	if c.CacheBytes <= 0 {
		c.CacheBytes = 16 << 20
	}
	if c.Fetcher == nil {
		c.Fetcher = NewHTTPFetcher(nil)
	}
	return c
}
