package install

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// temporary begins the names of files that are not in place yet.
const temporary = ".ambit-new-"

// errChanged says that somebody else was quicker.
var errChanged = errors.New("was changed by somebody else at the same moment")

// replace puts b in place of the file at path, which held old, with its owner and
// mode. A new file (old is nil) is readable by root only.
func replace(path string, old, b []byte) (err error) {
	mode, uid, gid := fs.FileMode(0o600), -1, -1
	if old != nil {
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		mode = st.Mode().Perm()
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			uid, gid = int(sys.Uid), int(sys.Gid)
		}
	}
	tmp, err := write(filepath.Dir(path), bytes.NewReader(b), mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp)
		}
	}()
	if uid >= 0 && (uid != os.Geteuid() || gid != os.Getegid()) {
		if err := os.Chown(tmp, uid, gid); err != nil {
			return err
		}
	}
	if old != nil {
		now, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Equal(now, old) {
			return errChanged
		}
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// write makes a file under a temporary name and returns when it is on disk.
func write(dir string, r io.Reader, mode fs.FileMode) (path string, err error) {
	f, err := os.CreateTemp(dir, temporary+"*")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// copyProgram brings the program at src to dst if what is there differs.
func copyProgram(src, dst string) (changed bool, err error) {
	want, err := digest(src)
	if err != nil {
		return false, err
	}
	st, err := os.Lstat(dst)
	if err == nil && st.Mode().IsRegular() && st.Mode().Perm() == 0o755 {
		if have, err := digest(dst); err == nil && have == want {
			return false, nil
		}
	}
	f, err := os.Open(src)
	if err != nil {
		return false, err
	}
	defer f.Close()
	tmp, err := write(filepath.Dir(dst), f, 0o755)
	if err != nil {
		return false, err
	}
	if err := os.Rename(tmp, dst); err != nil {
		return false, errors.Join(err, os.Remove(tmp))
	}
	return true, syncDir(filepath.Dir(dst))
}

func digest(path string) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// sweep removes what an interrupted run left under temporary names.
func sweep(dirs ...string) error {
	var errs []error
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), temporary) {
				errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove what was left half done: %w", err)
	}
	return nil
}
