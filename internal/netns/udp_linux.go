package netns

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// UDPOptions are options of ListenUDP and DialUDP. The zero value means none.
type UDPOptions struct {
	// Mark is the SO_MARK of the socket.
	Mark uint32
	// Transparent binds to addresses that are not of the namespace, and takes
	// datagrams that tproxy rules bring.
	Transparent bool
	// OriginalDst has each datagram come with where it was going; see
	// OriginalDstOf.
	OriginalDst bool
	// Shared lets several sockets have the address, for example those of an old
	// and a new process, or connected ones that differ in their peer.
	Shared bool
	// ReceiveBuffer is asked of the kernel, in bytes; its default if 0.
	ReceiveBuffer int
}

// ListenUDP opens a UDP socket within ns, or in the namespace of the process if ns
// is nil. An unspecified address serves both families, or IPv4 alone where the
// kernel has no IPv6. It is a socket of package net, so that batches and what else
// its users do with it work as they are used to.
func ListenUDP(ns *Namespace, addr netip.AddrPort, opts UDPOptions) (*net.UDPConn, error) {
	c, err := openUDP(ns, addr, netip.AddrPort{}, opts)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Addr: net.UDPAddrFromAddrPort(addr), Err: err}
	}
	return c, nil
}

// DialUDP opens a connected UDP socket within ns, bound to source if that is valid.
func DialUDP(ns *Namespace, source, dst netip.AddrPort, opts UDPOptions) (*net.UDPConn, error) {
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	c, err := openUDP(ns, source, dst, opts)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "udp", Source: net.UDPAddrFromAddrPort(source), Addr: net.UDPAddrFromAddrPort(dst), Err: err}
	}
	return c, nil
}

func openUDP(ns *Namespace, local, remote netip.AddrPort, opts UDPOptions) (*net.UDPConn, error) {
	of := local
	if remote.IsValid() {
		of = remote
	}
	if !of.IsValid() {
		return nil, &net.AddrError{Err: "not an address", Addr: of.String()}
	}
	domain := domainOf(of.Addr())
	dual := !remote.IsValid() && local.Addr().IsUnspecified()
	if dual {
		domain, local = unix.AF_INET6, netip.AddrPortFrom(netip.IPv6Unspecified(), local.Port())
	}
	fd, err := udpSocket(ns, domain)
	if dual && errors.Is(err, unix.EAFNOSUPPORT) {
		domain, local = unix.AF_INET, netip.AddrPortFrom(netip.IPv4Unspecified(), local.Port())
		fd, err = udpSocket(ns, domain)
	}
	if err != nil {
		return nil, err
	}
	if err := bindUDP(fd, domain, dual, local, remote, opts); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "udp")
	defer file.Close() // net has a descriptor of its own
	pc, err := net.FilePacketConn(file)
	if err != nil {
		return nil, err
	}
	return pc.(*net.UDPConn), nil
}

// DupUDP gives a further descriptor of a socket, which the caller closes.
func DupUDP(c *net.UDPConn) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	if cerr := raw.Control(func(of uintptr) { fd, err = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil {
		return 0, cerr
	}
	return fd, err
}

func udpSocket(ns *Namespace, domain int) (int, error) {
	const typ = unix.SOCK_DGRAM | unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	if ns == nil {
		fd, err := unix.Socket(domain, typ, 0)
		return fd, os.NewSyscallError("socket", err)
	}
	return ns.Socket(domain, typ, 0)
}

func bindUDP(fd, domain int, dual bool, local, remote netip.AddrPort, opts UDPOptions) error {
	if err := udpOptions(domain, dual, opts).apply(fd); err != nil {
		return err
	}
	if local.IsValid() {
		sa, err := sockaddr(domain, local)
		if err != nil {
			return err
		}
		if err := unix.Bind(fd, sa); err != nil {
			return os.NewSyscallError("bind", err)
		}
	}
	if !remote.IsValid() {
		return nil
	}
	sa, err := sockaddr(domain, remote)
	if err != nil {
		return err
	}
	return os.NewSyscallError("connect", unix.Connect(fd, sa))
}

func udpOptions(domain int, dual bool, opts UDPOptions) options {
	o := make(options, 0, 8)
	if opts.Shared {
		o.add("SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if opts.Mark != 0 {
		o.add("SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, int(opts.Mark))
	}
	if opts.ReceiveBuffer != 0 {
		// Beyond the limit of the system, as who may set marks may do.
		o.add("SO_RCVBUFFORCE", unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, opts.ReceiveBuffer)
	}
	if opts.Transparent {
		o.transparent(domain)
	}
	if domain == unix.AF_INET6 {
		only := 1
		if dual {
			only = 0
		}
		o.add("IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
	}
	if opts.OriginalDst {
		// A socket of both families gets what is for IPv4 at the IPv4 level.
		o.add("IP_RECVORIGDSTADDR", unix.IPPROTO_IP, unix.IP_RECVORIGDSTADDR, 1)
		if domain == unix.AF_INET6 {
			o.add("IPV6_RECVORIGDSTADDR", unix.IPPROTO_IPV6, unix.IPV6_RECVORIGDSTADDR, 1)
		}
	}
	return o
}

// OriginalDstSpace is what the control messages of one datagram need.
const OriginalDstSpace = 64

// OriginalDstOf reads where a datagram was going from the control messages that
// came with it; the zero address if they do not say.
func OriginalDstOf(oob []byte) netip.AddrPort {
	for len(oob) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_ORIGDSTADDR && len(data) >= unix.SizeofSockaddrInet4:
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte(data[4:8])), binary.BigEndian.Uint16(data[2:4]))
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_ORIGDSTADDR && len(data) >= 24:
			return netip.AddrPortFrom(netip.AddrFrom16([16]byte(data[8:24])).Unmap(), binary.BigEndian.Uint16(data[2:4]))
		}
		oob = rest
	}
	return netip.AddrPort{}
}
