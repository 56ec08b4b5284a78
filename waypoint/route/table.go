package route

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/apis/waypoint"
)

// table is merged routes, with an index over their matches.
type table struct {
	source Source
	// entries are in the order of precedence.
	entries []*entry
	// unread are the entries whose path cannot be read, regex those with an
	// expression, and prefixes the root of a tree of path segments.
	unread, regex bucket
	exact         map[string]bucket
	prefixes      *node
	// servers are for connections.
	servers *servers
	// unmatched is the reason for a request that nothing matches.
	unmatched string
}

// node of the tree of prefixes is reached by segments from the root.
type node struct {
	children map[string]*node
	entries  []*entry
	bucket   bucket
	// up is the nearest node above that has a bucket.
	up *node
	// prefix is that of Decision.
	prefix string
}

// newTable indexes entries.
func newTable(source Source, entries []*entry) *table {
	t := &table{source: source, entries: entries, exact: map[string]bucket{}, prefixes: &node{prefix: "/"}}
	slices.SortFunc(entries, compareEntries)
	var unread, regex []*entry
	exact := map[string][]*entry{}
	for i, e := range entries {
		e.order = i
		switch p := &e.match.path; p.class {
		case classUnread:
			unread = append(unread, e)
		case classExact:
			exact[p.value] = append(exact[p.value], e)
		case classRegex:
			regex = append(regex, e)
		default:
			n := t.prefixes.at(p.value)
			n.entries = append(n.entries, e)
		}
	}
	t.unread, t.regex = newBucket(unread), newBucket(regex)
	for path, list := range exact {
		t.exact[path] = newBucket(list)
	}
	t.prefixes.index(nil)
	return t
}

// at gives the node of a prefix, which is without its slash at the end.
func (n *node) at(prefix string) *node {
	for rest := prefix; rest != ""; {
		var segment string
		segment, rest = cutSegment(rest)
		child := n.children[segment]
		if child == nil {
			if n.children == nil {
				n.children = map[string]*node{}
			}
			child = &node{}
			n.children[segment] = child
		}
		n = child
	}
	if prefix != "" {
		n.prefix = prefix
	}
	return n
}

// cutSegment takes a slash and the segment behind it from the front of a path.
func cutSegment(path string) (segment, rest string) {
	path = path[1:]
	if i := strings.IndexByte(path, '/'); i >= 0 {
		return path[:i], path[i:]
	}
	return path, ""
}

func (n *node) index(up *node) {
	n.bucket, n.up = newBucket(n.entries), up
	if n.entries = nil; !n.bucket.empty() {
		up = n
	}
	for _, child := range n.children {
		child.index(up)
	}
}

// deepest gives the node of the longest prefix of a path that has a bucket.
func (n *node) deepest(path string) *node {
	var found *node
	if !n.bucket.empty() {
		found = n
	}
	// "*" and "" have no segments and only the prefix "/".
	if path == "" || path[0] != '/' {
		return found
	}
	for rest := path; rest != "" && len(n.children) > 0; {
		var segment string
		segment, rest = cutSegment(rest)
		if n = n.children[segment]; n == nil {
			break
		}
		if !n.bucket.empty() {
			found = n
		}
	}
	return found
}

// first gives the first entry that matches and the prefix that did, if it was
// one. The path comes first in precedence, so that the first bucket in the order
// of paths that has a match has the one.
func (t *table) first(v *view) (*entry, string) {
	if e := t.unread.first(v); e != nil {
		return e, ""
	}
	if len(t.exact) > 0 {
		if b, ok := t.exact[v.path]; ok {
			if e := b.first(v); e != nil {
				return e, ""
			}
		}
	}
	if e := t.regex.first(v); e != nil {
		return e, ""
	}
	for n := t.prefixes.deepest(v.path); n != nil; n = n.up {
		if e := n.bucket.first(v); e != nil {
			return e, n.prefix
		}
	}
	return nil, ""
}

// servers finds the rule for a connection by the name of the server that the
// client asks for.
type servers struct {
	exact map[string]*Rule
	// wild are by what is behind *, dot included.
	wild map[string]*Rule
	// all is for routes without names.
	all *Rule
	// unread is of a route whose names cannot be read. It comes first, like a path
	// that cannot be read.
	unread *Rule
}

// insert expects routes in the order of precedence.
func (s *servers) insert(names []string, readable bool, r *Rule) {
	if !readable && s.unread == nil {
		s.unread = r
	}
	if len(names) == 0 && s.all == nil {
		s.all = r
	}
	for _, name := range names {
		to := s.exact
		if suffix, ok := strings.CutPrefix(name, "*"); ok {
			to, name = s.wild, suffix
		}
		if to[name] == nil {
			to[name] = r
		}
	}
}

// find prefers the exact name, then the longest wildcard: *.example.com is for
// every name below example.com and not for itself.
func (s *servers) find(name string) *Rule {
	if s.unread != nil {
		return s.unread
	}
	name = serverName(name)
	if r := s.exact[name]; r != nil {
		return r
	}
	if len(s.wild) > 0 {
		// A name that begins with a dot is no name, and has no suffix at 0.
		for i := 1; i < len(name); i++ {
			if name[i] == '.' {
				if r := s.wild[name[i:]]; r != nil {
					return r
				}
			}
		}
	}
	return s.all
}

// serverName gives a name as it is compared: without case and final dot.
func serverName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// serverNames reads the names of a TLSRoute.
func (c *compiler) serverNames(list []string) (names []string, readable bool) {
	before := len(c.problems)
	out := make([]string, 0, len(list))
	for i, name := range list {
		bare := strings.TrimPrefix(serverName(name), "*.")
		if bare == "" || strings.ContainsAny(bare, "*/: ") || strings.HasPrefix(bare, ".") {
			c.problem(fmt.Sprintf("server_names[%d]", i), fmt.Sprintf("%q is not a server name; use a name, or *. and a name", name))
		}
		out = append(out, serverName(name))
	}
	return out, len(c.problems) == before
}

// kindName is the kind of route objects of a port.
func kindName(k waypoint.RouteKind) string {
	switch k {
	case waypoint.RouteKind_ROUTE_KIND_HTTP:
		return "HTTPRoute"
	case waypoint.RouteKind_ROUTE_KIND_GRPC:
		return "GRPCRoute"
	case waypoint.RouteKind_ROUTE_KIND_TLS:
		return "TLSRoute"
	case waypoint.RouteKind_ROUTE_KIND_TCP:
		return "TCPRoute"
	case waypoint.RouteKind_ROUTE_KIND_UDP:
		return "UDPRoute"
	}
	return ""
}
