package netns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DialOptions are options of Dial. The zero value means none.
type DialOptions struct {
	// Mark is the SO_MARK of the socket.
	Mark uint32
	// Source is the address to connect from. It may be an address that is not
	// of the namespace (IP_TRANSPARENT); replies then come only where policy
	// routing delivers them locally. With port 0 the kernel chooses a port at
	// connect time, so that one port serves many destinations.
	Source netip.AddrPort
	// Timeout bounds the attempt; 0 leaves that to the context.
	Timeout time.Duration
}

// Dial opens a TCP connection from within ns, or from the namespace of the
// process if ns is nil. Attempting holds no thread. An error is a *net.OpError:
// errors.Is finds ECONNREFUSED and the like, os.ErrDeadlineExceeded for Timeout,
// and the context's error.
func Dial(ctx context.Context, ns *Namespace, opts DialOptions, dst netip.AddrPort) (*Conn, error) {
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	c, err := dial(ctx, ns, opts, dst)
	if err != nil {
		operr := &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(dst), Err: err}
		if opts.Source.IsValid() {
			operr.Source = net.TCPAddrFromAddrPort(opts.Source)
		}
		return nil, operr
	}
	return c, nil
}

func dial(ctx context.Context, ns *Namespace, opts DialOptions, dst netip.AddrPort) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !dst.IsValid() || dst.Port() == 0 {
		return nil, &net.AddrError{Err: "not an address with a port", Addr: dst.String()}
	}
	domain := domainOf(dst.Addr())
	sa, err := sockaddr(domain, dst)
	if err != nil {
		return nil, err
	}
	fd, err := socket(ns, domain)
	if err != nil {
		return nil, err
	}
	if err := prepare(fd, domain, opts); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	switch err := unix.Connect(fd, sa); err {
	case nil:
		// The usual case between namespaces of one machine.
		return &Conn{file: newFile(fd), remote: dst}, nil
	case unix.EINPROGRESS, unix.EINTR:
	default:
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	c := &Conn{file: newFile(fd), remote: dst}
	if err := c.awaitConnected(ctx, opts.Timeout); err != nil {
		_ = c.file.Close()
		return nil, err
	}
	return c, nil
}

func socket(ns *Namespace, domain int) (int, error) {
	const typ = unix.SOCK_STREAM | unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	if ns == nil {
		fd, err := syscall.Socket(domain, typ, 0)
		return fd, os.NewSyscallError("socket", err)
	}
	return ns.Socket(domain, typ, 0)
}

// prepare sets the options and binds to the source.
func prepare(fd, domain int, opts DialOptions) error {
	o := tcpOptions(3)
	if opts.Mark != 0 {
		o.add("SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, int(opts.Mark))
	}
	if !opts.Source.IsValid() {
		return o.apply(fd)
	}
	o.transparent(domain)
	if opts.Source.Port() == 0 {
		o.add("IP_BIND_ADDRESS_NO_PORT", unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	} else {
		o.add("SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	sa, err := sockaddr(domain, opts.Source)
	if err != nil {
		return err
	}
	if err := o.apply(fd); err != nil {
		return err
	}
	return os.NewSyscallError("bind", unix.Bind(fd, sa))
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// awaitConnected waits until the connection stands or cannot.
func (c *Conn) awaitConnected(ctx context.Context, timeout time.Duration) error {
	if timeout > 0 {
		if err := c.file.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
			return cause(err)
		}
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		// Fails only on a file that is closed, and then nobody waits.
		_ = c.file.SetWriteDeadline(past)
	})
	err := c.pollConnected()
	if !stop() {
		<-interrupted
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	if timeout > 0 {
		return c.file.SetWriteDeadline(time.Time{})
	}
	return nil
}

func (c *Conn) pollConnected() error {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return cause(err)
	}
	var result error
	err = raw.Write(func(fd uintptr) bool {
		// Asked before the first wait too: entering Write forgets a wake-up that
		// came before.
		var done bool
		done, result = connected(int(fd))
		return done
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return os.ErrDeadlineExceeded
	}
	return errors.Join(err, result)
}

// connected tells how a connection attempt stands. The poller may wake without
// cause, so no error is not yet a connection.
func connected(fd int) (done bool, err error) {
	soerr, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return true, os.NewSyscallError("getsockopt", err)
	}
	switch errno := unix.Errno(soerr); errno {
	case unix.EINPROGRESS, unix.EALREADY, unix.EINTR:
		return false, nil
	case unix.EISCONN:
		return true, nil
	case 0:
		_, err := unix.Getpeername(fd)
		return err == nil, nil
	default:
		return true, os.NewSyscallError("connect", errno)
	}
}
