package authz_test

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/apis/security"
	"github.com/ambit-mesh/ambit/internal/authz"
)

// slowVerdict is what the reference evaluator gives.
type slowVerdict struct {
	allowed bool
	policy  string
	rule    int
	audits  []string
}

// slow decides by reading the wire messages one after the other, as the
// semantics in the package documentation say, without any table. It is written
// from that text and shares nothing with the package.
func slow(all []*security.Authorization, namespace string, selected []string, c authz.Connection) slowVerdict {
	out := slowVerdict{rule: authz.NoRule}
	byKey := map[string]*security.Authorization{}
	for _, a := range all {
		byKey[a.Namespace+"/"+a.Name] = a
	}
	var global, scoped, listed []*security.Authorization
	for _, key := range sortedKeys(byKey) {
		a := byKey[key]
		_, scopeKnown := security.Scope_name[int32(a.Scope)]
		switch {
		case a.Scope == security.Scope_GLOBAL || !scopeKnown:
			global = append(global, a)
		case a.Scope == security.Scope_NAMESPACE && a.Namespace == namespace:
			scoped = append(scoped, a)
		case slices.Contains(selected, key):
			listed = append(listed, a)
		}
	}
	inOrder := slices.Concat(global, scoped, listed)
	for _, a := range inOrder {
		if !a.DryRun {
			continue
		}
		if _, ok := slowFirst(a, c); ok {
			out.audits = append(out.audits, a.Namespace+"/"+a.Name)
		}
	}
	for _, key := range selected {
		if byKey[key] == nil {
			return out
		}
	}
	anyAllow := false
	for _, a := range inOrder {
		if a.DryRun {
			continue
		}
		if a.Action == security.Action_ALLOW {
			anyAllow = true
			continue
		}
		if rule, ok := slowFirst(a, c); ok {
			out.policy, out.rule = a.Namespace+"/"+a.Name, rule
			return out
		}
	}
	if !anyAllow {
		out.allowed = true
		return out
	}
	for _, a := range inOrder {
		if a.DryRun || a.Action != security.Action_ALLOW {
			continue
		}
		if rule, ok := slowFirst(a, c); ok {
			out.allowed, out.policy, out.rule = true, a.Namespace+"/"+a.Name, rule
			return out
		}
	}
	return out
}

func sortedKeys(m map[string]*security.Authorization) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		an, am, _ := strings.Cut(a, "/")
		bn, bm, _ := strings.Cut(b, "/")
		if an != bn {
			return strings.Compare(an, bn)
		}
		return strings.Compare(am, bm)
	})
	return keys
}

// slowFirst gives the position of the first rule of a policy that matches. A
// policy that cannot be read matches everything if it denies and nothing
// otherwise.
func slowFirst(a *security.Authorization, c authz.Connection) (int, bool) {
	if !slowReadable(a) {
		denies := a.Action != security.Action_ALLOW && !a.DryRun
		return 0, denies
	}
	for i, r := range a.Rules {
		every := true
		for _, clause := range r.GetClauses() {
			some := len(clause.GetMatches()) == 0
			for _, m := range clause.GetMatches() {
				some = some || slowMatch(m, c)
			}
			every = every && some
		}
		if every {
			return i, true
		}
	}
	return 0, false
}

func slowReadable(a *security.Authorization) bool {
	_, action := security.Action_name[int32(a.Action)]
	_, scope := security.Scope_name[int32(a.Scope)]
	ok := action && scope
	for _, r := range a.Rules {
		for _, clause := range r.GetClauses() {
			for _, m := range clause.GetMatches() {
				for _, s := range slices.Concat(m.GetNamespaces(), m.GetNotNamespaces(), m.GetPrincipals(), m.GetNotPrincipals()) {
					ok = ok && s.GetMatchType() != nil
				}
				for _, b := range slices.Concat(m.GetSourceIps(), m.GetNotSourceIps(), m.GetDestinationIps(), m.GetNotDestinationIps()) {
					bits := len(b.GetAddress()) * 8
					ok = ok && (bits == 32 || bits == 128) && b.GetLength() <= uint32(bits)
				}
				for _, p := range slices.Concat(m.GetDestinationPorts(), m.GetNotDestinationPorts()) {
					ok = ok && p < 65536
				}
			}
		}
	}
	return ok
}

func slowMatch(m *security.Match, c authz.Connection) bool {
	fields := 0
	// field judges one field: unset passes, set must or must not have a value
	// that holds.
	field := func(n int, negated bool, holds func(i int) bool) bool {
		if n == 0 {
			return true
		}
		fields++
		any := false
		for i := range n {
			any = any || holds(i)
		}
		return any != negated
	}
	principal := func(list []*security.StringMatch) func(int) bool {
		return func(i int) bool { return !c.Source.IsZero() && slowString(list[i], c.Source.Principal()) }
	}
	namespace := func(list []*security.StringMatch) func(int) bool {
		return func(i int) bool { return slowString(list[i], c.Source.Namespace) }
	}
	account := func(list []*security.ServiceAccountMatch) func(int) bool {
		return func(i int) bool {
			return !c.Source.IsZero() && list[i].GetNamespace() == c.Source.Namespace && list[i].GetServiceAccount() == c.Source.ServiceAccount
		}
	}
	block := func(list []*security.Address, ip netip.Addr) func(int) bool {
		return func(i int) bool { return slowBlock(list[i], ip) }
	}
	port := func(list []uint32) func(int) bool {
		return func(i int) bool { return list[i] == uint32(c.DestPort) }
	}
	results := []bool{
		field(len(m.GetNamespaces()), false, namespace(m.GetNamespaces())),
		field(len(m.GetNotNamespaces()), true, namespace(m.GetNotNamespaces())),
		field(len(m.GetPrincipals()), false, principal(m.GetPrincipals())),
		field(len(m.GetNotPrincipals()), true, principal(m.GetNotPrincipals())),
		field(len(m.GetSourceIps()), false, block(m.GetSourceIps(), c.SourceIP)),
		field(len(m.GetNotSourceIps()), true, block(m.GetNotSourceIps(), c.SourceIP)),
		field(len(m.GetDestinationIps()), false, block(m.GetDestinationIps(), c.DestIP)),
		field(len(m.GetNotDestinationIps()), true, block(m.GetNotDestinationIps(), c.DestIP)),
		field(len(m.GetDestinationPorts()), false, port(m.GetDestinationPorts())),
		field(len(m.GetNotDestinationPorts()), true, port(m.GetNotDestinationPorts())),
		field(len(m.GetServiceAccounts()), false, account(m.GetServiceAccounts())),
		field(len(m.GetNotServiceAccounts()), true, account(m.GetNotServiceAccounts())),
	}
	return fields > 0 && !slices.Contains(results, false)
}

func slowString(m *security.StringMatch, v string) bool {
	switch t := m.GetMatchType().(type) {
	case *security.StringMatch_Exact:
		return v == t.Exact
	case *security.StringMatch_Prefix:
		return len(v) >= len(t.Prefix) && v[:len(t.Prefix)] == t.Prefix
	case *security.StringMatch_Suffix:
		return len(v) >= len(t.Suffix) && v[len(v)-len(t.Suffix):] == t.Suffix
	default:
		return v != ""
	}
}

// slowBlock compares bit by bit, both sides as IPv4 if they are IPv4 in any
// form.
func slowBlock(b *security.Address, ip netip.Addr) bool {
	addr, length := b.GetAddress(), int(b.GetLength())
	mapped := []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}
	if len(addr) == 16 && length >= 96 && string(addr[:12]) == string(mapped) {
		addr, length = addr[12:], length-96
	}
	have := ip.AsSlice()
	if len(have) == 16 && string(have[:12]) == string(mapped) {
		have = have[12:]
	}
	if len(have) != len(addr) {
		return false
	}
	for i := range length {
		mask := byte(0x80) >> (i % 8)
		if have[i/8]&mask != addr[i/8]&mask {
			return false
		}
	}
	return true
}
