package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/trace"
)

// originated is the TLS over which requests are sent to a port (BackendTLSPolicy).
// It is immutable; connections of another one are never used.
type originated struct {
	config *tls.Config // for HTTP/1.1
	h2     *tls.Config
	bytes  *tls.Config // for whatever a client speaks
	err    error       // instead of them: nothing may be sent
}

// ErrBackendTLS is TLS to a backend that cannot be done as its policy wants.
var ErrBackendTLS = errors.New("TLS to the backend")

// originate compiles the TLS of a service's ports.
func originate(b *waypoint.Backend) map[uint16]*originated {
	if len(b.GetTls()) == 0 {
		return nil
	}
	out := make(map[uint16]*originated, len(b.GetTls()))
	for _, t := range b.GetTls() {
		port := uint16(t.GetPort()) // #nosec G115 -- the port of a Service
		o := &originated{}
		if base, err := clientTLS(t); err != nil {
			o.err = fmt.Errorf("%w: BackendTLSPolicy %s: %w", ErrBackendTLS, t.GetPolicy(), err)
		} else {
			o.config, o.h2, o.bytes = base, base.Clone(), base.Clone()
			o.config.NextProtos, o.h2.NextProtos = []string{"http/1.1"}, []string{"h2"}
		}
		out[port] = o
	}
	return out
}

func clientTLS(t *waypoint.BackendTLS) (*tls.Config, error) {
	if t.GetInvalid() != "" {
		return nil, errors.New(t.GetInvalid())
	}
	if t.GetHostname() == "" {
		return nil, errors.New("it has no hostname")
	}
	roots := x509.NewCertPool()
	switch {
	case t.GetSystemCertificates():
		var err error
		if roots, err = x509.SystemCertPool(); err != nil {
			return nil, fmt.Errorf("certificates of the system: %w", err)
		}
	case !roots.AppendCertsFromPEM([]byte(t.GetCaCertificates())):
		return nil, errors.New("it has no CA certificate that can be read")
	}
	v := &verifier{roots: roots, hostname: t.GetHostname(), names: t.GetDnsNames(), uris: t.GetUris()}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: t.GetHostname(),
		// Verified by VerifyConnection: the name that is sent need not be the one that
		// the certificate has to have.
		InsecureSkipVerify: true, // #nosec G402
		VerifyConnection:   v.verify,
	}, nil
}

// verifier checks the certificate of a backend.
type verifier struct {
	roots       *x509.CertPool
	hostname    string
	names, uris []string
}

func (v *verifier) verify(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("it has no certificate")
	}
	leaf := s.PeerCertificates[0]
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	opts := x509.VerifyOptions{Roots: v.roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if _, err := leaf.Verify(opts); err != nil {
		return err
	}
	if len(v.names)+len(v.uris) == 0 {
		return leaf.VerifyHostname(v.hostname)
	}
	for _, u := range leaf.URIs {
		if slices.Contains(v.uris, u.String()) {
			return nil
		}
	}
	for _, want := range v.names {
		if named(leaf, strings.ToLower(want)) {
			return nil
		}
	}
	return fmt.Errorf("its certificate has none of the subject alternative names %s", strings.Join(append(slices.Clone(v.names), v.uris...), ", "))
}

// named says whether a certificate is for a name. A name "*.x" is met by every name
// with one label before .x (RFC 9525 section 6.3), and by the wildcard itself.
func named(leaf *x509.Certificate, want string) bool {
	suffix, wild := strings.CutPrefix(want, "*")
	if !wild {
		return leaf.VerifyHostname(want) == nil
	}
	return slices.ContainsFunc(leaf.DNSNames, func(have string) bool {
		label, ok := strings.CutSuffix(strings.ToLower(have), suffix)
		return ok && label != "" && !strings.Contains(label, ".")
	})
}

// unknownTLS is that of a host outside of which only that it is needed is known.
var unknownTLS = &originated{err: fmt.Errorf("%w: how it is done, which a BackendTLSPolicy says, has not come from the control plane", ErrBackendTLS)}

// tls gives the TLS of the port; nil for none.
func (c *Cluster) tls() *originated {
	if o := c.originated.Load(); o != nil {
		return o
	}
	if svc := c.current().svc; !c.key.udp && svc != nil && svc.OriginatesTLS(c.key.port) {
		return unknownTLS
	}
	return nil
}

// Secured says whether requests are sent over TLS of the application's own.
func (c *Cluster) Secured() bool { return c.tls() != nil }

// Outside says whether it is a host outside of the mesh.
func (c *Cluster) Outside() bool {
	svc := c.current().svc
	return svc != nil && svc.External
}

// Pass opens a connection for what a client speaks, which is passed on as it is: in TLS
// to a host outside that wants it, unless the client speaks that itself. Inside of the
// mesh it is in a tunnel, and never in TLS of the waypoint.
func (c *Cluster) Pass(ctx context.Context, e *Endpoint, client *Client, timeout time.Duration, encrypted bool) (Conn, trace.Context, error) {
	if encrypted || !c.Outside() {
		return c.Connect(ctx, e, client, timeout)
	}
	return c.open(ctx, e, client, c.tls(), waypoint.Protocol_PROTOCOL_TCP, timeout)
}

// open opens a connection for requests, or for what a client speaks.
func (c *Cluster) open(ctx context.Context, e *Endpoint, client *Client, o *originated, proto waypoint.Protocol, timeout time.Duration) (Conn, trace.Context, error) {
	if o == nil {
		return c.Connect(ctx, e, client, timeout)
	}
	where := called(c.current().svc, *e.current.Load(), client)
	if o.err != nil {
		return nil, trace.Context{}, &ConnectError{Endpoint: where, Err: o.err}
	}
	if timeout == 0 {
		timeout = c.set.dialer.Timeout
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	raw, via, err := c.Connect(limited, e, client, timeout)
	if err != nil {
		return nil, via, err
	}
	config := o.config
	switch proto {
	case waypoint.Protocol_PROTOCOL_HTTP2:
		config = o.h2
	case waypoint.Protocol_PROTOCOL_TCP:
		config = o.bytes
	}
	conn := tls.Client(raw, config)
	err = conn.HandshakeContext(limited)
	if got := conn.ConnectionState().NegotiatedProtocol; err == nil && proto == waypoint.Protocol_PROTOCOL_HTTP2 && got != "h2" {
		err = errors.New("it does not agree to HTTP/2 (ALPN h2)")
	}
	if err != nil {
		_ = raw.Close()
		return nil, via, &ConnectError{Endpoint: where, Err: fmt.Errorf("%w: %w", ErrBackendTLS, err)}
	}
	return conn, via, nil
}
