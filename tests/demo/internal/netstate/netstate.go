// Package netstate writes down all of a network namespace that capture could
// have changed: links, addresses, routes of all tables, policy rules, nftables.
package netstate

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Read gives the calling thread's network namespace as sorted lines.
func Read() (string, error) {
	var lines []string
	for _, part := range []func() ([]string, error){links, routes, rules, tables, sysctls} {
		l, err := part()
		if err != nil {
			return "", err
		}
		lines = append(lines, l...)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n", nil
}

func links() ([]string, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var lines []string
	for _, l := range all {
		a := l.Attrs()
		lines = append(lines, fmt.Sprintf("link %d %s %s mtu %d %s", a.Index, a.Name, l.Type(), a.MTU, a.Flags))
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", a.Name, err)
		}
		for _, addr := range addrs {
			lines = append(lines, fmt.Sprintf("address %s %s scope %d", a.Name, addr.IPNet, addr.Scope))
		}
	}
	return lines, nil
}

func routes() ([]string, error) {
	var lines []string
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		// Filtering by "no table" gives those of all tables.
		all, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range all {
			lines = append(lines, fmt.Sprintf("route table %d type %d dst %v gw %v dev %d src %v metric %d", r.Table, r.Type, r.Dst, r.Gw, r.LinkIndex, r.Src, r.Priority))
		}
	}
	return lines, nil
}

func rules() ([]string, error) {
	var lines []string
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		all, err := netlink.RuleList(family)
		if err != nil {
			return nil, fmt.Errorf("list policy rules: %w", err)
		}
		for _, r := range all {
			lines = append(lines, fmt.Sprintf("rule family %d %s", family, r.String()))
		}
	}
	return lines, nil
}

func tables() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	all, err := conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", err)
	}
	var lines []string
	for _, t := range all {
		lines = append(lines, fmt.Sprintf("nftables table %d %s", t.Family, t.Name))
		chains, err := conn.ListChainsOfTableFamily(t.Family)
		if err != nil {
			return nil, fmt.Errorf("list chains: %w", err)
		}
		for _, c := range chains {
			if c.Table.Name != t.Name {
				continue
			}
			found, err := conn.GetRules(t, c)
			if err != nil {
				return nil, fmt.Errorf("list rules of %s: %w", c.Name, err)
			}
			lines = append(lines, fmt.Sprintf("nftables chain %s %s with %d rules", t.Name, c.Name, len(found)))
			for i, r := range found {
				body, err := json.Marshal(r.Exprs)
				if err != nil {
					return nil, fmt.Errorf("rule of %s: %w", c.Name, err)
				}
				lines = append(lines, fmt.Sprintf("nftables rule %s %s %d %s", t.Name, c.Name, i, body))
			}
		}
	}
	return lines, nil
}

// sysctls gives those that steer packets.
func sysctls() ([]string, error) {
	var lines []string
	for _, pattern := range []string{"ipv4/conf/*/*", "ipv6/conf/*/*", "ipv4/ip_*", "ipv4/fwmark_reflect", "ipv4/tcp_fwmark_accept", "ipv6/fwmark_reflect"} {
		paths, err := filepath.Glob("/proc/sys/net/" + pattern)
		if err != nil {
			return nil, err
		}
		for _, p := range paths {
			value, err := os.ReadFile(p)
			if err != nil {
				continue // some can only be written, and some are not for everybody
			}
			lines = append(lines, fmt.Sprintf("sysctl %s = %s", strings.TrimPrefix(p, "/proc/sys/"), strings.TrimSpace(string(value))))
		}
	}
	return lines, nil
}
