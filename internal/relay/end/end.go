// Package end is the Unix sockets of relays, which pass from process to process; see
// package relay. It is apart so that who only passes them on need not know QUIC.
package end

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Hello is what waits in the queue of a relay's end for whoever is given that: the
// tag of the process at the other end, and the key of its resets.
type Hello struct {
	Tag uint32
	Key [32]byte
}

// tagLen is the length of a tag in bytes.
const tagLen = 4

// magic begins a Hello, with the version of all that goes through the relay.
var magic = []byte("ambit relay 1\n")

func (h Hello) encode() []byte {
	return append(binary.BigEndian.AppendUint32(bytes.Clone(magic), h.Tag), h.Key[:]...)
}

// Is reports whether a descriptor is the end of a relay.
func Is(fd int) bool {
	_, err := Look(fd)
	return err == nil
}

var errNoRelay = errors.New("not the end of a relay")

// Look reads the Hello of an end, and leaves it there for the next one.
func Look(fd int) (h Hello, err error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil || domain != unix.AF_UNIX {
		return h, errNoRelay
	}
	b := make([]byte, len(magic)+tagLen+len(h.Key)+1)
	n, _, err := unix.Recvfrom(fd, b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err != nil || n != len(b)-1 || !bytes.HasPrefix(b, magic) {
		return h, errNoRelay
	}
	b = b[len(magic):]
	h.Tag = binary.BigEndian.Uint32(b)
	copy(h.Key[:], b[tagLen:])
	return h, nil
}

// buffer is asked for what waits in a relay, in bytes.
const buffer = 4 << 20

// Pair makes a relay: the end that stays, and the one that is given away.
func Pair(h Hello) (stays, given *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	stays, given = os.NewFile(uintptr(fds[0]), "relay"), os.NewFile(uintptr(fds[1]), "relay")
	// Beyond the limit of the system where that is allowed.
	if unix.SetsockoptInt(fds[1], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, buffer) != nil {
		err = unix.SetsockoptInt(fds[1], unix.SOL_SOCKET, unix.SO_SNDBUF, buffer)
	}
	if err == nil {
		err = unix.Send(fds[0], h.encode(), 0)
	}
	if err != nil {
		return nil, nil, errors.Join(os.NewSyscallError("set up a relay", err), stays.Close(), given.Close())
	}
	return stays, given, nil
}

// Send sends without waiting: a full relay loses it, as a full socket would.
func Send(f *os.File, b []byte) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := raw.Write(func(fd uintptr) bool {
		serr = unix.Send(int(fd), b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return true
	}); err != nil {
		return err
	}
	return serr
}

// Dup gives a further descriptor, which the caller closes.
func Dup(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	if cerr := raw.Control(func(of uintptr) { fd, err = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil {
		return -1, cerr
	}
	return fd, os.NewSyscallError("fcntl", err)
}
