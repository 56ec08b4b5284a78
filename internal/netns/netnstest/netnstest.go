package netnstest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/netns"
)

// childEnv marks a test binary that Main has started in a user namespace.
const childEnv = "AMBIT_NETNSTEST_CHILD"

// Main runs the tests of a package that needs namespaces, for TestMain to pass
// to os.Exit. Without the privilege to make them it runs the test binary again
// inside a user namespace.
func Main(run func() int) int {
	ns, err := netns.New()
	if err == nil {
		_ = ns.Close()
		return run()
	}
	if os.Getenv(childEnv) != "" {
		fmt.Fprintln(os.Stderr, "netnstest: no network namespaces here:", err)
		return 1
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	if err := cmd.Run(); err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return exit.ExitCode()
		}
		fmt.Fprintln(os.Stderr, "netnstest: no user namespace:", err)
		return 1
	}
	return 0
}

// New makes an empty namespace with loopback up, closed when the test ends.
func New(t testing.TB) *netns.Namespace {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	Up(t, ns, "lo")
	return ns
}

// Handle gives a netlink handle inside ns, closed when the test ends.
func Handle(t testing.TB, ns *netns.Namespace) *netlink.Handle {
	t.Helper()
	var h *netlink.Handle
	err := ns.WithFD(func(fd int) error {
		var err error
		h, err = netlink.NewHandleAt(vnetns.NsHandle(fd))
		return err
	})
	if err != nil {
		t.Fatalf("netlink in %s: %v", ns, err)
	}
	t.Cleanup(h.Close)
	return h
}

// Up sets a link up.
func Up(t testing.TB, ns *netns.Namespace, link string) {
	t.Helper()
	h := Handle(t, ns)
	l, err := h.LinkByName(link)
	if err == nil {
		err = h.LinkSetUp(l)
	}
	if err != nil {
		t.Fatalf("link %s up: %v", link, err)
	}
}

// End is one end of a veth pair.
type End struct {
	NS   *netns.Namespace
	Link string
	// Addrs are the end's addresses with the length of their on-link prefix.
	Addrs []netip.Prefix
	// Gateways are default routes, one a family.
	Gateways []netip.Addr
}

// Veth joins two namespaces with a veth pair.
func Veth(t testing.TB, a, b End) {
	t.Helper()
	ha, hb := Handle(t, a.NS), Handle(t, b.NS)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = a.Link
	err := b.NS.WithFD(func(fd int) error {
		return ha.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: b.Link, PeerNamespace: netlink.NsFd(fd)})
	})
	if err != nil {
		t.Fatalf("veth %s-%s: %v", a.Link, b.Link, err)
	}
	a.configure(t, ha)
	b.configure(t, hb)
	// Routes want both ends up.
	a.route(t, ha)
	b.route(t, hb)
	a.settle(t, ha)
	b.settle(t, hb)
}

// settle waits for what the kernel adds by itself once it sees the other end, so
// that nothing changes behind a test's back.
func (e End) settle(t testing.TB, h *netlink.Handle) {
	t.Helper()
	Eventually(t, e.Link+" has a link-local address", func() bool {
		local, err := h.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(local, func(r netlink.Route) bool { return r.Dst != nil && r.Dst.IP.IsLinkLocalUnicast() })
	})
}

func (e End) configure(t testing.TB, h *netlink.Handle) {
	t.Helper()
	l, err := h.LinkByName(e.Link)
	if err != nil {
		t.Fatalf("link %s: %v", e.Link, err)
	}
	for _, p := range e.Addrs {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if p.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD // usable at once
		}
		if err := h.AddrAdd(l, addr); err != nil {
			t.Fatalf("address %s on %s: %v", p, e.Link, err)
		}
	}
	// Link-local addresses too are to be usable at once.
	Sysctl(t, e.NS, "net/ipv6/conf/"+e.Link+"/accept_dad", "0")
	if err := h.LinkSetUp(l); err != nil {
		t.Fatalf("link %s up: %v", e.Link, err)
	}
}

func (e End) route(t testing.TB, h *netlink.Handle) {
	t.Helper()
	l, err := h.LinkByName(e.Link)
	if err != nil {
		t.Fatalf("link %s: %v", e.Link, err)
	}
	for _, gw := range e.Gateways {
		if err := h.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: gw.AsSlice()}); err != nil {
			t.Fatalf("default route via %s: %v", gw, err)
		}
	}
}

// Sysctl writes a setting below /proc/sys as ns has it, for example
// net/ipv4/ip_forward.
func Sysctl(t testing.TB, ns *netns.Namespace, name, value string) {
	t.Helper()
	err := ns.Do(func() error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0) })
	if err != nil {
		t.Fatalf("sysctl %s=%s: %v", name, value, err)
	}
}

// Eventually polls until cond holds, or fails the test with what was awaited.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
		runtime.Gosched()
		<-time.After(5 * time.Millisecond)
	}
}
