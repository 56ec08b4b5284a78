package manifest

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// definition is the text that an object was decoded from. It is read again when
// somebody asks for the line of a field, which is seldom: keeping the lines of
// all fields would cost more memory than the text.
type definition struct {
	text string // of the document
	json bool
	// path of the object in the document, such as items[2]; "" is all of it.
	path string
	// line of the text on which the object begins.
	line int
}

// At gives the place of a field, such as spec.ports[0].name, or of the deepest
// part of it that is written down.
func (o Object) At(field string) Position {
	at := o.Source
	if o.definition == nil || field == "" {
		return at
	}
	at.Line += o.definition.lineOf(field) - o.definition.line
	return at
}

// Where is At as text.
func (o Object) Where(field string) string { return o.At(field).String() }

// lineOf gives the line of the text that a field is on.
func (d *definition) lineOf(field string) int {
	root, err := d.parse()
	if err != nil {
		return d.line // it could be parsed before
	}
	// YAML ends lines at more characters than editors do.
	return min(lineOf(root, join(d.path, field)), 1+strings.Count(d.text, "\n"))
}

func (d *definition) parse() (*yaml.Node, error) {
	if !d.json {
		return parseYAML(stripDirectives(d.text))
	}
	roots, err := parseJSON([]byte(d.text))
	if err != nil {
		return nil, err
	}
	return roots[0].node, nil
}

// nameOf gives what is written as kind, namespace and name, as far as that can
// be read.
func nameOf(root *yaml.Node) string {
	meta := child(root, "metadata")
	k := Key{Kind: text(child(root, "kind")), Namespace: text(child(meta, "namespace")), Name: text(child(meta, "name"))}
	return strings.TrimSpace(k.String())
}

// child gives the value of the first field of a name, or nil.
func child(n *yaml.Node, name string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if value := n.Content[i+1]; n.Content[i].Value == name {
			if value.Kind == yaml.AliasNode {
				return value.Alias
			}
			return value
		}
	}
	return nil
}

func text(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode || len(n.Value) > 253 {
		return ""
	}
	return n.Value
}

func item(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }
