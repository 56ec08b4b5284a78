package authz

import "strings"

// requestIndex finds rules by what only a request has. Every list is in order.
type requestIndex struct {
	byPath   map[string][]ruleRef
	byPrefix map[string][]ruleRef // without the slash at the end
	byHost   map[string][]ruleRef
	byGRPC   map[grpcKey][]ruleRef
	// deepest is the most slashes of a key of byPrefix.
	deepest int
	// all of the rules, for where there is no request: there are none of them
	// otherwise, and those that deny must be found.
	all []ruleRef
}

func newRequestIndex() *requestIndex {
	return &requestIndex{
		byPath: map[string][]ruleRef{}, byPrefix: map[string][]ruleRef{}, byHost: map[string][]ruleRef{}, byGRPC: map[grpcKey][]ruleRef{},
	}
}

func (x *requestIndex) insert(ref ruleRef, a *anchor) {
	if !a.ofRequests() {
		return
	}
	x.all = append(x.all, ref)
	insertAll(x.byPath, a.paths, ref)
	insertAll(x.byPrefix, a.prefixes, ref)
	insertAll(x.byHost, a.hosts, ref)
	insertAll(x.byGRPC, a.grpc, ref)
	for _, p := range a.prefixes {
		x.deepest = max(x.deepest, strings.Count(p, "/"))
	}
}

// first gives the first rule that matches if it comes before best.
func (x *requestIndex) first(best ruleRef, c *facts) ruleRef {
	if !c.asked {
		return earliest(best, x.all, c)
	}
	r := &c.request
	if len(x.byPath) > 0 {
		best = earliest(best, x.byPath[r.Path], c)
	}
	if len(x.byPrefix) > 0 {
		best = x.byPrefixes(best, r.Path, c)
	}
	if len(x.byHost) > 0 {
		best = earliest(best, x.byHost[r.Host], c)
	}
	if len(x.byGRPC) > 0 {
		for _, k := range [...]grpcKey{{r.GRPCService, r.GRPCMethod}, {r.GRPCService, ""}, {"", r.GRPCMethod}, {}} {
			best = earliest(best, x.byGRPC[k], c)
		}
	}
	return best
}

// byPrefixes looks up the path as far as each of its slashes, and the whole of
// it, as deep as there are prefixes.
func (x *requestIndex) byPrefixes(best ruleRef, path string, c *facts) ruleRef {
	best = earliest(best, x.byPrefix[""], c)
	depth := 0
	for i := range len(path) {
		if path[i] != '/' {
			continue
		}
		best = earliest(best, x.byPrefix[path[:i]], c)
		if depth++; depth > x.deepest {
			return best
		}
	}
	return earliest(best, x.byPrefix[path], c)
}
