package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNotListener is a descriptor that is not of a socket that listens, or is bound for UDP, in the
// namespace that it should.
var ErrNotListener = errors.New("not a socket that listens in this namespace")

// Adopt makes a Listener of a descriptor that another process opened within ns:
// both accept from one queue, which lives as long as either has it. The options are
// set anew. If an error is returned, fd stays the caller's.
func Adopt(ns *Namespace, fd int, opts ListenOptions) (*Listener, error) {
	network, addr, domain, err := inspect(ns, fd)
	if err == nil && network != "tcp" {
		err = fmt.Errorf("descriptor of a listener: %w: it is for datagrams", ErrNotListener)
	}
	if err != nil {
		return nil, err
	}
	// The status flag is shared by all who have the socket, and each of them sets it.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("adopt listener %s: %w", addr, err)
	}
	unix.CloseOnExec(fd)
	o := tcpOptions(2)
	if opts.Mark != 0 {
		o.add("SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, int(opts.Mark))
	}
	if opts.Transparent {
		o.transparent(domain)
	}
	if err := o.apply(fd); err != nil {
		return nil, fmt.Errorf("adopt listener %s: %w", addr, err)
	}
	if opts.Backlog > 0 {
		if err := unix.Listen(fd, opts.Backlog); err != nil {
			return nil, fmt.Errorf("adopt listener %s: %w", addr, os.NewSyscallError("listen", err))
		}
	}
	return &Listener{file: newFile(fd), addr: addr}, nil
}

// AdoptUDP makes a connection of the descriptor of a UDP socket that another process
// has bound within ns: each datagram comes to one of those who read it. Options are as
// they were. If an error is returned, fd stays the caller's.
func AdoptUDP(ns *Namespace, fd int) (*net.UDPConn, error) {
	network, addr, _, err := inspect(ns, fd)
	if err == nil && network != "udp" {
		err = fmt.Errorf("descriptor of a UDP socket: %w: it is for connections", ErrNotListener)
	}
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("adopt UDP socket %s: %w", addr, err)
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("adopt UDP socket %s: %w", addr, err)
	}
	file := os.NewFile(uintptr(dup), "udp") // #nosec G115 -- a descriptor
	defer file.Close()                      // net has a descriptor of its own
	pc, err := net.FilePacketConn(file)
	if err != nil {
		return nil, fmt.Errorf("adopt UDP socket %s: %w", addr, err)
	}
	_ = unix.Close(fd)
	return pc.(*net.UDPConn), nil
}

// ListenerAddr tells where a descriptor listens, if it is of a socket within ns that
// listens for TCP or is bound for UDP, and for which of them, "tcp" or "udp".
func ListenerAddr(ns *Namespace, fd int) (network string, addr netip.AddrPort, err error) {
	network, addr, _, err = inspect(ns, fd)
	return network, addr, err
}

func inspect(ns *Namespace, fd int) (network string, addr netip.AddrPort, domain int, err error) {
	fail := func(err error) (string, netip.AddrPort, int, error) {
		return "", netip.AddrPort{}, 0, fmt.Errorf("descriptor of a listener: %w: %w", ErrNotListener, err)
	}
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return fail(os.NewSyscallError("getsockopt", err))
	}
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return fail(os.NewSyscallError("getsockopt", err))
	}
	switch {
	case listening != 0 && proto == unix.IPPROTO_TCP:
		network = "tcp"
	case proto == unix.IPPROTO_UDP:
		network = "udp"
	default:
		return fail(errors.New("it does not listen for TCP, nor is it of UDP"))
	}
	if domain, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
		return fail(os.NewSyscallError("getsockopt", err))
	}
	of, err := unix.IoctlRetInt(fd, unix.SIOCGSKNS)
	if err != nil {
		return fail(os.NewSyscallError("ioctl SIOCGSKNS", err))
	}
	defer unix.Close(of)
	id, err := identify(of)
	if err != nil {
		return fail(err)
	}
	if id != ns.ID() {
		return fail(fmt.Errorf("it is of %s, not of %s", id, ns.ID()))
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return fail(os.NewSyscallError("getsockname", err))
	}
	if addr = addrPort(sa); addr.Port() == 0 {
		return fail(errors.New("it is not bound"))
	}
	return network, addr, domain, nil
}

// Dup gives another descriptor of the listening socket, to be handed to another
// process.
func (l *Listener) Dup() (int, error) {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return -1, l.wrap("dup", err)
	}
	fd := -1
	var derr error
	if err := raw.Control(func(of uintptr) { fd, derr = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return -1, l.wrap("dup", err)
	}
	if derr != nil {
		return -1, l.wrap("dup", os.NewSyscallError("fcntl", derr))
	}
	return fd, nil
}
