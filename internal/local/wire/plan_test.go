package wire

import (
	"net/netip"
	"testing"
)

func TestAddressesAreInTheirBlocks(t *testing.T) {
	seen := make(map[netip.Addr]bool)
	for node := 1; node <= MaxNodes; node++ {
		n4, n6 := NodeAddresses(node)
		if !netip.PrefixFrom(ControlPlane4, wireBits4).Contains(n4) || !netip.PrefixFrom(ControlPlane6, wireBits6).Contains(n6) {
			t.Fatalf("node %d: %s and %s are not on the wire", node, n4, n6)
		}
		b4, b6 := PodBlocks(node)
		all := []netip.Addr{n4, n6}
		for _, pod := range []int{firstPod, 17, lastPod} {
			p4, p6 := podAddresses(node, pod)
			if !b4.Contains(p4) || !b6.Contains(p6) {
				t.Fatalf("pod %d of node %d: %s and %s are not in %s and %s", pod, node, p4, p6, b4, b6)
			}
			all = append(all, p4, p6)
		}
		for _, a := range all {
			if seen[a] || Services4.Contains(a) || Services6.Contains(a) {
				t.Fatalf("%s is used twice", a)
			}
			seen[a] = true
		}
	}
}

func TestPoolReusesLate(t *testing.T) {
	var p pool
	first, err := p.take()
	if err != nil {
		t.Fatal(err)
	}
	p.give(first)
	for i := firstPod + 1; i <= lastPod; i++ {
		n, err := p.take()
		if err != nil {
			t.Fatal(err)
		}
		if n == first {
			t.Fatalf("number %d was used again after %d others", first, i-firstPod-1)
		}
	}
	if n, err := p.take(); err != nil || n != first {
		t.Errorf("the last free number: %d, %v; want %d", n, err, first)
	}
	if _, err := p.take(); err == nil {
		t.Error("a number was given out twice")
	}
}
