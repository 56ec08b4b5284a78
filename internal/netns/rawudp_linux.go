package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// RawUDP sends datagrams from an address and port to another, whoever in the
// namespace has the port: a program that is bound to a port on all addresses keeps
// everybody else from binding it on any. It receives nothing. Needs CAP_NET_RAW.
type RawUDP struct {
	file   *os.File
	source netip.AddrPort
	dst    netip.AddrPort
}

const udpHeaderLen = 8

// OpenRawUDP opens the socket within ns. Of opts only the mark counts.
func OpenRawUDP(ns *Namespace, source, dst netip.AddrPort, opts UDPOptions) (*RawUDP, error) {
	r := &RawUDP{source: netip.AddrPortFrom(source.Addr().Unmap(), source.Port()), dst: netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())}
	fd, err := r.open(ns, opts)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "raw udp", Source: net.UDPAddrFromAddrPort(source), Addr: net.UDPAddrFromAddrPort(dst), Err: err}
	}
	r.file = os.NewFile(uintptr(fd), "raw udp")
	return r, nil
}

func (r *RawUDP) open(ns *Namespace, opts UDPOptions) (int, error) {
	const typ = unix.SOCK_RAW | unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	domain := domainOf(r.dst.Addr())
	var fd int
	var err error
	if ns == nil {
		fd, err = unix.Socket(domain, typ, unix.IPPROTO_UDP)
	} else {
		fd, err = ns.Socket(domain, typ, unix.IPPROTO_UDP)
	}
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			err = fmt.Errorf("%w (needs CAP_NET_RAW)", err)
		}
		return -1, err
	}
	if err := r.prepare(fd, domain, opts); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (r *RawUDP) prepare(fd, domain int, opts UDPOptions) error {
	// It would be given a copy of every datagram of the namespace.
	nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing[0]}); err != nil {
		return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", err)
	}
	o := make(options, 0, 3)
	if opts.Mark != 0 {
		o.add("SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, int(opts.Mark))
	}
	o.transparent(domain)
	if domain == unix.AF_INET6 {
		o.add("IPV6_CHECKSUM", unix.IPPROTO_IPV6, unix.IPV6_CHECKSUM, 6) // its offset
	}
	if err := o.apply(fd); err != nil {
		return err
	}
	from, err := sockaddr(domain, netip.AddrPortFrom(r.source.Addr(), 0))
	if err != nil {
		return err
	}
	to, err := sockaddr(domain, netip.AddrPortFrom(r.dst.Addr(), 0))
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, from); err != nil {
		return os.NewSyscallError("bind", err)
	}
	return os.NewSyscallError("connect", unix.Connect(fd, to))
}

// Write sends one datagram.
func (r *RawUDP) Write(p []byte) (int, error) {
	if len(p) > 0xffff-udpHeaderLen {
		return 0, os.NewSyscallError("write", unix.EMSGSIZE)
	}
	b := make([]byte, udpHeaderLen, udpHeaderLen+len(p))
	binary.BigEndian.PutUint16(b[0:], r.source.Port())
	binary.BigEndian.PutUint16(b[2:], r.dst.Port())
	binary.BigEndian.PutUint16(b[4:], uint16(udpHeaderLen+len(p)))
	b = append(b, p...)
	if r.dst.Addr().Is4() {
		binary.BigEndian.PutUint16(b[6:], r.checksum(b))
	}
	_, err := r.file.Write(b)
	if err != nil {
		return 0, &net.OpError{Op: "write", Net: "raw udp", Addr: net.UDPAddrFromAddrPort(r.dst), Err: cause(err)}
	}
	return len(p), nil
}

// checksum is that of RFC 768, over the pseudo-header and the datagram.
func (r *RawUDP) checksum(b []byte) uint16 {
	sum := uint32(unix.IPPROTO_UDP + len(b))
	add := func(b []byte) {
		for ; len(b) > 1; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	add(r.source.Addr().AsSlice())
	add(r.dst.Addr().AsSlice())
	add(b)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	if c := ^uint16(sum); c != 0 {
		return c
	}
	return 0xffff
}

// Close closes the socket.
func (r *RawUDP) Close() error { return r.file.Close() }
