package wire

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/local/process"
)

// Bridge is the name of the link that joins the nodes.
const Bridge = "br0"

// Wire is the network between the nodes.
type Wire struct {
	// IPv6 is false where the kernel has none.
	IPv6 bool

	dir    string
	links  *netlink.Handle
	bridge netlink.Link
	nodes  []*Node
}

// New builds the bridge and the addresses of the sandbox's own namespace. Named
// network namespaces go to dir.
func New(dir string) (*Wire, error) {
	links, err := netlink.NewHandle()
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	_, err = os.Stat("/proc/sys/net/ipv6")
	w := &Wire{IPv6: err == nil, dir: dir, links: links}
	if err := w.build(); err != nil {
		links.Close()
		return nil, fmt.Errorf("build the wire: %w", err)
	}
	return w, nil
}

func (w *Wire) build() error {
	if err := w.sysctls(); err != nil {
		return err
	}
	lo, err := w.up(w.links, "lo")
	if err != nil {
		return err
	}
	if err := w.addresses(w.links, lo, host(DNS4), host(DNS6)); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = Bridge, mtu
	if err := w.links.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("make bridge %s: %w; the kernel needs bridge support (modprobe bridge)", Bridge, err)
	}
	w.bridge, err = w.up(w.links, Bridge)
	if err != nil {
		return err
	}
	return w.addresses(w.links, w.bridge, netip.PrefixFrom(ControlPlane4, wireBits4), netip.PrefixFrom(ControlPlane6, wireBits6))
}

// sysctls makes the calling thread's network namespace a router.
func (w *Wire) sysctls() error {
	settings := []struct{ path, value string }{
		{"ipv4/ip_forward", "1"},
		{"ipv4/conf/all/rp_filter", "0"},
		{"ipv4/conf/default/rp_filter", "0"},
	}
	if w.IPv6 {
		settings = append(settings, []struct{ path, value string }{
			{"ipv6/conf/all/disable_ipv6", "0"},
			{"ipv6/conf/default/disable_ipv6", "0"},
			{"ipv6/conf/all/forwarding", "1"},
			{"ipv6/conf/default/accept_dad", "0"},
			{"ipv6/conf/all/accept_dad", "0"},
		}...)
	}
	for _, s := range settings {
		if err := os.WriteFile("/proc/sys/net/"+s.path, []byte(s.value), 0); err != nil {
			return fmt.Errorf("set net.%s=%s: %w", s.path, s.value, err)
		}
	}
	return nil
}

func (w *Wire) up(h *netlink.Handle, name string) (netlink.Link, error) {
	link, err := h.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", name, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set link %s up: %w", name, err)
	}
	return link, nil
}

// addresses adds those of the families that the kernel has.
func (w *Wire) addresses(h *netlink.Handle, link netlink.Link, all ...netip.Prefix) error {
	for _, p := range all {
		if p.Addr().Is6() && !w.IPv6 {
			continue
		}
		addr := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if p.Addr().IsLinkLocalUnicast() {
			addr.Scope = unix.RT_SCOPE_LINK
		}
		if err := h.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("add address %s to %s: %w", p, link.Attrs().Name, err)
		}
	}
	return nil
}

// route adds a route to dst; an invalid dst is the default. Without a gateway
// dst is on the link itself.
func (w *Wire) route(h *netlink.Handle, link netlink.Link, dst netip.Prefix, gateway, source netip.Addr) error {
	if (gateway.Is6() || dst.Addr().Is6()) && !w.IPv6 {
		return nil
	}
	r := &netlink.Route{LinkIndex: link.Attrs().Index}
	if dst.IsValid() {
		r.Dst = ipNet(dst)
	}
	if gateway.IsValid() {
		r.Gw, r.Flags = gateway.AsSlice(), int(netlink.FLAG_ONLINK)
	} else if dst.Addr().Is4() {
		r.Scope = netlink.SCOPE_LINK
	}
	if source.IsValid() {
		r.Src = source.AsSlice()
	}
	if err := h.RouteAdd(r); err != nil {
		return fmt.Errorf("add route to %s: %w", dst, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// publish gives a network namespace a path.
func (w *Wire) publish(name string, ns *os.File) (string, error) {
	path := filepath.Join(w.dir, name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return "", fmt.Errorf("name network namespace: %w", err)
	}
	f.Close()
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()), path, "", unix.MS_BIND, ""); err != nil {
		return "", errors.Join(fmt.Errorf("name network namespace %s: %w", path, err), os.Remove(path))
	}
	return path, nil
}

func withdraw(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// handle opens netlink inside a namespace.
func handle(ns *process.Namespaces) (*netlink.Handle, error) {
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.Net.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink in %s: %w", ns.Net.Name(), err)
	}
	return h, nil
}
