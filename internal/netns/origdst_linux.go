package netns

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// From linux/netfilter_ipv4.h and linux/netfilter_ipv6/ip6_tables.h.
const (
	soOriginalDst     = 80
	ip6tSoOriginalDst = 80
)

// OriginalDst tells where an accepted connection was going before a redirect
// rule of its namespace brought it here. For a connection that no rule touched
// it is the local address; ENOENT says that conntrack does not know it.
func OriginalDst(c syscall.Conn) (netip.AddrPort, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("original destination: %w", err)
	}
	var dst netip.AddrPort
	var derr error
	if err := raw.Control(func(fd uintptr) { dst, derr = originalDst(int(fd)) }); err != nil {
		return netip.AddrPort{}, fmt.Errorf("original destination: %w", os.ErrClosed)
	}
	if derr != nil {
		return netip.AddrPort{}, fmt.Errorf("original destination: %w", derr)
	}
	return dst, nil
}

func originalDst(fd int) (netip.AddrPort, error) {
	local, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	if addrPort(local).Addr().Is4() {
		// Both structures begin with the 16 bytes of sockaddr_in: family, port,
		// address. Package unix has no getsockopt for sockaddr_in itself.
		mreq, err := unix.GetsockoptIPv6Mreq(fd, unix.IPPROTO_IP, soOriginalDst)
		if err != nil {
			return netip.AddrPort{}, os.NewSyscallError("getsockopt SO_ORIGINAL_DST", err)
		}
		b := mreq.Multiaddr
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3])), nil
	}
	info, err := unix.GetsockoptIPv6MTUInfo(fd, unix.IPPROTO_IPV6, ip6tSoOriginalDst)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockopt IP6T_SO_ORIGINAL_DST", err)
	}
	addr := netip.AddrFrom16(info.Addr.Addr)
	if info.Addr.Scope_id != 0 {
		addr = addr.WithZone(strconv.FormatUint(uint64(info.Addr.Scope_id), 10))
	}
	// sin6_port is in network order; the field is read in the machine's.
	return netip.AddrPortFrom(addr, networkOrder(info.Addr.Port)), nil
}

// networkOrder gives the value of a field that the kernel wrote in network order.
func networkOrder(field uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], field)
	return binary.BigEndian.Uint16(b[:])
}
