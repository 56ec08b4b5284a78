package trace

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"time"

	"go.uber.org/zap"
)

// Config says where spans go. Zero values mean the defaults that are given.
type Config struct {
	// Endpoint of a collector that speaks OTLP over gRPC: host:port or
	// http://host:port without TLS, or https://host:port. Empty: no spans are made.
	Endpoint string
	// TLS is for https; nil is the system's roots.
	TLS *tls.Config
	// Dial connects to the collector; nil is the network.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Headers are sent along, for example for authentication.
	Headers map[string]string
	// Resource is what makes the spans.
	Resource Resource
	// Queue is how many spans wait at most (4096), Batch how many are sent at once
	// (512), and Interval how long a span waits for others (1 s).
	Queue, Batch int
	Interval     time.Duration
	// Timeout bounds each attempt to hand over a batch; 10 s.
	Timeout time.Duration
	// Log may be nil.
	Log *zap.Logger
}

// Resource names who makes spans. Empty fields are left out.
type Resource struct {
	Service, ServiceNamespace, Version string
	Pod, Namespace, Node, Cluster      string
}

// WithDefaults fills in the defaults.
func (c Config) WithDefaults() Config {
	if c.Queue == 0 {
		c.Queue = 4096
	}
	if c.Batch == 0 {
		c.Batch = 512
	}
	if c.Interval == 0 {
		c.Interval = time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

// Validate names the first field that cannot be used.
func (c Config) Validate() error {
	c = c.WithDefaults()
	if c.Queue < 1 || c.Batch < 1 || c.Interval < 0 || c.Timeout < 0 {
		return fmt.Errorf("tracing: queue %d, batch %d, interval %s, timeout %s: want positive ones", c.Queue, c.Batch, c.Interval, c.Timeout)
	}
	if c.Endpoint == "" {
		return nil
	}
	_, _, err := c.Address()
	return err
}

// Address gives host:port of the endpoint, and whether it wants TLS.
func (c Config) Address() (address string, secure bool, err error) {
	address = c.Endpoint
	if u, uerr := url.Parse(c.Endpoint); uerr == nil && u.Host != "" {
		if u.Scheme != "http" && u.Scheme != "https" || u.Path != "" && u.Path != "/" || u.User != nil || u.RawQuery != "" {
			return "", false, fmt.Errorf("tracing endpoint %q: want host:port, http://host:port or https://host:port", c.Endpoint)
		}
		address, secure = u.Host, u.Scheme == "https"
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || port == "" {
		return "", false, fmt.Errorf("tracing endpoint %q: want host:port, for example otel-collector.observability:4317", c.Endpoint)
	}
	return address, secure, nil
}
