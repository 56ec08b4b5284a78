package sandbox

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/netns/netnstest"
)

func TestMain(m *testing.M) {
	os.Exit(netnstest.Main(func() int {
		code := m.Run()
		if err := goleak.Find(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		return code
	}))
}

const (
	uid1   = "4f1c2b7a-91d2-4c3e-8f6a-0123456789ab"
	uid2   = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
	static = "0123456789abcdef0123456789abcdef"
)

func TestPodOf(t *testing.T) {
	slice := strings.ReplaceAll(uid1, "-", "_")
	for name, tc := range map[string]struct{ cgroup, want string }{
		"v2, systemd, containerd":   {"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + slice + ".slice/cri-containerd-52c1.scope\n", uid1},
		"v2, systemd, guaranteed":   {"0::/kubepods.slice/kubepods-pod" + slice + ".slice/cri-containerd-52c1.scope\n", uid1},
		"v2, systemd, CRI-O":        {"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + slice + ".slice/crio-52c1.scope/container\n", uid1},
		"v2, cgroupfs":              {"0::/kubepods/besteffort/pod" + uid1 + "/52c1\n", uid1},
		"v2, from another cgroup":   {"0::/../../../kubepods-besteffort.slice/kubepods-besteffort-pod" + slice + ".slice/cri-containerd-52c1.scope\n", uid1},
		"v2, a root of the kubelet": {"0::/system.slice/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod" + slice + ".slice/x\n", uid1},
		"v2, drivers mixed up":      {"0::/system.slice/containerd.service/kubepods-burstable-pod" + slice + ".slice:cri-containerd:52c1\n", uid1},
		"v1, cgroupfs":              {"12:pids:/kubepods/burstable/pod" + uid1 + "/52c1\n11:cpu,cpuacct:/kubepods/burstable/pod" + uid1 + "/52c1\n1:name=systemd:/kubepods/x\n", uid1},
		"v1, only some controllers": {"12:pids:/\n4:memory:/kubepods/pod" + uid1 + "/crio-52c1\n", uid1},
		"static pod":                {"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + static + ".slice/cri-containerd-52c1.scope\n", static},
		"what a pod made below":     {"0::/kubepods/pod" + uid1 + "/c/kubepods/pod" + uid2 + "/c\n", uid1},
		"a service":                 {"0::/system.slice/podman-1.service\n", ""},
		"something like a uid":      {"0::/kubepods/pod" + uid1[:35] + "/c\n", ""},
		"a directory that ends so":  {"0::/kubepods/xpod" + uid1 + "/c\n", ""},
		"nothing":                   {"", ""},
		"no cgroup file at all":     {"hello\n", ""},
	} {
		if got := podOf(tc.cgroup); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func FuzzPodOf(f *testing.F) {
	f.Add("0::/kubepods/besteffort/pod" + uid1 + "/52c1\n")
	f.Add("12:pids:/x\n0::/a-pod" + static + ".slice:b")
	f.Fuzz(func(t *testing.T, cgroup string) {
		if uid := podOf(cgroup); uid != "" && len(uid) != 36 && len(uid) != 32 || strings.ContainsAny(uid, "_/:") {
			t.Errorf("%q", uid)
		}
	})
}

// node is a node's /proc and /var/run/netns. Processes are real, their cgroups are
// written.
type node struct {
	t   *testing.T
	f   *Finder
	own netns.ID
}

func newNode(t *testing.T) *node {
	dir := t.TempDir()
	n := &node{t: t, f: &Finder{Proc: filepath.Join(dir, "proc"), Dir: filepath.Join(dir, "netns")}}
	for _, d := range []string{n.f.Proc, n.f.Dir} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	own, err := netns.Own()
	if err != nil {
		t.Fatal(err)
	}
	n.own = own.ID()
	own.Close()
	return n
}

func (n *node) not(id netns.ID) bool { return id == n.own }

// process starts a process of a pod in a namespace of its own with an address, and
// gives the path to it; in the node's namespace if there is no address.
func (n *node) process(uid, addr string) (pid int, kill func()) {
	n.t.Helper()
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if addr != "" {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	killed := false
	kill = func() {
		if !killed {
			killed = true
			in.Close()
			_ = cmd.Wait()
		}
	}
	n.t.Cleanup(kill)
	pid = cmd.Process.Pid
	n.link(pid, uid, pid)
	if addr != "" {
		ns, err := netns.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil {
			n.t.Fatal(err)
		}
		n.t.Cleanup(func() { ns.Close() })
		other := netnstest.New(n.t)
		netnstest.Veth(n.t, netnstest.End{NS: ns, Link: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix(addr + "/24")}}, netnstest.End{NS: other, Link: "eth0"})
	}
	return pid, kill
}

// link makes /proc/PID of the node lead to a real process's namespace.
func (n *node) link(pid int, uid string, to int) {
	n.t.Helper()
	dir := filepath.Join(n.f.Proc, fmt.Sprint(pid))
	if err := os.MkdirAll(filepath.Join(dir, "ns"), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup"), []byte("0::/kubepods/pod"+uid+"/c\n"), 0o644); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Symlink(fmt.Sprintf("/proc/%d/ns/net", to), filepath.Join(dir, "ns", "net")); err != nil {
		n.t.Fatal(err)
	}
}

// keep mounts a process's namespace as a runtime does.
func (n *node) keep(name string, pid int) string {
	n.t.Helper()
	path := filepath.Join(n.f.Dir, name)
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		n.t.Fatal(err)
	}
	if err := unix.Mount(fmt.Sprintf("/proc/%d/ns/net", pid), path, "", unix.MS_BIND, ""); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	return path
}

func (n *node) find(uid, addr string) string {
	n.t.Helper()
	found := n.f.Find(map[string][]netip.Addr{uid: {netip.MustParseAddr(addr)}}, n.not)
	defer func() {
		for _, ns := range found {
			ns.Close()
		}
	}()
	if ns := found[uid]; ns != nil {
		return ns.Path()
	}
	return ""
}

func TestFind(t *testing.T) {
	t.Run("by its process", func(t *testing.T) {
		n := newNode(t)
		n.process(uid2, "10.0.0.3")
		pid, kill := n.process(uid1, "10.0.0.2")
		if got, want := n.find(uid1, "10.0.0.2"), fmt.Sprintf("%s/%d/ns/net", n.f.Proc, pid); got != want {
			t.Errorf("found %q, want %q", got, want)
		}
		if got := n.find(uid1, "10.0.0.9"); got != "" {
			t.Errorf("found %q without the pod's address in it", got)
		}
		if got := n.find(uid1, "10.0.0.3"); got != "" {
			t.Errorf("found %q of another pod", got)
		}
		kill()
		if got := n.find(uid1, "10.0.0.2"); got != "" {
			t.Errorf("found %q of a process that ended", got)
		}
	})
	t.Run("a path that lasts is preferred", func(t *testing.T) {
		n := newNode(t)
		pid, kill := n.process(uid1, "10.0.0.2")
		want := n.keep("cni-1", pid)
		if got := n.find(uid1, "10.0.0.2"); got != want {
			t.Errorf("found %q, want %q", got, want)
		}
		kill()
		if got := n.find(uid1, "10.0.0.2"); got != want {
			t.Errorf("by its address: found %q, want %q", got, want)
		}
	})
	t.Run("never the node's own", func(t *testing.T) {
		n := newNode(t)
		n.process(uid1, "")
		own, err := netns.Own()
		if err != nil {
			t.Fatal(err)
		}
		defer own.Close()
		h := netnstest.Handle(t, own)
		addrs, err := h.AddrList(nil, unix.AF_UNSPEC)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			ip, _ := netip.AddrFromSlice(a.IP)
			if got := n.find(uid1, ip.Unmap().String()); got != "" {
				t.Errorf("found %q by %s", got, ip)
			}
		}
	})
	t.Run("a namespace that the pod made for itself", func(t *testing.T) {
		n := newNode(t)
		pid, _ := n.process(uid1, "10.0.0.2")
		n.process(uid1, "172.17.0.1")
		if got, want := n.find(uid1, "10.0.0.2"), fmt.Sprintf("%s/%d/ns/net", n.f.Proc, pid); got != want {
			t.Errorf("found %q, want %q", got, want)
		}
	})
	t.Run("two with the address", func(t *testing.T) {
		n := newNode(t)
		a, _ := n.process("no-pod", "10.0.0.2")
		b, _ := n.process("no-pod", "10.0.0.2")
		n.keep("cni-1", a)
		n.keep("cni-2", b)
		if got := n.find(uid1, "10.0.0.2"); got != "" {
			t.Errorf("chose %q", got)
		}
	})
}

func TestKept(t *testing.T) {
	n := newNode(t)
	a, _ := n.process(uid1, "10.0.0.2")
	n.keep("cni-1", a)
	n.keep("cni-1-again", a)
	n.keep("host", os.Getpid())
	all := n.f.Kept(n.not)
	for _, ns := range all {
		ns.Close()
	}
	if len(all) != 1 {
		t.Errorf("%d namespaces, want 1: %v", len(all), all)
	}
}
