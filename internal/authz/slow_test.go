package authz_test

import (
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

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
func slow(all []*security.Authorization, namespace string, selected []string, c authz.Connection, r *authz.Request) slowVerdict {
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
		if _, ok := slowFirst(a, c, r); ok {
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
			anyAllow = anyAllow || !slowOrigin(a).GetOptional()
			continue
		}
		if rule, ok := slowFirst(a, c, r); ok {
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
		if rule, ok := slowFirst(a, c, r); ok {
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
func slowFirst(a *security.Authorization, c authz.Connection, r *authz.Request) (int, bool) {
	if !slowReadable(a) {
		denies := a.Action != security.Action_ALLOW && !a.DryRun
		return 0, denies
	}
	for i, rule := range a.Rules {
		every := true
		for _, clause := range rule.GetClauses() {
			some := len(clause.GetMatches()) == 0
			for _, m := range clause.GetMatches() {
				some = some || slowMatch(m, c, r, a.Action != security.Action_ALLOW)
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
				for _, e := range m.GetExtensions() {
					request := slowRequestOf(m)
					ok = ok && (e.GetName() == security.TunnelPeerExtension || e.GetName() == security.RequestExtension && request != nil && !proto.Equal(request, &security.RequestMatch{}))
				}
			}
		}
	}
	return ok
}

func slowMatch(m *security.Match, c authz.Connection, r *authz.Request, denies bool) bool {
	fields := 0
	who := c.Source
	for _, e := range m.GetExtensions() {
		if e.GetName() == security.TunnelPeerExtension {
			who = c.Peer
		}
	}
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
		return func(i int) bool { return !who.IsZero() && slowString(list[i], who.Principal()) }
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
	if request := slowRequestOf(m); request != nil {
		fields++
		results = append(results, slowRequest(request, r, denies))
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

func slowOrigin(a *security.Authorization) *security.Origin {
	origin := &security.Origin{}
	for _, e := range a.GetExtensions() {
		if e.GetName() == security.OriginExtension && e.GetConfig().UnmarshalTo(origin) == nil {
			return origin
		}
	}
	return nil
}

func slowRequestOf(m *security.Match) *security.RequestMatch {
	for _, e := range m.GetExtensions() {
		request := &security.RequestMatch{}
		if e.GetName() == security.RequestExtension && e.GetConfig().UnmarshalTo(request) == nil {
			return request
		}
	}
	return nil
}

// slowRequest judges a request by the comments of the message.
func slowRequest(m *security.RequestMatch, r *authz.Request, denies bool) bool {
	if r == nil {
		return denies
	}
	any := func(n int, holds func(int) bool) bool {
		for i := range n {
			if holds(i) {
				return true
			}
		}
		return n == 0
	}
	path, _, _ := strings.Cut(r.Path, "?")
	host, _, _ := strings.Cut(strings.ToLower(r.Host), ":")
	ok := any(len(m.GetMethods()), func(i int) bool {
		return m.Methods[i] == r.Method || denies && strings.EqualFold(m.Methods[i], r.Method)
	})
	ok = ok && any(len(m.GetPaths()), func(i int) bool {
		if p, prefix := m.Paths[i].GetType().(*security.RequestPath_Prefix); prefix {
			segments := strings.TrimSuffix(p.Prefix, "/")
			return segments == "" || path == segments || strings.HasPrefix(path, segments+"/")
		}
		return m.Paths[i].GetExact() == path
	})
	ok = ok && any(len(m.GetHosts()), func(i int) bool {
		if suffix, wild := strings.CutPrefix(m.Hosts[i], "*"); wild {
			return strings.HasSuffix(host, suffix) && host != suffix
		}
		return m.Hosts[i] == host
	})
	ok = ok && any(len(m.GetGrpcMethods()), func(i int) bool {
		g := m.GrpcMethods[i]
		is := func(want, have string) bool { return want == "" || want == have }
		return r.GRPCService+r.GRPCMethod != "" && is(g.Service, r.GRPCService) && is(g.Method, r.GRPCMethod)
	})
	for _, h := range m.GetHeaders() {
		lines := r.Header(h.Name)
		right := 0
		for _, line := range lines {
			values := []string{line}
			if denies {
				for v := range strings.SplitSeq(line, ",") {
					values = append(values, strings.TrimSpace(v))
				}
			}
			if slices.ContainsFunc(values, func(v string) bool { return slices.Contains(h.Values, v) }) {
				right++
			}
		}
		ok = ok && right > 0 && (denies || right == len(lines))
	}
	for _, c := range m.GetClaims() {
		ok = ok && slices.ContainsFunc(r.Claim(c.Issuer, c.Name), func(v string) bool { return slices.Contains(c.Values, v) })
	}
	return ok
}
