package capture

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// forgetDNS drops what the namespace remembers of DNS exchanges over UDP, whether or
// not they are redirected. The next datagram is looked at anew; nothing is lost.
func (k *kernel) forgetDNS() error {
	var errs []error
	for _, af := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		if _, err := k.route.ConntrackDeleteFilters(netlink.ConntrackTable, af, dnsFlow{}); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("conntrack (CONFIG_NF_CT_NETLINK): %w", err))
		}
	}
	return errors.Join(errs...)
}

// dnsFlow matches UDP exchanges with resolvers.
type dnsFlow struct{}

var _ netlink.CustomConntrackFilter = dnsFlow{}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (dnsFlow) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	return f.Forward.Protocol == unix.IPPROTO_UDP && f.Forward.DstPort == resolverPort
}
