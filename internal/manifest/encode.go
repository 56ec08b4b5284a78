package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds on what aliases may blow a document up to.
const (
	maxNodes = 1 << 20
	maxBytes = 64 << 20
)

// encoder writes a node as JSON and refuses what JSON or Kubernetes cannot mean.
// All errors are of type *nodeError.
type encoder struct {
	out   bytes.Buffer
	nodes int
	// limit, if not 0, is how many nodes are written; null stands for the others.
	limit int
	// last is the path of the last node that was written.
	last string
}

func (e *encoder) value(n *yaml.Node, path string, depth int) error {
	e.nodes++
	if e.nodes > maxNodes || e.out.Len() > maxBytes {
		return &nodeError{n.Line, path, "the document is too large once its aliases are expanded"}
	}
	if depth > maxDepth {
		return &nodeError{n.Line, path, errTooDeep.Error()}
	}
	if e.limit > 0 && e.nodes > e.limit {
		e.out.WriteString("null")
		return nil
	}
	e.last = path
	switch n.Kind {
	case yaml.AliasNode:
		return e.value(n.Alias, path, depth+1)
	case yaml.MappingNode:
		return e.mapping(n, path, depth)
	case yaml.SequenceNode:
		e.out.WriteByte('[')
		for i, value := range n.Content {
			if i > 0 {
				e.out.WriteByte(',')
			}
			if err := e.value(value, item(path, i), depth+1); err != nil {
				return err
			}
		}
		e.out.WriteByte(']')
		return nil
	default:
		return e.scalar(n, path)
	}
}

func (e *encoder) mapping(n *yaml.Node, path string, depth int) error {
	fields, err := e.fields(n, path, 0)
	if err != nil {
		return err
	}
	e.out.WriteByte('{')
	for i, f := range fields {
		if i > 0 {
			e.out.WriteByte(',')
		}
		e.str(f.name)
		e.out.WriteByte(':')
		if err := e.value(f.value, join(path, f.name), depth+1); err != nil {
			return err
		}
	}
	e.out.WriteByte('}')
	return nil
}

func (e *encoder) str(s string) {
	quoted, _ := json.Marshal(s) // a string always marshals
	e.out.Write(quoted)
}

func (e *encoder) scalar(n *yaml.Node, path string) error {
	switch n.ShortTag() {
	case "!!null":
		e.out.WriteString("null")
	case "!!bool":
		text := strings.ToLower(n.Value)
		if text != "true" && text != "false" {
			return &nodeError{n.Line, path, "not a boolean: " + quote(n.Value)}
		}
		e.out.WriteString(text)
	case "!!number": // from JSON
		e.out.WriteString(n.Value)
	case "!!int", "!!float":
		return e.number(n, path)
	case "!!str":
		// YAML 1.1, which manifests are, has more booleans than 1.2.
		if b, ok := legacyBool(n); ok {
			e.out.WriteString(strconv.FormatBool(b))
			return nil
		}
		e.str(n.Value)
	case "!!timestamp", "!!binary":
		e.str(n.Value)
	default:
		return &nodeError{n.Line, path, "tag " + quote(n.Tag) + " has no meaning in a manifest: remove it"}
	}
	return nil
}

func (e *encoder) number(n *yaml.Node, path string) error {
	var v any
	if err := n.Decode(&v); err != nil {
		return &nodeError{n.Line, path, "not a number: " + quote(n.Value)}
	}
	if f, ok := v.(float64); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
		return &nodeError{n.Line, path, "not a finite number: " + quote(n.Value)}
	}
	text, err := json.Marshal(v)
	if err != nil {
		return &nodeError{n.Line, path, "not a number: " + quote(n.Value)}
	}
	e.out.Write(text)
	return nil
}

func legacyBool(n *yaml.Node) (value, ok bool) {
	if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) != 0 {
		return false, false
	}
	switch n.Value {
	case "yes", "Yes", "YES", "on", "On", "ON":
		return true, true
	case "no", "No", "NO", "off", "Off", "OFF":
		return false, true
	}
	return false, false
}

// entry is one field of a mapping node.
type entry struct {
	name  string
	key   *yaml.Node
	value *yaml.Node
}

// fields gives the entries of a mapping, those of merge keys (<<) last, and
// refuses duplicates.
func (e *encoder) fields(n *yaml.Node, path string, depth int) ([]entry, error) {
	var fields []entry
	var merges []*yaml.Node
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			return nil, &nodeError{key.Line, path, "a field name must be plain text"}
		}
		if key.ShortTag() == "!!merge" {
			merges = append(merges, value)
			continue
		}
		if first, dup := seen[key.Value]; dup {
			return nil, &nodeError{
				key.Line, join(path, key.Value),
				fmt.Sprintf("duplicate field, already set on line %d of the document: keep one", first),
			}
		}
		seen[key.Value] = key.Line
		fields = append(fields, entry{key.Value, key, value})
	}
	for _, m := range merges {
		merged, err := e.merged(m, path, depth+1)
		if err != nil {
			return nil, err
		}
		for _, f := range merged {
			if _, dup := seen[f.name]; !dup {
				seen[f.name] = f.key.Line
				fields = append(fields, f)
			}
		}
	}
	return fields, nil
}

// merged gives the entries that a merge key brings. It counts against maxNodes,
// because merges nest like aliases do.
func (e *encoder) merged(n *yaml.Node, path string, depth int) ([]entry, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	e.nodes += 1 + len(n.Content)
	switch {
	case e.nodes > maxNodes || depth > maxDepth:
		return nil, &nodeError{n.Line, path, "the document is too large once its merge keys are expanded"}
	case n.Kind == yaml.MappingNode:
		return e.fields(n, path, depth)
	case n.Kind == yaml.SequenceNode:
		var all []entry
		for _, item := range n.Content {
			fields, err := e.merged(item, path, depth+1)
			if err != nil {
				return nil, err
			}
			all = append(all, fields...)
		}
		return all, nil
	default:
		return nil, &nodeError{n.Line, path, "<< needs a mapping or a list of mappings"}
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// lineOf finds the line of a field path such as spec.ports[0].name, or that of
// the deepest part of it that exists.
func lineOf(n *yaml.Node, path string) int {
	line := n.Line
	for path != "" {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		next, rest := descend(n, path)
		if next == nil {
			return line
		}
		line, n, path = next.line, next.node, rest
	}
	return line
}

type step struct {
	line int
	node *yaml.Node
}

func descend(n *yaml.Node, path string) (*step, string) {
	path = strings.TrimPrefix(path, ".")
	switch n.Kind {
	case yaml.SequenceNode:
		end := strings.IndexByte(path, ']')
		if end < 0 || path[0] != '[' {
			return nil, ""
		}
		i, err := strconv.Atoi(path[1:end])
		if err != nil || i < 0 || i >= len(n.Content) {
			return nil, ""
		}
		return &step{n.Content[i].Line, n.Content[i]}, path[end+1:]
	case yaml.MappingNode:
		fields, err := new(encoder).fields(n, "", 0)
		if err != nil {
			return nil, ""
		}
		for _, f := range fields {
			for _, form := range []string{f.name, "[" + f.name + "]", plural(f.name)} {
				rest, ok := strings.CutPrefix(path, form)
				if ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
					return &step{f.key.Line, f.value}, rest
				}
			}
		}
	}
	return nil, ""
}

// plural names the field that is filled in from one, and that problems are about.
func plural(name string) string {
	switch name {
	case "clusterIP", "podIP":
		return name + "s"
	}
	return name
}

func quote(s string) string {
	if len(s) > 100 {
		s = s[:100] + "..."
	}
	return strconv.Quote(s)
}
