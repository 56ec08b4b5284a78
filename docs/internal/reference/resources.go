package reference

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// schema is the part of an OpenAPI schema that the page shows.
type schema struct {
	Type        string             `json:"type"`
	Description string             `json:"description"`
	Properties  map[string]*schema `json:"properties"`
	Items       *schema            `json:"items"`
	Required    []string           `json:"required"`
	Enum        []any              `json:"enum"`
	Default     any                `json:"default"`
	Additional  *schema            `json:"additionalProperties"`
	Rules       []struct {
		Message string `json:"message"`
	} `json:"x-kubernetes-validations"`
}

// definition is the part of a CRD that the page shows.
type definition struct {
	Spec struct {
		Group string `json:"group"`
		Scope string `json:"scope"`
		Names struct {
			Kind       string   `json:"kind"`
			ShortNames []string `json:"shortNames"`
			Categories []string `json:"categories"`
		} `json:"names"`
		Versions []struct {
			Name   string `json:"name"`
			Schema struct {
				OpenAPI *schema `json:"openAPIV3Schema"`
			} `json:"schema"`
		} `json:"versions"`
	} `json:"spec"`
}

// resources renders the CRDs and the conditions of their status.
func resources(root string) (string, error) {
	files, err := filepath.Glob(filepath.Join(root, "manifests/crds/*.yaml"))
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(notice + "# Resources\n\nWhat the custom resources of the mesh hold. Standard fields of every object are left out.\n")
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		var d definition
		if err := yaml.Unmarshal(raw, &d); err != nil {
			return "", fmt.Errorf("%s: %w", file, err)
		}
		d.render(&b)
	}
	if err := conditions(&b, root); err != nil {
		return "", err
	}
	return b.String(), nil
}

func (d *definition) render(b *strings.Builder) {
	for _, v := range d.Spec.Versions {
		top := v.Schema.OpenAPI
		fmt.Fprintf(b, "\n## %s\n\n`apiVersion: %s/%s`, %s; short names: %s; also in `kubectl get %s`.\n\n%s\n\n",
			d.Spec.Names.Kind, d.Spec.Group, v.Name, strings.ToLower(d.Spec.Scope),
			strings.Join(d.Spec.Names.ShortNames, ", "), strings.Join(d.Spec.Names.Categories, ", "), top.Description)
		b.WriteString("| field | type | what it is |\n|---|---|---|\n")
		if spec := top.Properties["spec"]; spec != nil {
			spec.rows(b, "spec", true)
		}
	}
}

// rows renders a field and those below it.
func (s *schema) rows(b *strings.Builder, path string, required bool) {
	fmt.Fprintf(b, "| `%s` | %s | %s |\n", path, s.kind(required), cell(s.about()))
	inner := s
	switch {
	case s.Items != nil:
		inner, path = s.Items, path+"[]"
		if inner.Properties == nil {
			return
		}
	case s.Additional != nil:
		return
	}
	for _, name := range slices.Sorted(maps.Keys(inner.Properties)) {
		inner.Properties[name].rows(b, path+"."+name, slices.Contains(inner.Required, name))
	}
}

func (s *schema) kind(required bool) string {
	kind := s.Type
	switch {
	case s.Items != nil:
		kind = "list of " + s.Items.Type
	case s.Additional != nil:
		kind = "map of " + s.Additional.Type
	}
	if required {
		kind += ", required"
	}
	return kind
}

// about gives the description with the limits that are not in its words.
func (s *schema) about() string {
	text := s.Description
	var values []string
	for _, v := range s.Enum {
		values = append(values, fmt.Sprintf("`%q`", v))
	}
	if len(values) > 0 {
		text += " One of " + strings.Join(values, ", ") + "."
	}
	if s.Default != nil {
		text += fmt.Sprintf(" Default: `%s`.", literal(s.Default))
	}
	rules := s.Rules
	if s.Items != nil {
		rules = append(rules[:len(rules):len(rules)], s.Items.Rules...)
	}
	for _, r := range rules {
		text += " Rule: " + r.Message + "."
	}
	return text
}

// literal gives a default as it is written in a manifest.
func literal(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(raw)
}

// conditions renders the constants of the API that name conditions and reasons.
func conditions(b *strings.Builder, root string) error {
	p, err := parsePackage(filepath.Join(root, "apis/mesh/v1alpha1"))
	if err != nil {
		return err
	}
	b.WriteString("\n## Conditions\n\nThe status of a policy has conditions for the policy as a whole and for each of its targets (`ancestors`). " +
		"Routes have the conditions of Gateway API for each parent: `Accepted`, `ResolvedRefs` and, for rules that cannot be carried out, `PartiallyInvalid`; " +
		"the reasons below that are about routes are reasons of theirs.\n\n")
	b.WriteString("| condition | reason | what it says |\n|---|---|---|\n")
	b.WriteString("| `Accepted` = True | `Accepted` | The policy is enforced as written. |\n")
	for _, r := range [][2]string{
		{"Invalid", "A field is wrong; the message names it. The policy is refused as a whole and opens nothing."},
		{"TargetNotFound", "The target does not exist. The policy applies to it once it does."},
		{"Conflicted", "An older policy has the very same target and decides."},
	} {
		fmt.Fprintf(b, "| `Accepted` = False | `%s` | %s |\n", r[0], r[1])
	}
	for _, r := range reasons(p) {
		fmt.Fprintf(b, "| `Accepted` = False | `%s` | %s |\n", r[0], cell(r[1]))
	}
	return nil
}

// reasons gives the value and the comment of every constant named Reason...
func reasons(p *parsed) [][2]string {
	var all [][2]string
	for _, f := range p.files {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				v, ok := s.(*ast.ValueSpec)
				if !ok || !strings.HasPrefix(v.Names[0].Name, "Reason") {
					continue
				}
				value, err := p.text(v.Values[0])
				doc := v.Doc
				if doc == nil {
					doc = g.Doc // a constant on its own
				}
				if err == nil {
					_, says, _ := strings.Cut(doc.Text(), " says that ")
					all = append(all, [2]string{value, strings.ToUpper(says[:1]) + says[1:]})
				}
			}
		}
	}
	return all
}
