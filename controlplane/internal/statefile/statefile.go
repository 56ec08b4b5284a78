package statefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrExposed is wrapped by errors about a private file or directory that
// somebody else than its owner can open.
var ErrExposed = errors.New("accessible to others than its owner")

// Write replaces path by data with the given mode. The file is never seen half
// written, and is on disk when Write returns.
func Write(path string, data []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()           // The first error is the one that counts.
			_ = os.Remove(f.Name()) // Likewise; a stray temporary file is harmless.
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// Append adds data to an existing file, and has it on disk when it returns. After an
// error, or a crash, any part of data may be there.
func Append(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("append: %w", err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("append to %s: %w", path, err)
	}
	return nil
}

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// PrivateDir makes dir with mode 0700, or checks that an existing one is
// closed to others.
func PrivateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("private directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("private directory: %w", err)
	}
	return closed(dir, info, 0o700, 0o077)
}

// ReadPrivate reads a file of at most limit bytes. A file that others than its
// owner can open is refused. A file that does not exist is fs.ErrNotExist.
func ReadPrivate(path string, limit int64) ([]byte, error) { return read(path, limit, 0o077) }

// ReadMounted is ReadPrivate of a file in a mounted Secret, which belongs to root and
// is read by the group of the pod (fsGroup).
func ReadMounted(path string, limit int64) ([]byte, error) { return read(path, limit, 0o037) }

func read(path string, limit int64, exposing fs.FileMode) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	if err := closed(path, info, 0o600, exposing); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, limit)
	}
	return data, nil
}

func closed(path string, info fs.FileInfo, want, exposing fs.FileMode) error {
	if mode := info.Mode().Perm(); mode&exposing != 0 {
		return fmt.Errorf("%s has mode %#o: %w; run: chmod %#o %s", path, mode, ErrExposed, want, path)
	}
	return nil
}
