package upstream

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/internal/wds"
)

// nameTries is how many endpoints of a service are tried.
const nameTries = 3

// DialName connects the waypoint itself to host:port, as net.Dialer does. What is
// the name or the address of a service of the mesh is reached as requests are,
// through a tunnel to an endpoint, and not at all while there is none; everything
// else as it is, unless that leads to what is enrolled, or to the waypoint. domains are
// what a short name is tried with at its end.
func (s *Set) DialName(ctx context.Context, addr, namespace string, domains ...string) (net.Conn, error) {
	host, port, err := splitAddress(addr)
	if err != nil {
		return nil, err
	}
	svc := s.named(host, namespace, domains)
	if svc == nil || svc.External || svc.Passthrough {
		nd := net.Dialer{Resolver: s.dialer.Resolver, ControlContext: s.dialer.prohibit}
		return nd.DialContext(ctx, "tcp", addr)
	}
	c := s.Cluster(svc.Key, port)
	var pick Pick
	for n := 1; ; n++ {
		e, err := c.Choose(pick)
		if err != nil {
			return nil, err
		}
		conn, _, err := c.Connect(ctx, e, new(Client), 0)
		if err == nil || n == nameTries || ctx.Err() != nil {
			return conn, err
		}
		pick.Avoid = append(pick.Avoid, e)
	}
}

func splitAddress(addr string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("address %s: port %q is not one of 1 to 65535", addr, text)
	}
	return host, uint16(n), nil
}

// named finds a service by address or name, as a resolver of the namespace would.
func (s *Set) named(host, namespace string, domains []string) *wds.Service {
	if a, err := netip.ParseAddr(host); err == nil {
		return s.store.ServiceAt(namespace, a)
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if svc := s.store.ServiceNamed(namespace, host); svc != nil {
		return svc
	}
	for _, d := range domains {
		if svc := s.store.ServiceNamed(namespace, host+"."+d); svc != nil {
			return svc
		}
	}
	return nil
}
