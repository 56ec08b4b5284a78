package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/local/process"
)

// Node is a machine of the local mesh: a network namespace with a place on the
// wire.
type Node struct {
	Name string
	// Index counts from 1.
	Index  int
	Addr4  netip.Addr
	Addr6  netip.Addr // invalid without IPv6
	Block4 netip.Prefix
	Block6 netip.Prefix // invalid without IPv6
	// Namespaces has only Net set. They stay open as long as the process runs.
	Namespaces process.Namespaces
	// NetnsPath is where the namespace is named.
	NetnsPath string

	wire  *Wire
	links *netlink.Handle
	eth0  netlink.Link
	mu    sync.Mutex
	pods  pool // guarded by mu
}

// AddNode adds the next node and tells the nodes before it the way.
func (w *Wire) AddNode(name string) (*Node, error) {
	n := &Node{Name: name, Index: len(w.nodes) + 1, wire: w}
	if n.Index > MaxNodes {
		return nil, fmt.Errorf("node %s: at most %d nodes fit on the wire", name, MaxNodes)
	}
	n.Addr4, n.Addr6 = NodeAddresses(n.Index)
	n.Block4, n.Block6 = PodBlocks(n.Index)
	if !w.IPv6 {
		n.Addr6, n.Block6 = netip.Addr{}, netip.Prefix{}
	}
	if err := w.addNode(n); err != nil {
		return nil, fmt.Errorf("node %s: %w", name, err)
	}
	w.nodes = append(w.nodes, n)
	return n, nil
}

func (w *Wire) addNode(n *Node) error {
	ns, err := process.Unshare(unix.CLONE_NEWNET, w.sysctls)
	if err != nil {
		return err
	}
	n.Namespaces = *ns
	if n.NetnsPath, err = w.publish(n.Name, ns.Net); err != nil {
		return err
	}
	if n.links, err = handle(ns); err != nil {
		return err
	}
	if err := w.plug(n); err != nil {
		return err
	}
	lo, err := w.up(n.links, "lo")
	if err != nil {
		return err
	}
	if err := w.addresses(n.links, lo, host(Prober4), host(Prober6)); err != nil {
		return err
	}
	return w.introduce(n)
}

// plug joins the node to the bridge.
func (w *Wire) plug(n *Node) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.MasterIndex = n.Name, mtu, w.bridge.Attrs().Index
	peer := netlink.NsFd(n.Namespaces.Net.Fd())
	if err := w.links.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: peer, PeerMTU: mtu}); err != nil {
		return fmt.Errorf("make its link: %w", err)
	}
	if _, err := w.up(w.links, n.Name); err != nil {
		return err
	}
	var err error
	if n.eth0, err = w.up(n.links, "eth0"); err != nil {
		return err
	}
	if err := w.addresses(n.links, n.eth0, netip.PrefixFrom(n.Addr4, wireBits4)); err != nil {
		return err
	}
	if w.IPv6 {
		if err := w.addresses(n.links, n.eth0, netip.PrefixFrom(n.Addr6, wireBits6)); err != nil {
			return err
		}
	}
	return errors.Join(
		w.route(n.links, n.eth0, netip.Prefix{}, ControlPlane4, netip.Addr{}),
		w.route(n.links, n.eth0, netip.Prefix{}, ControlPlane6, netip.Addr{}))
}

// introduce adds the routes between the node's pods and everybody else's.
func (w *Wire) introduce(n *Node) error {
	for _, o := range w.nodes {
		if err := errors.Join(
			w.route(n.links, n.eth0, o.Block4, o.Addr4, n.Addr4),
			w.route(o.links, o.eth0, n.Block4, n.Addr4, o.Addr4)); err != nil {
			return err
		}
		if !w.IPv6 {
			continue
		}
		if err := errors.Join(
			w.route(n.links, n.eth0, o.Block6, o.Addr6, n.Addr6),
			w.route(o.links, o.eth0, n.Block6, n.Addr6, o.Addr6)); err != nil {
			return err
		}
	}
	err := w.route(w.links, w.bridge, n.Block4, n.Addr4, netip.Addr{})
	if err == nil && w.IPv6 {
		err = w.route(w.links, w.bridge, n.Block6, n.Addr6, netip.Addr{})
	}
	return err
}
