package wire

import (
	"fmt"
	"net/netip"
)

// MaxNodes is how many nodes the addresses suffice for.
const MaxNodes = 99

// Addresses that are the same in every local mesh.
var (
	// ControlPlane4 and ControlPlane6 are those of the sandbox's own namespace.
	ControlPlane4 = netip.MustParseAddr("172.18.0.1")
	ControlPlane6 = netip.MustParseAddr("fd00:18::1")
	// Prober4 and Prober6 are where health probes come from. Capture lets them
	// in untouched.
	Prober4 = netip.MustParseAddr("169.254.7.127")
	Prober6 = netip.MustParseAddr("fd16:9254:7127:1337:ffff:ffff:ffff:ffff")
	// DNS4 and DNS6 are where names are resolved.
	DNS4 = netip.MustParseAddr("10.96.0.10")
	DNS6 = netip.MustParseAddr("fd00:10:96::a")
	// Services4 and Services6 are the blocks of virtual service addresses.
	Services4 = netip.MustParsePrefix("10.96.0.0/16")
	Services6 = netip.MustParsePrefix("fd00:10:96::/112")

	gateway4 = netip.MustParseAddr("169.254.1.1")
	gateway6 = netip.MustParseAddr("fe80::1")
)

const (
	wireBits4, wireBits6 = 24, 64
	podBits4, podBits6   = 24, 64
	mtu                  = 1500
)

// NodeAddresses gives the addresses of the i-th node, counted from 1.
func NodeAddresses(i int) (v4, v6 netip.Addr) {
	return netip.AddrFrom4([4]byte{172, 18, 0, byte(10 + i)}),
		netip.MustParseAddr(fmt.Sprintf("fd00:18::%d", 10+i))
}

// PodBlocks gives the blocks of the i-th node's pods.
func PodBlocks(i int) (v4, v6 netip.Prefix) {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), podBits4),
		netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("fd00:10:244:%d::", i)), podBits6)
}

// podAddresses gives the addresses of a pod by its number on the node.
func podAddresses(node, pod int) (v4, v6 netip.Addr) {
	return netip.AddrFrom4([4]byte{10, 244, byte(node), byte(pod)}),
		netip.MustParseAddr(fmt.Sprintf("fd00:10:244:%d::%x", node, pod))
}

const firstPod, lastPod = 2, 254

// pool hands out the pod numbers of one node. A number that was given back is
// the last to be used again, so that a connection to a pod that is gone does
// not meet another one by accident.
type pool struct {
	used map[int]bool
	next int
}

func (p *pool) take() (int, error) {
	if p.used == nil {
		p.used, p.next = make(map[int]bool), firstPod
	}
	for range lastPod - firstPod + 1 {
		n := p.next
		if p.next++; p.next > lastPod {
			p.next = firstPod
		}
		if !p.used[n] {
			p.used[n] = true
			return n, nil
		}
	}
	return 0, fmt.Errorf("all %d pod addresses of the node are in use: start with more --nodes", lastPod-firstPod+1)
}

func (p *pool) give(n int) { delete(p.used, n) }
