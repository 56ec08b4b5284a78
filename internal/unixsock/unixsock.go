// Package unixsock listens on Unix sockets that outlive their servers: a
// successor takes the path over without a moment at which nobody listens, and
// the predecessor does not take it away when it ends.
package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

// Listener is a socket and the file that leads to it. Close closes the socket;
// Release removes the file as well.
type Listener struct {
	*net.UnixListener
	path string
	info fs.FileInfo
}

// Listen opens a socket of the given network (unix, unixpacket) at path, for its
// owner only. The socket is made under a temporary name and moved into place.
// Whatever else is at path stays, and is an error.
func Listen(network, path string) (*Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("directory of socket %s: %w", path, err)
	}
	if st, err := os.Lstat(path); err == nil && st.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("socket %s: is in the way and is no socket; remove it or choose another path", path)
	}
	temporary := path + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	l, err := net.ListenUnix(network, &net.UnixAddr{Name: temporary, Net: network})
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(temporary, 0o600)
	var info fs.FileInfo
	if err == nil {
		info, err = os.Lstat(temporary)
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return &Listener{UnixListener: l, path: path, info: info}, nil
}

// Release closes the socket, and removes the file unless a successor has put its
// own there.
func (l *Listener) Release() {
	_ = l.Close()
	if info, err := os.Lstat(l.path); err == nil && os.SameFile(info, l.info) {
		_ = os.Remove(l.path)
	}
}
