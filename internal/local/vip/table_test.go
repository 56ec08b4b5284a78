package vip

import (
	"net/netip"
	"slices"
	"testing"
)

func ports(all ...string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range all {
		out = append(out, netip.MustParseAddrPort(a))
	}
	return out
}

func TestOrderDoesNotMatter(t *testing.T) {
	a := Frontend{Protocol: TCP, Address: ports("10.96.0.1:80")[0], Backends: ports("10.0.0.1:1", "10.0.0.2:1")}
	b := Frontend{Protocol: UDP, Address: ports("10.96.0.1:80")[0]}
	turned := a
	turned.Backends = ports("10.0.0.2:1", "10.0.0.1:1", "10.0.0.1:1")
	x := Table{Frontends: []Frontend{a, b}}.normalize()
	y := Table{Frontends: []Frontend{b, turned, a}}.normalize()
	if !equal(x, y) {
		t.Errorf("%v differs from %v", x, y)
	}
	y.Frontends[0].Sticky = true
	if equal(x, y) {
		t.Error("a sticky frontend is taken for one that is not")
	}
}

func TestLostUDP(t *testing.T) {
	old := Table{Frontends: []Frontend{
		{Protocol: UDP, Backends: ports("10.0.0.1:53", "10.0.0.2:53")}, {Protocol: TCP, Backends: ports("10.0.0.3:80")},
	}}
	now := Table{Frontends: []Frontend{{Protocol: UDP, Backends: ports("10.0.0.1:53")}, {Protocol: TCP, Backends: ports("10.0.0.2:53")}}}
	if got := now.lostUDP(old); !slices.Equal(got, ports("10.0.0.2:53")) {
		t.Errorf("lost %v", got)
	}
}
