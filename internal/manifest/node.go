package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// document is one document of a file, as text.
type document struct {
	text string
	// line of the file on which text begins.
	line int
}

// splitYAML cuts a stream at its document markers. A marker at the beginning of
// a line ends a document even inside of a block scalar (YAML 1.2, 9.1.2), so
// that no parsing is needed.
func splitYAML(content string) []document {
	var docs []document
	begin, beginLine, line := 0, 1, 1
	for pos := 0; pos < len(content); line++ {
		end := len(content)
		if i := strings.IndexByte(content[pos:], '\n'); i >= 0 {
			end = pos + i + 1
		}
		if isMarker(content[pos:end]) {
			docs = append(docs, document{content[begin:pos], beginLine})
			// What follows a --- on its line belongs to the new document; three
			// blanks keep the columns.
			begin, beginLine = pos+3, line
			if content[pos] == '.' {
				begin, beginLine = end, line+1
			}
		}
		pos = end
	}
	return append(docs, document{content[begin:], beginLine})
}

func isMarker(line string) bool {
	return (strings.HasPrefix(line, "---") || strings.HasPrefix(line, "...")) &&
		(len(line) == 3 || strings.IndexByte(" \t\r\n", line[3]) >= 0)
}

// blank reports whether a document holds nothing but comments and directives.
func blank(text string) bool {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && line[0] != '#' && line[0] != '%' {
			return false
		}
	}
	return true
}

var yamlErrorLine = regexp.MustCompile(`^yaml: line (\d+): `)

// parseYAML gives the root node of one document, with lines counted from 1 at
// the beginning of the document, or an error with such a line.
func parseYAML(text string) (*yaml.Node, error) {
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(text), &root); err != nil {
		msg, line := err.Error(), 0
		if m := yamlErrorLine.FindStringSubmatch(msg); m != nil {
			line, _ = strconv.Atoi(m[1])
			msg = strings.TrimPrefix(msg, m[0])
			// For errors of its grammar the library counts lines from 0.
			if strings.HasPrefix(msg, "did not find expected") {
				line = min(line+1, strings.Count(text, "\n")+1)
			}
		}
		return nil, &nodeError{line: line, message: "not valid YAML: " + strings.TrimPrefix(msg, "yaml: ")}
	}
	if root.Kind != yaml.DocumentNode || len(root.Content) != 1 {
		return nil, &nodeError{line: 1, message: "not valid YAML: empty document"}
	}
	return root.Content[0], nil
}

// jsonRoot is one of the values of a JSON file.
type jsonRoot struct {
	document
	// node is in the form that parseYAML gives, but its lines are of the file.
	node *yaml.Node
}

// parseJSON gives the concatenated JSON values of a file.
func parseJSON(content []byte) ([]jsonRoot, error) {
	p := jsonParser{content: content, dec: json.NewDecoder(bytes.NewReader(content)), line: 1}
	p.dec.UseNumber()
	var roots []jsonRoot
	for {
		begin, line := p.dec.InputOffset(), p.line
		n, err := p.value(0)
		if errors.Is(err, io.EOF) {
			return roots, nil
		}
		if err != nil {
			return nil, err
		}
		p.here()
		roots = append(roots, jsonRoot{document{string(content[begin:p.dec.InputOffset()]), line}, n})
	}
}

const maxDepth = 100

var errTooDeep = errors.New("nested deeper than 100 levels")

type jsonParser struct {
	content []byte
	dec     *json.Decoder
	line    int
	counted int64 // offset up to which line is right
}

// here gives the line on which the token just read ends.
func (p *jsonParser) here() int {
	end := p.dec.InputOffset()
	p.line += bytes.Count(p.content[p.counted:end], []byte("\n"))
	p.counted = end
	return p.line
}

func (p *jsonParser) fail(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	line := p.here()
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		line = 1 + bytes.Count(p.content[:min(syntax.Offset, int64(len(p.content)))], []byte("\n"))
	}
	return &nodeError{line: line, message: "not valid JSON: " + err.Error()}
}

func (p *jsonParser) value(depth int) (*yaml.Node, error) {
	tok, err := p.dec.Token()
	if errors.Is(err, io.EOF) && depth == 0 {
		return nil, io.EOF
	}
	if err == nil && depth > maxDepth {
		err = errTooDeep
	}
	if err != nil {
		return nil, p.fail(err)
	}
	n := &yaml.Node{Line: p.here()}
	switch t := tok.(type) {
	case json.Delim:
		return n, p.container(n, t, depth)
	case string:
		n.Kind, n.Tag, n.Value, n.Style = yaml.ScalarNode, "!!str", t, yaml.DoubleQuotedStyle
	case json.Number:
		n.Kind, n.Tag, n.Value = yaml.ScalarNode, "!!number", t.String()
	case bool:
		n.Kind, n.Tag, n.Value = yaml.ScalarNode, "!!bool", strconv.FormatBool(t)
	case nil:
		n.Kind, n.Tag, n.Value = yaml.ScalarNode, "!!null", "null"
	}
	return n, nil
}

func (p *jsonParser) container(n *yaml.Node, open json.Delim, depth int) error {
	n.Kind = yaml.MappingNode
	if open == '[' {
		n.Kind = yaml.SequenceNode
	}
	for p.dec.More() {
		child, err := p.value(depth + 1)
		if err != nil {
			return err
		}
		n.Content = append(n.Content, child)
	}
	if _, err := p.dec.Token(); err != nil {
		return p.fail(err)
	}
	return nil
}

// nodeError is an error at a line of a document.
type nodeError struct {
	line    int
	field   string
	message string
}

func (e *nodeError) Error() string { return fmt.Sprintf("line %d: %s: %s", e.line, e.field, e.message) }
