package authz

import (
	"iter"
	"net/netip"

	"github.com/gaissmai/bart"

	"github.com/ambit-mesh/ambit/internal/identity"
)

// ruleRef is a rule of a policy in an index. Refs are ordered as their policies
// are, then as rules in the policy.
type ruleRef struct {
	policy *Policy
	rule   int32
	order  int32
}

func (r ruleRef) matches(c *facts) bool { return r.policy.rules[r.rule].matches(c) }

// index finds the rules that can match a connection. Every list in it is in
// order.
type index struct {
	byID        map[identity.ID][]ruleRef
	byAccount   map[account][]ruleRef
	byNamespace map[string][]ruleRef
	byPort      map[uint16][]ruleRef
	byBlock     *bart.Table[[]ruleRef]
	// byRequest finds those that only a request has the keys of.
	byRequest *requestIndex
	// rest are the rules without an anchor.
	rest []ruleRef
}

// newIndex takes policies in order.
func newIndex(policies []*Policy) *index {
	if len(policies) == 0 {
		return nil
	}
	var refs []ruleRef
	var candidates [][]anchor
	crowd := newCrowd()
	for _, p := range policies {
		for i := range p.rules {
			all, never := p.rules[i].anchors()
			if never {
				continue
			}
			refs = append(refs, ruleRef{policy: p, rule: int32(i), order: int32(len(refs))})
			candidates = append(candidates, all)
			for k := range all {
				crowd.count(&all[k])
			}
		}
	}
	x := &index{
		byID: map[identity.ID][]ruleRef{}, byAccount: map[account][]ruleRef{}, byNamespace: map[string][]ruleRef{},
		byPort: map[uint16][]ruleRef{}, byBlock: &bart.Table[[]ruleRef]{}, byRequest: newRequestIndex(),
	}
	for i, ref := range refs {
		x.insert(ref, crowd.best(candidates[i]))
	}
	return x
}

// insert expects refs in order. A nil anchor puts the rule among the rest.
func (x *index) insert(ref ruleRef, a *anchor) {
	if a == nil {
		x.rest = append(x.rest, ref)
		return
	}
	insertAll(x.byID, a.ids, ref)
	insertAll(x.byAccount, a.accounts, ref)
	insertAll(x.byNamespace, a.namespaces, ref)
	insertAll(x.byPort, a.ports, ref)
	for _, prefix := range a.blocks {
		refs, _ := x.byBlock.Get(prefix)
		x.byBlock.Insert(prefix, appendOnce(refs, ref))
	}
	x.byRequest.insert(ref, a)
}

func insertAll[K comparable](m map[K][]ruleRef, keys []K, ref ruleRef) {
	for _, k := range keys {
		m[k] = appendOnce(m[k], ref)
	}
}

func appendOnce(refs []ruleRef, ref ruleRef) []ruleRef {
	if n := len(refs); n > 0 && refs[n-1] == ref {
		return refs
	}
	return append(refs, ref)
}

// first gives the first rule that matches.
func (x *index) first(c *facts) (ruleRef, bool) {
	var best ruleRef
	if x == nil {
		return best, false
	}
	best = earliest(best, x.rest, c)
	if len(x.byID) > 0 {
		best = earliest(best, x.byID[c.Source], c)
	}
	if len(x.byAccount) > 0 {
		best = earliest(best, x.byAccount[account{c.Source.Namespace, c.Source.ServiceAccount}], c)
	}
	if len(x.byNamespace) > 0 {
		best = earliest(best, x.byNamespace[c.Source.Namespace], c)
	}
	if len(x.byPort) > 0 {
		best = earliest(best, x.byPort[c.DestPort], c)
	}
	if x.byBlock.Size() > 0 && x.byBlock.Contains(c.SourceIP) {
		for _, refs := range x.byBlock.Supernets(host(c.SourceIP)) {
			best = earliest(best, refs, c)
		}
	}
	if len(x.byRequest.all) > 0 {
		best = x.byRequest.first(best, c)
	}
	return best, best.policy != nil
}

// earliest gives the first of refs that matches if it comes before best.
func earliest(best ruleRef, refs []ruleRef, c *facts) ruleRef {
	for i := range refs {
		if best.policy != nil && refs[i].order >= best.order {
			break
		}
		if refs[i].matches(c) {
			return refs[i]
		}
	}
	return best
}

// matching gives every rule that matches, in no order; one that has several
// anchors may come more than once.
func (x *index) matching(c *facts) iter.Seq[ruleRef] {
	return func(yield func(ruleRef) bool) {
		lists := [][]ruleRef{
			x.rest, x.byID[c.Source], x.byAccount[account{c.Source.Namespace, c.Source.ServiceAccount}],
			x.byNamespace[c.Source.Namespace], x.byPort[c.DestPort],
		}
		for _, refs := range x.byBlock.Supernets(host(c.SourceIP)) {
			lists = append(lists, refs)
		}
		if len(x.byRequest.all) > 0 {
			lists = append(lists, x.byRequest.all)
		}
		for _, refs := range lists {
			for _, ref := range refs {
				if ref.matches(c) && !yield(ref) {
					return
				}
			}
		}
	}
}

func host(ip netip.Addr) netip.Prefix { return netip.PrefixFrom(ip, ip.BitLen()) }

// crowd counts how many rules share a key, to choose for each rule the anchor
// that it shares with the fewest.
type crowd struct {
	ids        map[identity.ID]int
	accounts   map[account]int
	namespaces map[string]int
	ports      map[uint16]int
	blocks     map[netip.Prefix]int
	paths      map[string]int // prefixes, too
	hosts      map[string]int
	grpc       map[grpcKey]int
}

func newCrowd() *crowd {
	return &crowd{
		ids: map[identity.ID]int{}, accounts: map[account]int{}, namespaces: map[string]int{},
		ports: map[uint16]int{}, blocks: map[netip.Prefix]int{},
		paths: map[string]int{}, hosts: map[string]int{}, grpc: map[grpcKey]int{},
	}
}

func (w *crowd) count(a *anchor) {
	countAll(w.ids, a.ids)
	countAll(w.accounts, a.accounts)
	countAll(w.namespaces, a.namespaces)
	countAll(w.ports, a.ports)
	countAll(w.blocks, a.blocks)
	countAll(w.paths, a.paths)
	countAll(w.paths, a.prefixes)
	countAll(w.hosts, a.hosts)
	countAll(w.grpc, a.grpc)
}

func countAll[K comparable](m map[K]int, keys []K) {
	for _, k := range keys {
		m[k]++
	}
}

func (w *crowd) best(candidates []anchor) *anchor {
	var best *anchor
	least := 0
	for i := range candidates {
		a := &candidates[i]
		n := max(
			mostOf(w.ids, a.ids), mostOf(w.accounts, a.accounts), mostOf(w.namespaces, a.namespaces),
			mostOf(w.ports, a.ports), mostOf(w.blocks, a.blocks),
			mostOf(w.paths, a.paths), mostOf(w.paths, a.prefixes), mostOf(w.hosts, a.hosts), mostOf(w.grpc, a.grpc))
		if best == nil || n < least {
			best, least = a, n
		}
	}
	return best
}

func mostOf[K comparable](m map[K]int, keys []K) int {
	most := 0
	for _, k := range keys {
		most = max(most, m[k])
	}
	return most
}
