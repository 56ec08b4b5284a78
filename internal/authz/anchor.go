package authz

import (
	"net/netip"
	"strings"

	"github.com/ambit-mesh/ambit/internal/identity"
)

// anchor is a set of keys such that a rule cannot match a connection that has
// none of them. It is taken from one clause of the rule: from each match of the
// clause, the values of one field.
type anchor struct {
	ids        []identity.ID
	accounts   []account
	namespaces []string
	ports      []uint16
	blocks     []netip.Prefix

	// Of requests alone.
	paths    []string
	prefixes []string
	hosts    []string
	grpc     []grpcKey
}

// ofRequests says whether only a request can have one of the keys.
func (a *anchor) ofRequests() bool {
	return len(a.paths)+len(a.prefixes)+len(a.hosts)+len(a.grpc) > 0
}

// A pick takes an anchor from one match; false if the match has none of that
// sort.
type pick func(*anchor, *match) bool

// picks are the orders in which fields are tried. Together they give several
// anchors for a rule, of which the index keeps the one that tells rules best
// apart.
func picks() [5][]pick {
	return [...][]pick{
		{(*anchor).addPrincipals, (*anchor).addAccounts, (*anchor).addNamespaces, (*anchor).addBlocks, (*anchor).addPorts},
		{(*anchor).addPorts, (*anchor).addPrincipals, (*anchor).addAccounts, (*anchor).addNamespaces, (*anchor).addBlocks},
		{(*anchor).addBlocks, (*anchor).addPrincipals, (*anchor).addAccounts, (*anchor).addNamespaces, (*anchor).addPorts},
		{(*anchor).addPaths, (*anchor).addGRPC, (*anchor).addHosts},
		{(*anchor).addHosts, (*anchor).addPaths, (*anchor).addGRPC},
	}
}

// anchors gives all anchors of a rule. Never is true if the rule cannot match
// any connection.
func (r *rule) anchors() (all []anchor, never bool) {
	for _, c := range r.clauses {
		if len(c) == 0 {
			continue
		}
		if c.never() {
			return nil, true
		}
		for _, order := range picks() {
			if a, ok := c.anchor(order); ok {
				all = append(all, a)
			}
		}
	}
	return all, false
}

func (c clause) never() bool {
	for i := range c {
		if c[i].set {
			return false
		}
	}
	return true
}

func (c clause) anchor(order []pick) (anchor, bool) {
	var a anchor
	for i := range c {
		if c[i].set && !a.add(&c[i], order) {
			return anchor{}, false
		}
	}
	return a, true
}

func (a *anchor) add(m *match, order []pick) bool {
	for _, p := range order {
		if p(a, m) {
			return true
		}
	}
	return false
}

// addPrincipals also takes prefixes that spell out a namespace and suffixes
// that spell out a service account.
func (a *anchor) addPrincipals(m *match) bool {
	s := m.principals
	// Those of the tunnel's peer are not what the index looks up.
	if s == nil || s.presence || m.peer {
		return false
	}
	var accounts []account
	var namespaces []string
	for _, prefix := range s.prefixes {
		parts := strings.SplitN(prefix, "/", 4)
		if len(parts) < 4 {
			return false
		}
		namespaces = append(namespaces, parts[2])
	}
	for _, suffix := range s.suffixes {
		parts := strings.Split(suffix, "/")
		n := len(parts)
		if n < 4 {
			return false
		}
		accounts = append(accounts, account{parts[n-3], parts[n-1]})
	}
	a.ids = append(a.ids, s.ids...)
	a.accounts = append(a.accounts, accounts...)
	a.namespaces = append(a.namespaces, namespaces...)
	return true
}

func (a *anchor) addAccounts(m *match) bool {
	for key := range m.accounts {
		a.accounts = append(a.accounts, key)
	}
	return m.accounts != nil
}

func (a *anchor) addNamespaces(m *match) bool {
	s := m.namespaces
	if s == nil || s.presence || len(s.prefixes)+len(s.suffixes) > 0 {
		return false
	}
	for namespace := range s.exact {
		a.namespaces = append(a.namespaces, namespace)
	}
	return true
}

func (a *anchor) addBlocks(m *match) bool {
	if m.sources == nil {
		return false
	}
	a.blocks = append(a.blocks, m.sources.list...)
	return true
}

func (a *anchor) addPorts(m *match) bool {
	a.ports = append(a.ports, m.ports...)
	return m.ports != nil
}

func (a *anchor) addPaths(m *match) bool {
	if m.request == nil || !m.request.onPath {
		return false
	}
	a.paths = append(a.paths, m.request.paths...)
	a.prefixes = append(a.prefixes, m.request.prefixes...)
	return true
}

func (a *anchor) addHosts(m *match) bool {
	if m.request == nil || !m.request.onHost || len(m.request.suffixes) > 0 {
		return false
	}
	a.hosts = append(a.hosts, m.request.hosts...)
	return true
}

func (a *anchor) addGRPC(m *match) bool {
	if m.request == nil || len(m.request.grpc) == 0 {
		return false
	}
	a.grpc = append(a.grpc, m.request.grpc...)
	return true
}
