package netns

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var (
	_ net.Conn     = (*Conn)(nil)
	_ syscall.Conn = (*Conn)(nil)
)

// Conn is a TCP connection. Beside what net.Conn asks for it closes each
// direction by itself and can reset. Errors are *net.OpError, as those of
// package net.
type Conn struct {
	file   *os.File
	remote netip.AddrPort
}

// Read reads from the connection.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.file.Read(b)
	if err != nil && err != io.EOF {
		err = c.wrap("read", err)
	}
	return n, err
}

// Write writes all of b.
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.file.Write(b)
	if err != nil {
		err = c.wrap("write", err)
	}
	return n, err
}

// Close closes both directions. What was written is still delivered, unless
// SetLinger(0) was called.
func (c *Conn) Close() error {
	if err := c.file.Close(); err != nil {
		return c.wrap("close", err)
	}
	return nil
}

// CloseWrite sends a FIN; reading goes on.
func (c *Conn) CloseWrite() error { return c.shutdown(unix.SHUT_WR) }

// CloseRead makes further reads end at once.
func (c *Conn) CloseRead() error { return c.shutdown(unix.SHUT_RD) }

func (c *Conn) shutdown(how int) error {
	return c.control("shutdown", func(fd int) error { return unix.Shutdown(fd, how) })
}

// SetLinger with 0 makes Close send a reset and drop unsent bytes; a negative
// value restores the default.
func (c *Conn) SetLinger(seconds int) error {
	linger := unix.Linger{Onoff: 1, Linger: int32(seconds)}
	if seconds < 0 {
		linger = unix.Linger{}
	}
	return c.control("set", func(fd int) error {
		return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &linger)
	})
}

func (c *Conn) control(op string, f func(fd int) error) error {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return c.wrap(op, err)
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return c.wrap(op, net.ErrClosed)
	}
	if ferr != nil {
		return c.wrap(op, os.NewSyscallError(op, ferr))
	}
	return nil
}

// SyscallConn gives the descriptor to whoever must set an option.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.file.SyscallConn() }

// RemoteAddr is the address of the peer.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// RemoteAddrPort is the address of the peer, IPv4-mapped addresses as IPv4.
func (c *Conn) RemoteAddrPort() netip.AddrPort { return c.remote }

// LocalAddr asks the kernel for the local address; it is the zero address
// after Close.
func (c *Conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.LocalAddrPort()) }

// LocalAddrPort is LocalAddr, IPv4-mapped addresses as IPv4.
func (c *Conn) LocalAddrPort() netip.AddrPort {
	var local netip.AddrPort
	// A closed connection has no address: the zero value says so.
	_ = c.control("getsockname", func(fd int) error {
		sa, err := unix.Getsockname(fd)
		if err == nil {
			local = addrPort(sa)
		}
		return err
	})
	return local
}

// SetDeadline sets both deadlines; the zero time means none.
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadline(c.file.SetDeadline(t)) }

// SetReadDeadline bounds current and later reads.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(c.file.SetReadDeadline(t)) }

// SetWriteDeadline bounds current and later writes.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(c.file.SetWriteDeadline(t)) }

func (c *Conn) setDeadline(err error) error {
	if err != nil {
		return c.wrap("set", err)
	}
	return nil
}

// wrap gives an error the type that users of package net expect: crypto/tls,
// for one, survives a deadline only if the error is a net.Error.
func (c *Conn) wrap(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: c.RemoteAddr(), Err: cause(err)}
}

// cause takes off what package os put around an error.
func cause(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return net.ErrClosed
	}
	if perr, ok := errors.AsType[*fs.PathError](err); ok {
		return perr.Err
	}
	return err
}
