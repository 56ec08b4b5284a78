package clustertest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// State is what a mesh may change of a node and must put back: a line of text for each thing.
type State map[string]string

// probes are commands in a node whose output is a part of its state. What Kubernetes itself changes with each pod (links of
// pods, rules of kube-proxy, state of CNI plug-ins) is left out.
func probes() map[string]string {
	return map[string]string{
		"nftables":         `nft list tables | grep -v kube-proxy || true`,
		"nftables of mesh": `nft list tables | grep -v kube-proxy | while read -r _ family name; do nft list table "$family" "$name"; done | grep -i ambit || true`,
		"ip rules":         `ip rule; ip -6 rule`,
		"routes":           `ip route show table all dev eth0 | sort; ip route show table local type local dev eth0`,
		"links":            `ip -br link | grep -v '^veth' | awk '{print $1}'`,
		"CNI":              `find /etc/cni /opt/cni -type f -exec sha256sum {} + | sort -k2; find /etc/cni /opt/cni -type d -printf '%p %m\n' | sort`,
		"files":            `find /etc /opt /var/lib /var/log -xdev -newer /proc/1 \( -path /var/lib/cni -o -path /var/log/pods -o -path /var/log/containers -o -path /etc/cni -o -path /opt/cni \) -prune -o -iname '*ambit*' -print | sort; ls -d /run/ambit /run/ztunnel /var/lib/ambit 2>/dev/null || true`,
		"sysctls":          `sysctl -a 2>/dev/null | grep -E '^net\.ipv[46]\.(ip_forward|conf\.(all|default|eth0)\.|ip_nonlocal|fwmark)' | sort`,
	}
}

// State gives a node's.
func (c *Cluster) State(node string) State {
	c.t.Helper()
	s := State{}
	for _, name := range slices.Sorted(maps.Keys(probes())) {
		out, err := c.InNode(node, "sh", "-ec", probes()[name])
		if err != nil {
			c.t.Fatalf("state of %s: %s: %v", node, name, err)
		}
		s[name] = out
	}
	return s
}

// Diff says what is not as it was.
func (s State) Diff(now State) []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(s)) {
		before, after := lines(s[name]), lines(now[name])
		for _, l := range before {
			if !slices.Contains(after, l) {
				all = append(all, fmt.Sprintf("%s: - %s", name, l))
			}
		}
		for _, l := range after {
			if !slices.Contains(before, l) {
				all = append(all, fmt.Sprintf("%s: + %s", name, l))
			}
		}
	}
	return all
}

func lines(s string) []string { return strings.Split(strings.TrimSpace(s), "\n") }
