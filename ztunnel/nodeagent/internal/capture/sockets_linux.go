package capture

import (
	"errors"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Connections are the TCP connections of a namespace that go through ztunnel.
type Connections struct {
	// Live are those of the pod's programs: redirected, or delivered to them
	// from the address of their client.
	Live int
	// Tunnels are peers' connections to the tunnel port, which stay open for a
	// while when they carry nothing.
	Tunnels int
}

// connections counts sockets that still carry, or may carry, bytes.
func (k *kernel) connections() (Connections, error) {
	var n Connections
	own, err := k.ownAddresses()
	if err != nil {
		return n, err
	}
	for _, af := range []uint8{unix.AF_INET, unix.AF_INET6} {
		sockets, err := k.route.SocketDiagTCP(af)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			if af == unix.AF_INET6 && errors.Is(err, unix.ENOENT) {
				continue // a kernel without IPv6
			}
			return n, err
		}
		for _, s := range sockets {
			switch {
			case !isOpen(s.State):
			case s.ID.SourcePort == TunnelPort:
				n.Tunnels++
			case s.ID.SourcePort == OutboundPort, s.ID.SourcePort == InboundPort, s.ID.SourcePort == DNSPort, !own(s.ID.Source):
				n.Live++
			}
		}
	}
	return n, nil
}

func isOpen(state uint8) bool {
	return state != netlink.TCP_LISTEN && state != netlink.TCP_TIME_WAIT && state != netlink.TCP_CLOSE
}

// ownAddresses gives a test for addresses of the namespace. A socket with any
// other source is one that delivers for a client elsewhere.
func (k *kernel) ownAddresses() (func(net.IP) bool, error) {
	addrs, err := k.route.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	own := make(map[string]bool, len(addrs))
	for _, a := range addrs {
		own[a.IP.String()] = true
	}
	return func(ip net.IP) bool { return ip.IsLoopback() || ip.IsUnspecified() || own[ip.String()] }, nil
}
