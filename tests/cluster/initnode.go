package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroups is where the hierarchies of control groups are.
const cgroups = "/sys/fs/cgroup"

// plugins is where Debian puts the CNI plug-ins.
const plugins = "/usr/lib/cni"

// initNode is the first process of a node's namespaces.
func (c *cluster) initNode(n node) error {
	if err := unix.Sethostname([]byte(n.Name)); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	if err := ownProc(); err != nil {
		return err
	}
	if err := ownSys(n); err != nil {
		return err
	}
	if err := ownFolders(n); err != nil {
		return err
	}
	if err := controlGroups(n); err != nil {
		return err
	}
	if err := install(n); err != nil {
		return err
	}
	// The kubelet hands mounts on to pods that ask for HostToContainer.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	if err := handshake(); err != nil {
		return err
	}
	if err := c.network(n); err != nil {
		return err
	}
	return supervise(n.Dir, c.nodePrograms(n))
}

// ownSys shows this network namespace in /sys, and keeps the control groups, which are mounts below it. They are moved: a
// second mount of them would confuse who looks for the first.
func ownSys(n node) error {
	keep := filepath.Join(n.Dir, "cgroup")
	if err := os.MkdirAll(keep, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(cgroups, keep, "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move %s: %w", cgroups, err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	if err := unix.Mount(keep, cgroups, "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move %s back: %w", cgroups, err)
	}
	return nil
}

// ownFolders gives the node its own /etc, /opt, /run, /var/lib and /var/log. What it writes there is in its folder.
func ownFolders(n node) error {
	for _, dir := range []string{"/etc", "/opt", "/var/lib", "/var/log"} {
		at := filepath.Join(n.Dir, "files", strings.ReplaceAll(dir[1:], "/", "-"))
		upper, work := filepath.Join(at, "upper"), filepath.Join(at, "work")
		if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755)); err != nil {
			return err
		}
		if err := unix.Mount("overlay", dir, "overlay", 0, "lowerdir="+dir+",upperdir="+upper+",workdir="+work); err != nil {
			return fmt.Errorf("overlay on %s: %w", dir, err)
		}
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	if target, err := os.Readlink("/var/run"); err != nil || target == "" {
		if err := bind("/run", "/var/run"); err != nil {
			return err
		}
	}
	// Container images are overlays themselves, and overlays do not go on overlays.
	for _, dir := range []string{"/var/lib/containerd", "/var/lib/kubelet"} {
		own := filepath.Join(n.Dir, filepath.Base(dir))
		if err := errors.Join(os.MkdirAll(own, 0o755), os.MkdirAll(dir, 0o755)); err != nil {
			return err
		}
		if err := bind(own, dir); err != nil {
			return err
		}
	}
	return nil
}

func bind(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", from, to, err)
	}
	return nil
}

// hierarchies are the folders in which a node's control group has to be.
func hierarchies() ([]string, error) {
	if _, err := os.Stat(filepath.Join(cgroups, "cgroup.controllers")); err == nil {
		return nil, errors.New("control groups are of version 2 only, which the test cluster does not know yet: boot with systemd.unified_cgroup_hierarchy=0")
	}
	entries, err := os.ReadDir(cgroups)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		if dir := filepath.Join(cgroups, e.Name()); e.IsDir() && e.Name() != "unified" {
			all = append(all, dir)
		}
	}
	return all, nil
}

// groupName is the node's control group. All pods of the node are below it.
func groupName(n node) string { return "kube-" + n.Name }

func controlGroups(n node) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		dir := filepath.Join(h, groupName(n))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("control group: %w", err)
		}
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
			b, err := os.ReadFile(filepath.Join(h, f))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			// A group without processors and memory takes no process.
			if err := errors.Join(err, os.WriteFile(filepath.Join(dir, f), b, 0o644)); err != nil {
				return fmt.Errorf("control group: %w", err)
			}
		}
	}
	return nil
}

// install puts the CNI plug-ins and their configuration where they usually are.
func install(n node) error {
	for _, dir := range []string{"/run/netns", "/run/lock", "/var/lib/cni", "/opt/cni/bin", "/etc/cni/net.d", "/etc/kubernetes", "/var/log/pods", "/var/log/containers"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	names, err := filepath.Glob(plugins + "/*")
	if err != nil {
		return err
	}
	for _, p := range names {
		if err := copyFile(p, filepath.Join("/opt/cni/bin", filepath.Base(p)), 0o755); err != nil {
			return err
		}
	}
	const conf = "/etc/cni/net.d/10-ptp.conflist"
	if _, err := os.Stat(conf); err == nil {
		return nil // of before its power failed; others may have changed it since
	}
	return copyFile(filepath.Join(n.Dir, "10-ptp.conflist"), conf, 0o644)
}

func copyFile(from, to string, mode os.FileMode) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, mode)
}

// network configures the link that plug has made.
func (c *cluster) network(n node) error {
	commands := []string{
		"ip link set lo up",
		"ip addr add " + n.ip() + "/24 dev eth0",
		"ip link set eth0 up",
		"ip route add default via " + controlIP,
		"sysctl -qw net.ipv4.ip_forward=1",
		"sysctl -qw net.ipv6.conf.all.forwarding=1",
	}
	for _, o := range c.nodes {
		if o.Name != n.Name {
			commands = append(commands, "ip route add "+o.pods()+" via "+o.ip())
		}
	}
	for _, cmd := range commands {
		if err := do(strings.Fields(cmd)...); err != nil {
			return err
		}
	}
	return nil
}
