package route

import (
	"fmt"
	"strings"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
)

// PathModifier replaces a path; the zero value leaves it as it is.
type PathModifier struct {
	Kind  PathModifierKind
	Value string
}

// PathModifierKind says what a PathModifier replaces.
type PathModifierKind uint8

// Kinds of path modifiers.
const (
	// KeepPath replaces nothing.
	KeepPath PathModifierKind = iota
	// ReplaceFullPath replaces the path, and not the query.
	ReplaceFullPath
	// ReplacePrefix replaces what the rule's prefix matched.
	ReplacePrefix
)

// apply changes the path of a target and keeps its query. prefix is what
// Decision.Prefix says.
func (m PathModifier) apply(target, prefix string) string {
	if m.Kind == KeepPath || !strings.HasPrefix(target, "/") {
		return target
	}
	path, query := target, ""
	if i := strings.IndexByte(target, '?'); i >= 0 {
		path, query = target[:i], target[i:]
	}
	if m.Kind == ReplaceFullPath {
		return m.Value + query
	}
	return replacePrefix(path, prefix, m.Value) + query
}

// replacePrefix follows the table at HTTPPathModifier.ReplacePrefixMatch of the
// Gateway API: a slash at the end of prefix or value does not count, and what
// would be empty is "/".
func replacePrefix(path, prefix, value string) string {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(prefix, "/"))
	if !ok {
		return path
	}
	path = strings.TrimSuffix(value, "/") + rest
	if path == "" {
		return "/"
	}
	return path
}

// splitTarget gives path and query of a request's target; the query without its
// question mark.
func splitTarget(target string) (path, query string) {
	path, query, _ = strings.Cut(target, "?")
	return path, query
}

// Rewrite changes what a request asks for before it goes to a backend.
type Rewrite struct {
	// Hostname replaces the authority, port included; "" leaves it.
	Hostname string
	Path     PathModifier
}

// Apply changes authority and path of a request. prefix is Decision.Prefix.
func (r *Rewrite) Apply(req *message.Request, prefix string) {
	if r.Hostname != "" {
		req.Authority = r.Hostname
	}
	req.Path = r.Path.apply(req.Path, prefix)
}

func (c *compiler) rewrite(at string, pb *waypoint.Rewrite) *Rewrite {
	return &Rewrite{
		Hostname: c.hostname(at+".hostname", pb.GetHostname()),
		Path:     c.pathModifier(at+".path", pb.GetPath()),
	}
}

// pathModifier reads a modifier; one that is absent keeps the path.
func (c *compiler) pathModifier(at string, pb *waypoint.PathModifier) PathModifier {
	if pb == nil {
		return PathModifier{}
	}
	switch t := pb.GetType().(type) {
	case *waypoint.PathModifier_Full:
		return PathModifier{ReplaceFullPath, c.replacement(at+".full", t.Full)}
	case *waypoint.PathModifier_Prefix:
		if c.noPrefix != "" {
			c.problem(at+".prefix", "there is no prefix to replace, because "+c.noPrefix+"; use prefix paths only, or replace the full path")
		}
		return PathModifier{ReplacePrefix, c.replacement(at+".prefix", t.Prefix)}
	}
	c.problem(at, "neither full nor prefix is set; set one of them")
	return PathModifier{}
}

// replacement reads a path that is put into requests. An empty one is "/".
func (c *compiler) replacement(at, value string) string {
	if value == "" {
		return "/"
	}
	if value[0] != '/' {
		c.problem(at, fmt.Sprintf("%q does not begin with a slash; put one before it", value))
		return value
	}
	if strings.Contains(value, "?") {
		c.problem(at, fmt.Sprintf("%q has a query; only paths can be replaced", value))
		return value
	}
	path, err := NormalizePath(value)
	if err != nil {
		c.problem(at, fmt.Sprintf("%q is not a path: %v", value, err))
	}
	return path
}

// hostname reads a name that is put into requests; "" is none.
func (c *compiler) hostname(at, name string) string {
	for _, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_' {
			c.problem(at, fmt.Sprintf("%q is not a hostname; use letters, digits, hyphens and dots", name))
			break
		}
	}
	return name
}
