package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"

	"github.com/ambit-mesh/ambit/internal/wds"
)

// ErrProhibited is an address that a host outside cannot have, whatever its name
// resolves to.
var ErrProhibited = errors.New("not an address of a host outside")

// outside connects to a host outside of the mesh in plaintext: to an endpoint that was
// given for it, where the client wants to go, or to what the waypoint's resolvers say.
// Of several addresses the standard library tries one after the other, each with its
// share of the time, and both families side by side (RFC 8305).
func (d *Dialer) outside(ctx context.Context, svc *wds.Service, ep wds.Endpoint, client *Client) (Conn, error) {
	at := outsideName(svc, ep, client)
	if at == "" {
		return nil, fmt.Errorf("which host below %s is meant is not known", svc.Hostname)
	}
	nd := net.Dialer{Resolver: d.Resolver, ControlContext: d.prohibit}
	c, err := nd.DialContext(ctx, "tcp", at)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// outsideName gives the host and port to connect to; "" when a wildcard does not tell.
func outsideName(svc *wds.Service, ep wds.Endpoint, client *Client) string {
	if svc.Passthrough {
		return client.To.String()
	}
	if at := ep.Address(client.To.Addr().Is4()); at.Addr().IsValid() {
		return at.String()
	}
	host := ep.Workload.Hostname
	if strings.HasPrefix(host, "*.") {
		host = client.Host
	}
	if host == "" {
		return ""
	}
	// With the dot it is no name below the waypoint's own search domains.
	return net.JoinHostPort(strings.TrimSuffix(host, ".")+".", strconv.Itoa(int(ep.Port)))
}

// prohibit looks at the address that a name has come to: whoever has a say in the
// DNS must not reach what only the waypoint itself can, and nobody the enrolled in
// plaintext. Through a tunnel they are not reached either: their nodes would take the
// waypoint for the client, and so let in whom their policies refuse.
func (d *Dialer) prohibit(_ context.Context, _, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	// Its admin port listens on loopback.
	if a := at.Addr().Unmap(); a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() || ownAddress(a) {
		return fmt.Errorf("%s: %w: it leads to the waypoint itself or its link", a, ErrProhibited)
	}
	if d.Enrolled == nil {
		return nil
	}
	if what, ok := d.Enrolled(at.Addr()); ok {
		return fmt.Errorf("%s: %w: it is that of %s, which is in the mesh: connect to a Service of it by its own name", at.Addr().Unmap(), ErrProhibited, what)
	}
	return nil
}

// ownAddress says whether an interface of the waypoint has the address.
func ownAddress(a netip.Addr) bool {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return true // better not
	}
	for _, i := range list {
		if p, err := netip.ParsePrefix(i.String()); err == nil && p.Addr().Unmap() == a {
			return true
		}
	}
	return false
}
