package xdsclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// Target says how to reach a control plane and prove who is calling.
type Target struct {
	// Address is host:port.
	Address string
	// ServerName is what the server's certificate must be for; the host of
	// Address when empty.
	ServerName string
	// RootFile holds the PEM roots of the control plane. It is read at every
	// handshake, so that a rotated root needs no restart.
	RootFile string
	// TokenFile holds the caller's bearer token. It is read at every call.
	TokenFile string
	// ClusterID is sent as the clusterid header.
	ClusterID string
}

// Validate names the first field that cannot be used.
func (t Target) Validate() error {
	if _, _, err := net.SplitHostPort(t.Address); err != nil {
		return fmt.Errorf("control plane address %q: want host:port", t.Address)
	}
	if t.RootFile == "" {
		return errors.New("control plane root file: must be set; the connection is never made unverified")
	}
	if t.TokenFile == "" {
		return errors.New("control plane token file: must be set")
	}
	return nil
}

// maxMessage is the largest message that is accepted, in bytes; a first push of
// a very large mesh is one message.
const maxMessage = 200 << 20

// Connect makes a client connection. Nothing is dialled before its first use.
func Connect(t Target) (*grpc.ClientConn, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	cc, err := grpc.NewClient("passthrough:///"+t.Address,
		grpc.WithTransportCredentials(&reloadingTLS{target: t}),
		grpc.WithPerRPCCredentials(tokenFile{path: t.TokenFile, clusterID: t.ClusterID}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("control plane %s: %w", t.Address, err)
	}
	return cc, nil
}

// reloadingTLS reads the roots for each handshake.
type reloadingTLS struct {
	target Target
}

func (r *reloadingTLS) current() (credentials.TransportCredentials, error) {
	pem, err := os.ReadFile(r.target.RootFile)
	if err != nil {
		return nil, fmt.Errorf("control plane roots: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("control plane roots: %s holds no PEM certificate", r.target.RootFile)
	}
	name := r.target.ServerName
	if name == "" {
		name, _, _ = net.SplitHostPort(r.target.Address) // checked by Validate
	}
	return credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: name, MinVersion: tls.VersionTLS13}), nil
}

// ClientHandshake implements credentials.TransportCredentials.
func (r *reloadingTLS) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, err := r.current()
	if err != nil {
		return nil, nil, err
	}
	return c.ClientHandshake(ctx, authority, raw)
}

// ServerHandshake implements credentials.TransportCredentials; it is for clients only.
func (r *reloadingTLS) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.ErrUnsupported
}

// Info implements credentials.TransportCredentials.
func (r *reloadingTLS) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls", ServerName: r.target.ServerName}
}

// Clone implements credentials.TransportCredentials.
func (r *reloadingTLS) Clone() credentials.TransportCredentials {
	return &reloadingTLS{target: r.target}
}

// OverrideServerName implements credentials.TransportCredentials.
func (r *reloadingTLS) OverrideServerName(name string) error {
	r.target.ServerName = name
	return nil
}

// tokenFile puts the token of a file on each call.
type tokenFile struct {
	path      string
	clusterID string
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (t tokenFile) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	b, err := os.ReadFile(t.path)
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return nil, fmt.Errorf("token: %s is empty", t.path)
	}
	return map[string]string{"authorization": "Bearer " + token, "clusterid": t.clusterID}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (tokenFile) RequireTransportSecurity() bool { return true }
