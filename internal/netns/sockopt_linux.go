package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Keepalive of every socket made here.
const (
	keepaliveIdle     = 180 // seconds
	keepaliveInterval = 180 // seconds
	keepaliveProbes   = 9
)

// options is a list of integer socket options, set in order.
type options []option

type option struct {
	name              string
	level, opt, value int
}

func (o *options) add(name string, level, opt, value int) {
	*o = append(*o, option{name, level, opt, value})
}

// apply sets the options and says which one failed.
func (o options) apply(fd int) error {
	for _, opt := range o {
		if err := unix.SetsockoptInt(fd, opt.level, opt.opt, opt.value); err != nil {
			if errors.Is(err, unix.EPERM) {
				return fmt.Errorf("setsockopt %s: %w (needs CAP_NET_ADMIN in the user namespace of the netns)", opt.name, err)
			}
			return fmt.Errorf("setsockopt %s: %w", opt.name, err)
		}
	}
	return nil
}

// tcpOptions are those of every connection; accepted ones inherit them.
func tcpOptions(extra int) options {
	o := make(options, 0, 5+extra)
	o.add("TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	o.add("SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	o.add("TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepaliveIdle)
	o.add("TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepaliveInterval)
	o.add("TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepaliveProbes)
	return o
}

func (o *options) transparent(domain int) {
	if domain == unix.AF_INET6 {
		o.add("IPV6_TRANSPARENT", unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT, 1)
		return
	}
	o.add("IP_TRANSPARENT", unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1)
}

func domainOf(addr netip.Addr) int {
	if addr.Is4() || addr.Is4In6() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// sockaddr converts an address for a socket of the given domain. A zone has to
// be an interface index: a name would be looked up in the wrong namespace.
func sockaddr(domain int, ap netip.AddrPort) (unix.Sockaddr, error) {
	addr := ap.Addr().Unmap()
	if domain == unix.AF_INET {
		if !addr.Is4() {
			return nil, &net.AddrError{Err: "not an IPv4 address", Addr: ap.String()}
		}
		return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: addr.As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: int(ap.Port()), Addr: addr.As16()}
	if zone := addr.Zone(); zone != "" {
		index, err := strconv.ParseUint(zone, 10, 32)
		if err != nil {
			return nil, &net.AddrError{Err: "the zone must be an interface index", Addr: ap.String()}
		}
		sa.ZoneId = uint32(index)
	}
	return sa, nil
}

// addrPort converts what the kernel gave, IPv4-mapped addresses to IPv4.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 {
			addr = addr.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		return netip.AddrPortFrom(addr, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// newFile hands a non-blocking descriptor to the runtime's poller.
func newFile(fd int) *os.File { return os.NewFile(uintptr(fd), "tcp") }
