package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// RunningError says that the name is in use.
type RunningError struct{ Name string }

func (e *RunningError) Error() string {
	return fmt.Sprintf("local mesh %q is already running: edit its manifests, stop it (ambit local down --name %s) or choose another --name", e.Name, e.Name)
}

// NotRunningError says that there is no such sandbox.
type NotRunningError struct{ Name string }

func (e *NotRunningError) Error() string {
	return fmt.Sprintf("local mesh %q is not running: start it with ambit local up -f DIR --name %s", e.Name, e.Name)
}

// RuntimeDir is where state directories are made unless the user says
// otherwise.
func RuntimeDir() string {
	if os.Geteuid() == 0 {
		return "/run/ambit/local"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "ambit")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("ambit-%d", os.Geteuid()))
}

var validName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$`)

// Path gives the state directory of a sandbox.
func Path(runtimeDir, name string) (string, error) {
	if !validName.MatchString(name) {
		return "", fmt.Errorf("name %q: want at most 32 of a-z 0-9 -, not beginning or ending with -", name)
	}
	abs, err := filepath.Abs(filepath.Join(runtimeDir, name))
	if err != nil {
		return "", fmt.Errorf("state directory: %w", err)
	}
	return abs, nil
}

const lockName = "lock"

// directory is a state directory whose lock this process holds.
type directory struct {
	path string
	lock *os.File
}

// acquire makes the state directory and takes its lock. A leftover is removed
// first.
func acquire(path, name string) (*directory, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w; set --runtime-dir to a directory of yours", err)
	}
	if err := checkOwner(filepath.Dir(path)); err != nil {
		return nil, err
	}
	for {
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("state directory: %w", err)
		}
		if err := checkOwner(path); err != nil {
			return nil, err
		}
		d, err := lock(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // removed by somebody else since
		case errors.Is(err, unix.EWOULDBLOCK):
			return nil, &RunningError{Name: name}
		case err != nil:
			return nil, fmt.Errorf("state directory: %w", err)
		}
		if err := d.empty(); err != nil {
			return nil, errors.Join(fmt.Errorf("remove what a killed mesh left behind: %w", err), d.lock.Close())
		}
		return d, nil
	}
}

// lock takes the lock of an existing directory, or fails with EWOULDBLOCK or
// with fs.ErrNotExist if the directory is gone.
func lock(path string) (*directory, error) {
	f, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	mine, err := f.Stat()
	if err == nil {
		var named os.FileInfo
		if named, err = os.Stat(f.Name()); err == nil && os.SameFile(mine, named) {
			return &directory{path: path, lock: f}, nil
		}
	}
	f.Close()
	return nil, fs.ErrNotExist
}

// empty removes everything but the lock.
func (d *directory) empty() error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != lockName {
			if err := os.RemoveAll(filepath.Join(d.path, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// remove deletes the directory, and the directories above it that Ambit made if
// they are empty now.
func (d *directory) remove() error {
	err := errors.Join(d.empty(), os.RemoveAll(d.path), d.lock.Close())
	for dir := filepath.Dir(d.path); isOurs(dir); dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil {
			break // another mesh runs
		}
	}
	return err
}

// isOurs tells directories of RuntimeDir, which go when they are empty, from
// those that the user named.
func isOurs(dir string) bool {
	base := filepath.Base(dir)
	return base == "ambit" || strings.HasPrefix(base, "ambit-") || base == "local" && filepath.Base(filepath.Dir(dir)) == "ambit"
}

// checkOwner refuses directories that somebody else could have prepared, as is
// possible below /tmp.
func checkOwner(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("state directory %s: must be a directory that you own and nobody else may write to; set --runtime-dir to another", path)
	}
	return nil
}

// Clean removes the state directory of a sandbox that was killed together with
// its keeper. It fails with RunningError if the sandbox lives and with
// NotRunningError if there is nothing.
func Clean(path, name string) error {
	d, err := lock(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &NotRunningError{Name: name}
	case errors.Is(err, unix.EWOULDBLOCK):
		return &RunningError{Name: name}
	case err != nil:
		return fmt.Errorf("state directory: %w", err)
	}
	return d.remove()
}

// Running reports whether a sandbox lives in the state directory.
func Running(path string) bool {
	f, err := os.Open(filepath.Join(path, lockName))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}
