package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Directories of the sandbox's own. They are on file systems in memory that end
// with it.
const (
	// NetnsDir names the network namespaces of pods and nodes.
	NetnsDir = "/run/netns"
	// SocketDir holds the sockets of the nodes; its paths are short, as socket
	// paths must be.
	SocketDir = "/run/sandbox"
)

// mounts makes /proc and /run the sandbox's own, and keeps the given
// directories reachable under their paths.
func mounts(keep []string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w%s", err, hint(err))
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount a fresh /proc: %w; a container that masks parts of /proc prevents it: run it with --privileged, or on the host%s", err, hint(err))
	}
	var hidden []*os.File
	for _, dir := range keep {
		if !below(dir, "/run") {
			continue
		}
		f, err := os.Open(dir)
		if err != nil {
			return fmt.Errorf("directory that the sandbox needs: %w", err)
		}
		defer f.Close()
		hidden = append(hidden, f)
	}
	if err := tmpfs("/run"); err != nil {
		return err
	}
	for _, f := range hidden {
		if err := os.MkdirAll(f.Name(), 0o755); err != nil {
			return fmt.Errorf("directory that the sandbox needs: %w", err)
		}
		if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), f.Name(), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("keep %s: %w", f.Name(), err)
		}
	}
	for _, dir := range []string{NetnsDir, SocketDir} {
		if err := tmpfs(dir); err != nil {
			return err
		}
	}
	return nil
}

func tmpfs(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount a private %s: %w%s", dir, err, hint(err))
	}
	return nil
}

// below reports whether a path is in dir, also by way of symbolic links such as
// /var/run.
func below(path, dir string) bool {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return path == dir || strings.HasPrefix(path, dir+"/")
}
