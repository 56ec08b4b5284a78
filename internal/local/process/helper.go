package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// IsHelper reports whether this process was started as a helper.
func IsHelper() bool { return len(os.Args) == 1 && os.Args[0] == helperArg }

// RunHelper becomes the program that the parent asked for. It returns only if
// that failed, with the exit code to use.
func RunHelper() int {
	// Namespaces are joined by this thread, and execve keeps those of the
	// thread that calls it.
	runtime.LockOSThread()
	unix.CloseOnExec(fdStatus)
	status := os.NewFile(fdStatus, "status")
	if err := become(); err != nil {
		fmt.Fprint(status, err.Error())
		return 127
	}
	return 0
}

func become() error {
	specFile := os.NewFile(fdSpec, "spec")
	var s spec
	if err := json.NewDecoder(specFile).Decode(&s); err != nil {
		return fmt.Errorf("read the helper's orders: %w", err)
	}
	specFile.Close()
	if err := join(s.Namespaces); err != nil {
		return err
	}
	dir := s.Dir
	if dir == "" {
		dir = "/"
	}
	if err := os.Chdir(dir); err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	path, err := find(s.Argv[0], dir, Lookup(s.Env, "PATH"))
	if err != nil {
		return err
	}
	if err := switchUser(s.User, s.Group); err != nil {
		return err
	}
	return fmt.Errorf("execute %s: %w", path, syscall.Exec(path, s.Argv, s.Env))
}

func join(flags []int) error {
	// A thread that shares its root and working directory with others may not
	// change its mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	for i, flag := range flags {
		fd := fdFirst + i
		if err := unix.Setns(fd, flag); err != nil {
			return fmt.Errorf("join a namespace (flag %#x): %w", flag, err)
		}
		unix.Close(fd)
	}
	return nil
}

// find resolves a command as a shell would, with dir behind the search path.
func find(name, dir, path string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, executable(name)
	}
	for _, d := range append(filepath.SplitList(path), dir) {
		if candidate := filepath.Join(d, name); filepath.IsAbs(candidate) && executable(candidate) == nil {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("%q is neither in PATH (%s) nor in %s", name, path, dir)
}

func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist", path)
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%s is a directory", path)
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("%s is not executable", path)
	}
	return nil
}

// switchUser changes this thread's ids. Raw system calls do: the other threads
// end with execve.
func switchUser(user, group *int64) error {
	if group != nil {
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
			return fmt.Errorf("drop supplementary groups: %w", errno)
		}
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETGID, uintptr(*group), 0, 0); errno != 0 {
			return fmt.Errorf("switch to group %d: %w", *group, errno)
		}
	}
	if user != nil {
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETUID, uintptr(*user), 0, 0); errno != 0 {
			return fmt.Errorf("switch to user %d: %w", *user, errno)
		}
	}
	return nil
}
