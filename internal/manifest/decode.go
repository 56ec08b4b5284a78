package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	strictjson "sigs.k8s.io/json"
)

// decoder makes objects of the documents of one file.
type decoder struct {
	scheme   *runtime.Scheme
	file     string
	objects  []Object
	problems []Problem

	// The present document: its text, and on which of the lines that its nodes
	// count the text begins.
	text     string
	json     bool
	textLine int
}

// Parse reads the content of one file. The extension of name (.json or other)
// says whether it is JSON or YAML; name appears in positions. Objects of good
// documents are given even if others have problems.
func Parse(scheme *runtime.Scheme, name string, content []byte) ([]Object, []Problem) {
	d := decoder{scheme: scheme, file: name}
	if strings.HasSuffix(name, ".json") {
		roots, err := parseJSON(content)
		if err != nil {
			return nil, []Problem{d.problem(1, "", err)}
		}
		for _, root := range roots {
			d.text, d.json, d.textLine = root.text, true, root.line
			d.document(root.node, 1, "")
		}
		return d.objects, d.problems
	}
	for _, doc := range splitYAML(string(content)) {
		d.yaml(doc)
	}
	return d.objects, d.problems
}

// yaml decodes one document of a YAML file, and says whether it is not YAML.
func (d *decoder) yaml(doc document) (unreadable bool) {
	if blank(doc.text) {
		return false
	}
	d.text, d.json, d.textLine = doc.text, false, 1
	root, err := parseYAML(stripDirectives(doc.text))
	if err != nil {
		d.problems = append(d.problems, d.problem(doc.line, "", err))
		unreadable = true
	} else {
		d.document(root, doc.line, "")
	}
	// YAML ends lines at more characters than editors do.
	last := doc.line + strings.Count(doc.text, "\n")
	for i := range d.problems {
		d.problems[i].Position.Line = min(d.problems[i].Position.Line, last)
	}
	for i := range d.objects {
		d.objects[i].Source.Line = min(d.objects[i].Source.Line, last)
	}
	return unreadable
}

// stripDirectives blanks the lines that begin with %, which mean nothing here.
func stripDirectives(text string) string {
	if !strings.Contains(text, "%") {
		return text
	}
	var b strings.Builder
	started := false
	for line := range strings.Lines(text) {
		if !started && strings.HasPrefix(line, "%") {
			b.WriteByte('\n')
			continue
		}
		started = started || !blank(line)
		b.WriteString(line)
	}
	return b.String()
}

// header is what every object has.
type header struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
}

// document decodes one root node whose lines count from first. path says where
// in the document it is.
func (d *decoder) document(root *yaml.Node, first int, path string) {
	var enc encoder
	if err := enc.value(root, "", 0); err != nil {
		d.problems = append(d.problems, d.problem(first, nameOf(root), err))
		return
	}
	var head header
	if err := json.Unmarshal(enc.out.Bytes(), &head); err != nil {
		d.problems = append(d.problems, d.problem(first, nameOf(root), typeError(root, &enc, err, func(raw []byte) error {
			return json.Unmarshal(raw, new(header))
		})))
		return
	}
	gvk := current(schema.FromAPIVersionAndKind(head.APIVersion, head.Kind))
	name := strings.TrimSpace(Key{Kind: head.Kind, Namespace: head.Metadata.Namespace, Name: head.Metadata.Name}.String())
	fail := func(err error) { d.problems = append(d.problems, d.problem(first, name, err)) }
	switch {
	case head.APIVersion == "" || head.Kind == "":
		fail(&nodeError{root.Line, "", "apiVersion and kind must be set: every document is one Kubernetes object"})
	case gvk == listKind:
		d.list(root, first, fail)
	case !d.scheme.Recognizes(gvk):
		fail(&nodeError{lineOf(root, "kind"), "kind", unknownKind(d.scheme, gvk)})
	default:
		obj, errs := d.object(gvk, &enc, root)
		for _, err := range errs {
			fail(err)
		}
		if len(errs) == 0 {
			def := &definition{d.text, d.json, path, root.Line - d.textLine + 1}
			d.objects = append(d.objects, newObject(obj, Position{d.file, first + root.Line - 1}, def))
		}
	}
}

// list unrolls a v1 List.
func (d *decoder) list(root *yaml.Node, first int, fail func(error)) {
	fields, err := new(encoder).fields(root, "", 0)
	if err != nil {
		fail(err)
		return
	}
	for _, f := range fields {
		switch f.name {
		case "apiVersion", "kind", "metadata":
		case "items":
			items := f.value
			if items.Kind == yaml.AliasNode {
				items = items.Alias
			}
			if items.Kind != yaml.SequenceNode {
				fail(&nodeError{f.key.Line, "items", "must be a list of objects"})
				return
			}
			for i, n := range items.Content {
				d.item(n, first, item("items", i), fail)
			}
		default:
			fail(&nodeError{f.key.Line, f.name, "unknown field: a List has items"})
		}
	}
}

func (d *decoder) item(n *yaml.Node, first int, path string, fail func(error)) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	// A List within a List could multiply without bound through aliases.
	if line := lineOf(n, "kind"); isList(n) {
		fail(&nodeError{line, path + ".kind", "a List within a List: write the objects of the inner one into the outer"})
		return
	}
	d.document(n, first, path)
}

func isList(n *yaml.Node) bool {
	fields, err := new(encoder).fields(n, "", 0)
	if err != nil || n.Kind != yaml.MappingNode {
		return false
	}
	for _, f := range fields {
		value := f.value
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		if f.name == "kind" && value.Value == listKind.Kind {
			return true
		}
	}
	return false
}

// object decodes, defaults and validates one object.
func (d *decoder) object(gvk schema.GroupVersionKind, enc *encoder, root *yaml.Node) (Resource, []error) {
	made, err := d.scheme.New(gvk)
	if err != nil {
		return nil, []error{&nodeError{root.Line, "kind", err.Error()}}
	}
	obj, ok := made.(Resource)
	if !ok {
		return nil, []error{&nodeError{root.Line, "kind", "not an object"}}
	}
	strict, err := strictjson.UnmarshalStrict(enc.out.Bytes(), obj)
	if err != nil {
		return nil, []error{typeError(root, enc, err, func(raw []byte) error { return d.fits(gvk, raw) })}
	}
	var errs []error
	for _, e := range strict {
		errs = append(errs, unknownField(root, e))
	}
	if len(errs) > 0 {
		return nil, errs
	}
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	setDefaults(obj)
	for _, e := range validate(obj) {
		errs = append(errs, &nodeError{lineOf(root, e.Field), e.Field, e.ErrorBody()})
	}
	return obj, errs
}

func unknownField(root *yaml.Node, err error) error {
	path := ""
	var fe strictjson.FieldError
	if errors.As(err, &fe) {
		path = fe.FieldPath()
	}
	return &nodeError{lineOf(root, path), path, "unknown field: correct its spelling and place, or remove it"}
}

// fits says whether the values of an object are of the types of their fields.
func (d *decoder) fits(gvk schema.GroupVersionKind, raw []byte) error {
	obj, err := d.scheme.New(gvk)
	if err != nil {
		return err
	}
	_, err = strictjson.UnmarshalStrict(raw, obj)
	return err
}

// typeError says which value does not fit its field, err being what decoding
// all of them gave.
func typeError(root *yaml.Node, enc *encoder, err error, decode func([]byte) error) error {
	path := misfit(root, enc, decode)
	var te *json.UnmarshalTypeError
	if errors.As(err, &te) {
		return &nodeError{lineOf(root, path), path, fmt.Sprintf("got %s, want %s", te.Value, wanted(te))}
	}
	return &nodeError{lineOf(root, path), path, strings.TrimPrefix(err.Error(), "json: ")}
}

// maxSearched is up to which size of a document misfit is worth its time.
const maxSearched = 1 << 20

// misfit finds the path of the value that keeps a document from being decoded:
// the last one of the shortest beginning of the document that cannot be. Errors
// cannot tell, because types decode themselves and do not know where they are.
func misfit(root *yaml.Node, enc *encoder, decode func([]byte) error) string {
	if enc.out.Len() > maxSearched {
		return ""
	}
	path := ""
	sort.Search(enc.nodes, func(i int) bool {
		part := encoder{limit: i + 1}
		if part.value(root, "", 0) != nil || decode(part.out.Bytes()) == nil {
			return false
		}
		path = part.last
		return true
	})
	return path
}

func wanted(te *json.UnmarshalTypeError) string {
	if te.Type == nil {
		return "something else"
	}
	switch kind := te.Type.Kind().String(); kind {
	case "struct", "map":
		return "a mapping"
	case "slice":
		return "a list"
	case "bool":
		return "true or false"
	default:
		return kind
	}
}

// problem places an error of a document that begins on line first.
func (d *decoder) problem(first int, object string, err error) Problem {
	p := Problem{Position: Position{d.file, first}, Object: object, Message: err.Error()}
	var ne *nodeError
	if errors.As(err, &ne) {
		p.Field, p.Message = ne.field, ne.message
		p.Position.Line += max(ne.line, 1) - 1
	}
	return p
}
