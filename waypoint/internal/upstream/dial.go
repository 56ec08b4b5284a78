package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/tunnel"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// tunnelPort is where workloads take HBONE.
const tunnelPort = 15008

// Header fields of a CONNECT by which a waypoint says whom it speaks for. The
// destination believes them of a waypoint only.
const (
	fieldSource    = "ambit-source"
	fieldForwarded = "forwarded"
	fieldTrace     = "traceparent"
)

// Conn is a connection to an endpoint.
type Conn interface {
	net.Conn
	CloseWrite() error
}

// ConnectError is an endpoint that could not be connected to. Nothing was sent.
type ConnectError struct {
	Endpoint string
	Err      error
}

// Error names the endpoint.
func (e *ConnectError) Error() string { return "connect to " + e.Endpoint + ": " + e.Err.Error() }

// Unwrap gives the cause.
func (e *ConnectError) Unwrap() error { return e.Err }

// Dialer connects to endpoints.
type Dialer struct {
	// Certificate of the waypoint.
	Certificate func(context.Context) (*identity.Certificate, error)
	HBONE       hbone.Config
	// HBONE3 bounds tunnels over QUIC, Reach remembers where those get through: none
	// are opened if it is nil. Self gives the waypoint's own workload, nil while it is
	// not known, and Workload that of an address.
	HBONE3   hbone3.Config
	Reach    *tunnel.Reach
	Self     func() *wds.Workload
	Workload func(netip.Addr) *wds.Workload
	Timeout  time.Duration
	// Resolver of hosts outside; that of the process when nil.
	Resolver *net.Resolver
	// Enrolled names what of the mesh is at an address; nil for nothing.
	Enrolled func(netip.Addr) (what string, ok bool)
	Log      *zap.Logger

	pool  *hbone.Pool[tunnel.Key]
	pool3 *hbone3.Pool[tunnel.Key]

	mu  sync.Mutex
	own *quic.Transport // tunnels over QUIC; nil before the first; guarded by mu
}

// Open makes the dialer ready; Close ends it.
func (d *Dialer) Open() {
	if d.Timeout == 0 {
		d.Timeout = 10 * time.Second
	}
	if d.Log == nil {
		d.Log = zap.NewNop()
	}
	d.pool = hbone.NewPool(d.dialTunnel, d.Log)
	d.pool3 = hbone3.NewPool(d.dialQUIC)
}

// Close ends all tunnels, giving their streams until ctx ends.
func (d *Dialer) Close(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { d.closeQUIC(ctx) })
	d.pool.Drain(ctx)
	wg.Wait()
}

// Tunnels is the number of tunnel connections.
func (d *Dialer) Tunnels() int { return d.pool.Len() }

// Retire stops the use of tunnels to workloads that are gone.
func (d *Dialer) Retire(reachable func(uid string, addr netip.Addr) bool) {
	gone := func(k tunnel.Key) bool { return !reachable(k.UID, k.Addr.Addr()) }
	d.pool.Retire(gone)
	d.pool3.Retire(gone)
}

// Connect connects to an endpoint for a client. The context is that by which the
// records of both ends know the connection; it is none without a tunnel. Errors
// are *ConnectError.
func (d *Dialer) Connect(ctx context.Context, svc *wds.Service, ep wds.Endpoint, client *Client, timeout time.Duration) (Conn, trace.Context, error) {
	if timeout == 0 {
		timeout = d.Timeout
	}
	at := addressFor(ep, client)
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, via, err := d.connect(limited, svc, ep, at, client)
	if err == nil {
		return conn, via, nil
	}
	if ctx.Err() == nil && limited.Err() != nil {
		err = fmt.Errorf("not within %s: %w", timeout, err)
	}
	return nil, trace.Context{}, &ConnectError{Endpoint: called(svc, ep, client), Err: err}
}

// addressFor gives the address of an endpoint for a client.
func addressFor(ep wds.Endpoint, client *Client) netip.AddrPort {
	return ep.Address(client.Address.Addr().Is4() || !client.Address.IsValid())
}

// called is how errors name an endpoint.
func called(svc *wds.Service, ep wds.Endpoint, client *Client) string {
	if svc != nil && svc.External {
		return outsideName(svc, ep, client)
	}
	return fmt.Sprintf("%s (%s/%s)", addressFor(ep, client), ep.Workload.Namespace, ep.Workload.Name)
}

func (d *Dialer) connect(ctx context.Context, svc *wds.Service, ep wds.Endpoint, at netip.AddrPort, client *Client) (Conn, trace.Context, error) {
	if svc != nil && svc.External {
		c, err := d.outside(ctx, svc, ep, client)
		return c, trace.Context{}, err
	}
	if !ep.Workload.HBONE {
		var nd net.Dialer
		c, err := nd.DialContext(ctx, "tcp", at.String())
		if err != nil {
			return nil, trace.Context{}, err
		}
		return c.(*net.TCPConn), trace.Context{}, nil
	}
	via := trace.Begin()
	key := tunnel.KeyOf(netip.AddrPortFrom(at.Addr(), tunnelPort), ep.Workload.UID, ep.Peers(svc))
	s, _, cc, err := d.pool.Open(ctx, key, hbone.Request{Authority: at.String(), Fields: client.fields(via)})
	if err != nil {
		return nil, via, err
	}
	return s.Conn(cc.LocalAddr(), net.TCPAddrFromAddrPort(at)), via, nil
}

func (c *Client) fields(via trace.Context) []hbone.Field {
	fields := make([]hbone.Field, 0, 3)
	if c.ID != (identity.ID{}) && c.Address.IsValid() {
		fields = append(fields, hbone.Field{Name: fieldSource, Value: c.ID.String()},
			hbone.Field{Name: fieldForwarded, Value: `for="` + c.Address.String() + `"`})
	}
	return append(fields, hbone.Field{Name: fieldTrace, Value: via.Traceparent()})
}

func (d *Dialer) dialTunnel(ctx context.Context, key tunnel.Key) (*hbone.ClientConn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	tlsConfig, err := key.TLS(ctx, d.Certificate, tunnel.H2)
	if err != nil {
		return nil, err
	}
	var nd net.Dialer
	sock, err := nd.DialContext(ctx, "tcp", key.Addr.String())
	if err != nil {
		return nil, err
	}
	return hbone.NewClientConn(ctx, sock, tlsConfig, d.HBONE)
}

// Refused tells whether the destination's proxy answered the connection with a
// refusal of its policy, and what it said.
func Refused(err error) (status int, proxyStatus string, ok bool) {
	var r *hbone.RefusedError
	if errors.As(err, &r) {
		return r.Status, r.ProxyStatus, true
	}
	return 0, "", false
}
