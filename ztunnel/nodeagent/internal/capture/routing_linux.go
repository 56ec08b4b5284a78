package capture

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	rulePriority = 32764
	routeTable   = 100
	// protocol marks our rules and routes as ours; the kernel gives it no
	// meaning, and routing daemons use other numbers.
	protocol = 109
)

// family is what routing needs to know of an address family.
type family struct {
	name string
	af   int
	all  net.IPNet
	// off says that the namespace has the family switched off: its routes cannot
	// be set, and nothing needs them.
	off bool
}

// families lists those of the kernel, as the namespace of this thread has them.
func families() ([]family, error) {
	v4 := family{name: "IPv4", af: unix.AF_INET, all: net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}}
	v6 := family{name: "IPv6", af: unix.AF_INET6, all: net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}}
	b, err := os.ReadFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []family{v4}, nil // a kernel without IPv6
	case err != nil:
		return nil, fmt.Errorf("is IPv6 on: %w", err)
	}
	v6.off = strings.TrimSpace(string(b)) != "0"
	return []family{v4, v6}, nil
}

func deliveryRule(f family) *netlink.Rule {
	mask := uint32(markMask)
	r := netlink.NewRule()
	r.Family = f.af
	r.Priority = rulePriority
	r.Mark = deliveryMark
	r.Mask = &mask
	r.Table = routeTable
	r.Protocol = protocol
	return r
}

// sameRule compares what the rule does, not who added it.
func sameRule(a, b *netlink.Rule) bool {
	return a.Priority == b.Priority && a.Mark == b.Mark && a.Mask != nil && b.Mask != nil && *a.Mask == *b.Mask &&
		a.Table == b.Table && a.Src == nil && a.Dst == nil && a.IifName == "" && a.OifName == "" && !a.Invert
}

func deliveryRoute(f family, lo netlink.Link) *netlink.Route {
	all := f.all
	return &netlink.Route{
		LinkIndex: lo.Attrs().Index,
		Dst:       &all,
		Table:     routeTable,
		Type:      unix.RTN_LOCAL,
		Scope:     netlink.SCOPE_HOST,
		Protocol:  protocol,
	}
}

// sameRoute compares what the route does.
func sameRoute(a, b *netlink.Route) bool {
	isAll := a.Dst == nil
	if !isAll {
		ones, _ := a.Dst.Mask.Size()
		isAll = ones == 0
	}
	return isAll && a.Type == b.Type && a.LinkIndex == b.LinkIndex
}

// ensureRouting adds the rules and routes that are missing, and names them.
func ensureRouting(h *netlink.Handle) (added []string, err error) {
	lo, err := loopback(h)
	if err != nil {
		return nil, err
	}
	fams, err := families()
	if err != nil {
		return nil, err
	}
	for _, f := range fams {
		if f.off {
			continue
		}
		route, err := ensureRoute(h, f, lo)
		if err != nil {
			return added, err
		}
		rule, err := ensureRule(h, f)
		if err != nil {
			return added, err
		}
		if route {
			added = append(added, f.name+" route")
		}
		if rule {
			added = append(added, f.name+" rule")
		}
	}
	return added, nil
}

func loopback(h *netlink.Handle) (netlink.Link, error) {
	lo, err := h.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("link lo: %w", err)
	}
	if lo.Attrs().Flags&net.FlagUp == 0 {
		return nil, errors.New("link lo is down; the pod's CNI has to bring it up")
	}
	return lo, nil
}

func ensureRule(h *netlink.Handle, f family) (bool, error) {
	want := deliveryRule(f)
	rules, err := h.RuleList(f.af)
	if err != nil {
		return false, fmt.Errorf("list %s rules: %w", f.name, err)
	}
	for i := range rules {
		if sameRule(&rules[i], want) {
			return false, nil
		}
	}
	if err := h.RuleAdd(want); err != nil && !errors.Is(err, fs.ErrExist) {
		return false, fmt.Errorf("add %s rule %d: %w", f.name, rulePriority, err)
	}
	return true, nil
}

// ensureRoute refuses a routing table that somebody else uses: our route would
// take over everything that their rules send there.
func ensureRoute(h *netlink.Handle, f family, lo netlink.Link) (bool, error) {
	want := deliveryRoute(f, lo)
	routes, err := tableRoutes(h, f)
	if err != nil {
		return false, err
	}
	for i := range routes {
		if sameRoute(&routes[i], want) {
			return false, nil
		}
		if routes[i].Protocol != protocol {
			return false, fmt.Errorf("%s routing table %d of the pod is in use (%s); free it or leave the pod out of the mesh", f.name, routeTable, routes[i])
		}
	}
	if err := h.RouteAdd(want); err != nil && !errors.Is(err, fs.ErrExist) {
		return false, fmt.Errorf("add %s route in table %d: %w", f.name, routeTable, err)
	}
	return true, nil
}

func tableRoutes(h *netlink.Handle, f family) ([]netlink.Route, error) {
	routes, err := h.RouteListFiltered(f.af, &netlink.Route{Table: routeTable}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list %s routes of table %d: %w", f.name, routeTable, err)
	}
	return routes, nil
}

// removeRouting removes what carries our protocol number.
func removeRouting(h *netlink.Handle) error {
	fams, err := families()
	if err != nil {
		return err
	}
	for _, f := range fams {
		if err := removeRules(h, f); err != nil {
			return err
		}
		routes, err := tableRoutes(h, f)
		if err != nil {
			return err
		}
		for i := range routes {
			if routes[i].Protocol != protocol {
				continue
			}
			if err := h.RouteDel(&routes[i]); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("delete %s route of table %d: %w", f.name, routeTable, err)
			}
		}
	}
	return nil
}

func removeRules(h *netlink.Handle, f family) error {
	rules, err := h.RuleList(f.af)
	if err != nil {
		return fmt.Errorf("list %s rules: %w", f.name, err)
	}
	for i := range rules {
		if rules[i].Protocol != protocol {
			continue
		}
		rules[i].Family = f.af
		if err := h.RuleDel(&rules[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete %s rule %d: %w", f.name, rules[i].Priority, err)
		}
	}
	return nil
}

// findRouting tells whether any of our rules and routes is there, and whether all
// are in place that should be, whoever added them.
func findRouting(h *netlink.Handle) (ours, all bool, err error) {
	lo, err := h.LinkByName("lo")
	if err != nil {
		return false, false, fmt.Errorf("link lo: %w", err)
	}
	fams, err := families()
	if err != nil {
		return false, false, err
	}
	all = true
	for _, f := range fams {
		rules, err := h.RuleList(f.af)
		if err != nil {
			return false, false, fmt.Errorf("list %s rules: %w", f.name, err)
		}
		routes, err := tableRoutes(h, f)
		if err != nil {
			return false, false, err
		}
		wantRule, wantRoute := deliveryRule(f), deliveryRoute(f, lo)
		rule := slices.ContainsFunc(rules, func(r netlink.Rule) bool { return sameRule(&r, wantRule) })
		route := slices.ContainsFunc(routes, func(r netlink.Route) bool { return sameRoute(&r, wantRoute) })
		ours = ours ||
			slices.ContainsFunc(rules, func(r netlink.Rule) bool { return r.Protocol == protocol }) ||
			slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Protocol == protocol })
		all = all && (f.off || rule && route)
	}
	return ours, all, nil
}
