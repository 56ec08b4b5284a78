package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// ListenDatagrams opens a UDP socket within ns that is bound to an address.
func ListenDatagrams(ns *Namespace, addr netip.AddrPort, opts ListenOptions) (*net.UDPConn, error) {
	c, err := datagrams(ns, addr, opts, nil)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Addr: net.UDPAddrFromAddrPort(addr), Err: err}
	}
	return c, nil
}

// DialDatagrams opens a UDP socket within ns that talks to dst alone.
func DialDatagrams(ns *Namespace, mark uint32, dst netip.AddrPort) (*net.UDPConn, error) {
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	c, err := datagrams(ns, dst, ListenOptions{Mark: mark}, &dst)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "udp", Addr: net.UDPAddrFromAddrPort(dst), Err: err}
	}
	return c, nil
}

func datagrams(ns *Namespace, addr netip.AddrPort, opts ListenOptions, dst *netip.AddrPort) (*net.UDPConn, error) {
	if !addr.IsValid() {
		return nil, &net.AddrError{Err: "not an address", Addr: addr.String()}
	}
	domain := domainOf(addr.Addr())
	sa, err := sockaddr(domain, addr)
	if err != nil {
		return nil, err
	}
	const typ = unix.SOCK_DGRAM | unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	var fd int
	if ns == nil {
		fd, err = unix.Socket(domain, typ, 0)
	} else {
		fd, err = ns.Socket(domain, typ, 0)
	}
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), "udp")
	defer file.Close()
	var o options
	if opts.Mark != 0 {
		o.add("SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, int(opts.Mark))
	}
	if opts.ReusePort {
		o.add("SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if domain == unix.AF_INET6 {
		o.add("IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err := o.apply(fd); err != nil {
		return nil, err
	}
	if dst != nil {
		err = os.NewSyscallError("connect", unix.Connect(fd, sa))
	} else {
		err = os.NewSyscallError("bind", unix.Bind(fd, sa))
	}
	if err != nil {
		return nil, err
	}
	pc, err := net.FilePacketConn(file)
	if err != nil {
		return nil, err
	}
	c, ok := pc.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%T is not a UDP socket", pc), pc.Close())
	}
	return c, nil
}
