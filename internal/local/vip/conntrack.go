package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// forget drops what the kernel remembers of UDP exchanges with backends that are
// gone: unlike a TCP client, a UDP client would go on using such a path for as
// long as it sends.
func forget(ns *os.File, gone []netip.AddrPort) error {
	if len(gone) == 0 {
		return nil
	}
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("conntrack: %w", err)
	}
	defer h.Close()
	var errs []error
	for _, b := range gone {
		_, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, familyOf(b.Addr()), udpBackend{b})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func familyOf(a netip.Addr) netlink.InetFamily {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// udpBackend matches flows that one backend answers.
type udpBackend struct{ addr netip.AddrPort }

var _ netlink.CustomConntrackFilter = udpBackend{}

// MatchConntrackFlow reports whether the flow is one of the backend.
func (u udpBackend) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	from, ok := netip.AddrFromSlice(flow.Reverse.SrcIP)
	return ok && flow.Forward.Protocol == unix.IPPROTO_UDP &&
		netip.AddrPortFrom(from.Unmap(), flow.Reverse.SrcPort) == u.addr
}
