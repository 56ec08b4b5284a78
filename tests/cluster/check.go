package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// check says what keeps this machine from running a cluster, nil for nothing. It changes nothing.
func (c *cluster) check() error {
	if os.Geteuid() != 0 {
		return errors.New("a cluster needs root: run it as root, or through sudo")
	}
	all := []error{checkNamespaces(), checkGroups(), c.checkDisk()}
	if missing := missingPackages(); len(missing) > 0 {
		if _, err := exec.LookPath("apt-get"); err != nil {
			all = append(all, fmt.Errorf("missing: %s, and there is no apt-get to install it", strings.Join(missing, " ")))
		}
	}
	return errors.Join(all...)
}

// checkNamespaces makes those of a node, for a program that does nothing.
func checkNamespaces() error {
	cmd := exec.Command("/bin/true") //nolint:noctx // it ends at once
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("namespaces of its own: %w: give it CAP_SYS_ADMIN", err)
	}
	return nil
}

// checkGroups makes an empty control group in each hierarchy.
func checkGroups() error {
	all, err := hierarchies()
	if err != nil {
		return fmt.Errorf("control groups: %w", err)
	}
	for _, need := range []string{"cpu", "cpuset", "memory", "pids"} {
		if !slices.ContainsFunc(all, func(h string) bool { return slices.Contains(strings.Split(filepath.Base(h), ","), need) }) {
			return fmt.Errorf("control groups: no hierarchy %s in %s", need, cgroups)
		}
	}
	for _, h := range all {
		probe, err := os.MkdirTemp(h, "kube-probe-")
		if err == nil {
			err = os.Remove(probe)
		}
		if err != nil {
			return fmt.Errorf("control groups: %w", err)
		}
	}
	return nil
}

// checkDisk looks at what the nodes' files would be on.
func (c *cluster) checkDisk() error {
	dir := c.cache
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return fmt.Errorf("%s is on an overlay filesystem, on which containers' own overlays do not work: set AMBIT_CLUSTER_DIR to a folder on another one", dir)
	}
	return nil
}

// missingPackages are the Debian packages that the nodes need and the machine lacks.
func missingPackages() []string {
	var missing []string
	for file, pkg := range needed() {
		if _, err := os.Stat(file); err != nil {
			missing = append(missing, pkg)
		}
	}
	slices.Sort(missing)
	return missing
}
