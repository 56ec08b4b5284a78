package wire

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/ambit-mesh/ambit/internal/local/process"
)

// Port is where a pod is attached to its node.
type Port struct {
	// Addrs are the pod's addresses, IPv4 first.
	Addrs []netip.Addr
	// NetnsPath is where the pod's network namespace is named.
	NetnsPath string

	node   *Node
	number int
	veth   string
}

// Attach gives a pod's new network namespace its link, addresses and routes, and
// a name.
func (n *Node) Attach(name string, ns *process.Namespaces) (*Port, error) {
	n.mu.Lock()
	number, err := n.pods.take()
	n.mu.Unlock()
	if err != nil {
		return nil, err
	}
	p := &Port{node: n, number: number, veth: fmt.Sprintf("pod%d", number)}
	if p.NetnsPath, err = n.wire.publish(name, ns.Net); err == nil {
		if err = p.connect(ns); err != nil {
			err = errors.Join(err, withdraw(p.NetnsPath))
		}
	}
	if err != nil {
		p.giveBack()
		return nil, err
	}
	return p, nil
}

func (p *Port) giveBack() {
	p.node.mu.Lock()
	p.node.pods.give(p.number)
	p.node.mu.Unlock()
}

func (p *Port) connect(ns *process.Namespaces) error {
	n, w := p.node, p.node.wire
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = p.veth, mtu
	peer := netlink.NsFd(ns.Net.Fd())
	if err := n.links.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: peer, PeerMTU: mtu}); err != nil {
		return fmt.Errorf("make the pod's link: %w", err)
	}
	inside, err := handle(ns)
	if err != nil {
		return err
	}
	defer inside.Close()
	if _, err := w.up(inside, "lo"); err != nil {
		return err
	}
	eth0, err := w.up(inside, "eth0")
	if err != nil {
		return err
	}
	veth, err := w.up(n.links, p.veth)
	if err != nil {
		return err
	}
	if err := w.addresses(n.links, veth, host(gateway4), netip.PrefixFrom(gateway6, 64)); err != nil {
		return err
	}
	addr4, addr6 := podAddresses(n.Index, p.number)
	p.Addrs = []netip.Addr{addr4}
	if w.IPv6 {
		p.Addrs = append(p.Addrs, addr6)
	}
	for _, a := range p.Addrs {
		gateway, source := gateway4, n.Addr4
		if a.Is6() {
			gateway, source = gateway6, n.Addr6
		}
		if err := errors.Join(
			w.addresses(inside, eth0, host(a)),
			w.route(inside, eth0, netip.Prefix{}, gateway, netip.Addr{}),
			w.route(n.links, veth, host(a), netip.Addr{}, source)); err != nil {
			return err
		}
	}
	return nil
}

// Detach takes the pod off the network. Its namespace lives on until its last
// process is gone.
func (p *Port) Detach() error {
	defer p.giveBack()
	err := withdraw(p.NetnsPath)
	link, lerr := p.node.links.LinkByName(p.veth)
	var gone netlink.LinkNotFoundError
	switch {
	case errors.As(lerr, &gone):
		// It went with the namespace.
	case lerr == nil:
		lerr = p.node.links.LinkDel(link)
		if lerr != nil {
			err = errors.Join(err, fmt.Errorf("delete the pod's link: %w", lerr))
		}
	default:
		err = errors.Join(err, lerr)
	}
	return err
}
