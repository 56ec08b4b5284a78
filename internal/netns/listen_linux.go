package netns

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var (
	_ net.Listener = (*Listener)(nil)
	_ syscall.Conn = (*Listener)(nil)
)

// ListenOptions are options of Listen. Accepted connections inherit Mark and
// Transparent.
type ListenOptions struct {
	// Mark is the SO_MARK of the socket.
	Mark uint32
	// Transparent accepts connections to addresses that are not local.
	Transparent bool
	// ReusePort lets several listeners share the port, for example those of an
	// old and a new process.
	ReusePort bool
	// Backlog is the length of the accept queue, 128 if 0.
	Backlog int
}

const defaultBacklog = 128

// Listener accepts TCP connections in a namespace.
type Listener struct {
	file   *os.File
	addr   netip.AddrPort
	closed atomic.Bool
}

// Listen opens a listener within ns, or in the namespace of the process if ns is
// nil. network is tcp4, tcp6 (IPv6 alone), or tcp, which serves both families on
// an unspecified address and IPv4 alone where the kernel has no IPv6.
func Listen(ns *Namespace, network string, addr netip.AddrPort, opts ListenOptions) (*Listener, error) {
	l, err := listen(ns, network, addr, opts)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: net.TCPAddrFromAddrPort(addr), Err: err}
	}
	return l, nil
}

func listen(ns *Namespace, network string, addr netip.AddrPort, opts ListenOptions) (*Listener, error) {
	if !addr.IsValid() {
		return nil, &net.AddrError{Err: "not an address", Addr: addr.String()}
	}
	domain := domainOf(addr.Addr())
	dual := network == "tcp" && addr.Addr().IsUnspecified()
	switch {
	case dual:
		domain = unix.AF_INET6
		addr = netip.AddrPortFrom(netip.IPv6Unspecified(), addr.Port())
	case network == "tcp", network == "tcp4" && domain == unix.AF_INET, network == "tcp6" && domain == unix.AF_INET6:
	default:
		return nil, net.UnknownNetworkError(network)
	}
	fd, err := socket(ns, domain)
	if dual && errors.Is(err, unix.EAFNOSUPPORT) {
		domain, addr = unix.AF_INET, netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port())
		fd, err = socket(ns, domain)
	}
	if err != nil {
		return nil, err
	}
	local, err := open(fd, domain, dual, addr, opts)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &Listener{file: newFile(fd), addr: local}, nil
}

// open sets the options, binds and listens.
func open(fd, domain int, dual bool, addr netip.AddrPort, opts ListenOptions) (netip.AddrPort, error) {
	o := tcpOptions(5)
	o.add("SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if opts.ReusePort {
		o.add("SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if opts.Mark != 0 {
		o.add("SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, int(opts.Mark))
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
	if err := o.apply(fd); err != nil {
		return netip.AddrPort{}, err
	}
	sa, err := sockaddr(domain, addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if err := unix.Bind(fd, sa); err != nil {
		return netip.AddrPort{}, os.NewSyscallError("bind", err)
	}
	backlog := opts.Backlog
	if backlog == 0 {
		backlog = defaultBacklog
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return netip.AddrPort{}, os.NewSyscallError("listen", err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	return addrPort(bound), nil
}

// Accept waits for a connection.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptConn()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptConn is Accept with the connection's own type. After Close the error is
// net.ErrClosed; others, such as for want of descriptors, may pass.
func (l *Listener) AcceptConn() (*Conn, error) {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return nil, l.wrap("accept", err)
	}
	fd := -1
	var sa unix.Sockaddr
	var aerr error
	err = raw.Read(func(lfd uintptr) bool {
		for {
			fd, sa, aerr = unix.Accept4(int(lfd), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			// A peer that has gone before it was accepted is no error of ours.
			if aerr != unix.EINTR && aerr != unix.ECONNABORTED {
				return aerr != unix.EAGAIN
			}
		}
	})
	if err != nil {
		return nil, l.wrap("accept", err)
	}
	if aerr != nil {
		return nil, l.wrap("accept", os.NewSyscallError("accept4", aerr))
	}
	return &Conn{file: newFile(fd), remote: addrPort(sa)}, nil
}

// Close stops listening. Connections in the accept queue are reset.
func (l *Listener) Close() error {
	l.closed.Store(true)
	if err := l.file.Close(); err != nil {
		return l.wrap("close", err)
	}
	return nil
}

// Addr is where the listener listens.
func (l *Listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// AddrPort is where the listener listens.
func (l *Listener) AddrPort() netip.AddrPort { return l.addr }

// SetDeadline bounds current and later calls of Accept.
func (l *Listener) SetDeadline(t time.Time) error { return l.file.SetReadDeadline(t) }

// SyscallConn gives the descriptor to whoever must set an option.
func (l *Listener) SyscallConn() (syscall.RawConn, error) { return l.file.SyscallConn() }

func (l *Listener) wrap(op string, err error) error {
	if l.closed.Load() {
		err = net.ErrClosed
	}
	return &net.OpError{Op: op, Net: "tcp", Addr: l.Addr(), Err: cause(err)}
}
