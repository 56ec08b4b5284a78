package authz

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"

	"github.com/ambit-mesh/ambit/apis/security"
)

// manyValues is from where on a field's values are looked up in a table instead
// of being compared one by one.
const manyValues = 12

// match is a compiled Match. A nil field is not set.
type match struct {
	principals, notPrincipals *stringSet
	namespaces, notNamespaces *stringSet
	accounts, notAccounts     map[account]struct{}
	sources, notSources       *blockSet
	destinations, notDests    *blockSet
	ports, notPorts           []uint16
	request                   *requestMatch
	// peer: principals are of who holds the tunnel.
	peer bool
	// set says that there is a field at all.
	set bool
}

type account struct{ namespace, name string }

func (m *match) compile(in *security.Match, action Action) error {
	var err error
	fields := []struct {
		name string
		in   []*security.StringMatch
		out  **stringSet
		ids  bool
	}{
		{"principals", in.GetPrincipals(), &m.principals, true},
		{"not_principals", in.GetNotPrincipals(), &m.notPrincipals, true},
		{"namespaces", in.GetNamespaces(), &m.namespaces, false},
		{"not_namespaces", in.GetNotNamespaces(), &m.notNamespaces, false},
	}
	for _, f := range fields {
		if *f.out, err = compileStrings(f.in, f.ids); err != nil {
			return fmt.Errorf("%s%w", f.name, err)
		}
	}
	if err := m.compileBlocks(in); err != nil {
		return err
	}
	if m.ports, err = compilePorts(in.GetDestinationPorts()); err != nil {
		return fmt.Errorf("destination_ports%w", err)
	}
	if m.notPorts, err = compilePorts(in.GetNotDestinationPorts()); err != nil {
		return fmt.Errorf("not_destination_ports%w", err)
	}
	m.accounts = compileAccounts(in.GetServiceAccounts())
	m.notAccounts = compileAccounts(in.GetNotServiceAccounts())
	if err := m.compileExtensions(in, action); err != nil {
		return err
	}
	m.set = m.request != nil || m.principals != nil || m.notPrincipals != nil || m.namespaces != nil || m.notNamespaces != nil ||
		m.accounts != nil || m.notAccounts != nil || m.sources != nil || m.notSources != nil ||
		m.destinations != nil || m.notDests != nil || m.ports != nil || m.notPorts != nil
	return nil
}

// ours are extensions that say what to enforce; others' say nothing to us.
const ours = "ambit-mesh.io/"

func (m *match) compileExtensions(in *security.Match, action Action) error {
	for _, e := range in.GetExtensions() {
		var err error
		switch name := e.GetName(); {
		case name == security.TunnelPeerExtension:
			m.peer = true
			err = e.GetConfig().UnmarshalTo(&security.TunnelPeer{})
		case name == security.RequestExtension && m.request == nil:
			request := &security.RequestMatch{}
			if err = e.GetConfig().UnmarshalTo(request); err == nil {
				m.request, err = compileRequest(request, action)
			}
		case strings.HasPrefix(name, ours):
			err = errUnknownMatch
		}
		if err != nil {
			return fmt.Errorf("extensions[%s]: %w", e.GetName(), err)
		}
	}
	return nil
}

func (m *match) compileBlocks(in *security.Match) error {
	fields := []struct {
		name string
		in   []*security.Address
		out  **blockSet
	}{
		{"source_ips", in.GetSourceIps(), &m.sources},
		{"not_source_ips", in.GetNotSourceIps(), &m.notSources},
		{"destination_ips", in.GetDestinationIps(), &m.destinations},
		{"not_destination_ips", in.GetNotDestinationIps(), &m.notDests},
	}
	for _, f := range fields {
		var err error
		if *f.out, err = compileBlocks(f.in); err != nil {
			return fmt.Errorf("%s%w", f.name, err)
		}
	}
	return nil
}

func compileAccounts(in []*security.ServiceAccountMatch) map[account]struct{} {
	if len(in) == 0 {
		return nil
	}
	out := make(map[account]struct{}, len(in))
	for _, a := range in {
		out[account{a.GetNamespace(), a.GetServiceAccount()}] = struct{}{}
	}
	return out
}

func compilePorts(in []uint32) ([]uint16, error) {
	if len(in) == 0 {
		return nil, nil
	}
	out := make([]uint16, len(in))
	for i, p := range in {
		if p > 65535 {
			return nil, fmt.Errorf("[%d]: %d is not a port", i, p)
		}
		out[i] = uint16(p)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// matches tries the cheapest fields first.
func (m *match) matches(c *facts) bool {
	if !m.set {
		return false
	}
	if m.ports != nil && !hasPort(m.ports, c.DestPort) || m.notPorts != nil && hasPort(m.notPorts, c.DestPort) {
		return false
	}
	if m.accounts != nil && !hasAccount(m.accounts, c) || m.notAccounts != nil && hasAccount(m.notAccounts, c) {
		return false
	}
	if m.namespaces != nil && !m.namespaces.hasString(c.Source.Namespace) ||
		m.notNamespaces != nil && m.notNamespaces.hasString(c.Source.Namespace) {
		return false
	}
	who := &c.Source
	if m.peer {
		who = &c.Peer
	}
	if m.principals != nil && !m.principals.hasID(who) || m.notPrincipals != nil && m.notPrincipals.hasID(who) {
		return false
	}
	if m.request != nil && !m.request.matches(c) {
		return false
	}
	if m.sources != nil && !m.sources.has(c.SourceIP) || m.notSources != nil && m.notSources.has(c.SourceIP) {
		return false
	}
	return (m.destinations == nil || m.destinations.has(c.DestIP)) && (m.notDests == nil || !m.notDests.has(c.DestIP))
}

func hasPort(ports []uint16, p uint16) bool {
	if len(ports) < manyValues {
		return slices.Contains(ports, p)
	}
	_, found := slices.BinarySearch(ports, p)
	return found
}

func hasAccount(accounts map[account]struct{}, c *facts) bool {
	if c.Source.IsZero() {
		return false
	}
	_, found := accounts[account{c.Source.Namespace, c.Source.ServiceAccount}]
	return found
}

// blockSet is a set of address blocks: a list while it is short, then a table.
type blockSet struct {
	list  []netip.Prefix
	table *bart.Lite
}

func compileBlocks(in []*security.Address) (*blockSet, error) {
	if len(in) == 0 {
		return nil, nil
	}
	s := &blockSet{list: make([]netip.Prefix, len(in))}
	for i, a := range in {
		prefix, err := parseBlock(a)
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		s.list[i] = prefix
	}
	if len(s.list) >= manyValues {
		s.table = &bart.Lite{}
		for _, prefix := range s.list {
			s.table.Insert(prefix)
		}
	}
	return s, nil
}

// parseBlock reads a block. An IPv4 block in IPv6 form is the IPv4 block, as
// addresses of connections are.
func parseBlock(a *security.Address) (netip.Prefix, error) {
	addr, ok := netip.AddrFromSlice(a.GetAddress())
	if !ok {
		return netip.Prefix{}, fmt.Errorf("an address has 4 or 16 bytes, not %d", len(a.GetAddress()))
	}
	if int64(a.GetLength()) > int64(addr.BitLen()) {
		return netip.Prefix{}, fmt.Errorf("prefix length %d is more than %d", a.GetLength(), addr.BitLen())
	}
	length := int(a.GetLength())
	if addr.Is4In6() && length >= 96 {
		addr, length = addr.Unmap(), length-96
	}
	return netip.PrefixFrom(addr, length).Masked(), nil
}

func (s *blockSet) has(ip netip.Addr) bool {
	if s.table != nil {
		return s.table.Contains(ip)
	}
	for i := range s.list {
		if s.list[i].Contains(ip) {
			return true
		}
	}
	return false
}
