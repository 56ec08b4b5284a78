package reference

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// declaration finds where metrics are made: prometheus.NewCounterVec and its like.
var declaration = regexp.MustCompile(`^New(Counter|Gauge|Histogram|Summary)(Vec|Func)?$`)

// declared gives the metrics of the packages below a folder.
func declared(root, folder string) ([]Metric, error) {
	var all []Metric
	err := filepath.WalkDir(filepath.Join(root, folder), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == filepath.Join(root, folder) {
			return nil // a component that is not there
		}
		if err != nil || !d.IsDir() || d.Name() == "testdata" {
			return err
		}
		p, err := parsePackage(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		found, err := p.metrics()
		for i := range found {
			found[i].Package = filepath.ToSlash(rel)
		}
		all = append(all, found...)
		return err
	})
	return all, err
}

// parsed is the source of one package.
type parsed struct {
	fset  *token.FileSet
	files []*ast.File
	// values are the package's constants and lists of strings.
	values map[string]ast.Expr
}

func parsePackage(dir string) (*parsed, error) {
	p := &parsed{fset: token.NewFileSet(), values: map[string]ast.Expr{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(p.fset, filepath.Join(dir, e.Name()), nil, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			return nil, err
		}
		p.files = append(p.files, f)
		ast.Inspect(f, p.remember)
	}
	return p, nil
}

// remember notes what a name stands for. Names of different functions may clash
// in theory; then a wrong help text shows up on the page.
func (p *parsed) remember(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.ValueSpec:
		for i, name := range n.Names {
			if i < len(n.Values) {
				p.values[name.Name] = n.Values[i]
			}
		}
	case *ast.AssignStmt:
		for i, left := range n.Lhs {
			if name, ok := left.(*ast.Ident); ok && n.Tok == token.DEFINE && len(n.Lhs) == len(n.Rhs) {
				p.values[name.Name] = n.Rhs[i]
			}
		}
	}
	return true
}

// metrics gives what the package declares.
func (p *parsed) metrics() ([]Metric, error) {
	var all []Metric
	var errs []error
	for _, f := range p.files {
		// The functions that a node is in, with the names that they are called by.
		var stack []ast.Node
		ast.Inspect(f, func(n ast.Node) bool {
			if n == nil {
				stack = stack[:len(stack)-1]
				return false
			}
			stack = append(stack, n)
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !isPackage(sel.X, "prometheus") || len(call.Args) == 0 {
				return true
			}
			m := declaration.FindStringSubmatch(sel.Sel.Name)
			if m == nil {
				return true
			}
			found, err := p.declaration(call, strings.ToLower(m[1]), m[2] == "Vec", stack)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w: write it in a way that docs/internal/reference can read", p.fset.Position(n.Pos()), err))
			}
			all = append(all, found...)
			return true
		})
	}
	return all, errors.Join(errs...)
}

// declaration reads one call: of itself, or through the calls of the function
// around it if the name is that function's parameter.
func (p *parsed) declaration(call *ast.CallExpr, kind string, vec bool, stack []ast.Node) ([]Metric, error) {
	opts, ok := call.Args[0].(*ast.CompositeLit)
	if !ok {
		return nil, errors.New("the options are no literal")
	}
	var labels ast.Expr
	if vec {
		labels = call.Args[1]
	}
	name, help := field(opts, "Name"), field(opts, "Help")
	if p.isValue(name) {
		m, err := p.metric(kind, name, help, []ast.Expr{labels})
		return []Metric{m}, err
	}
	fn, params := enclosing(stack, name)
	if fn == "" {
		return nil, errors.New("the name is neither a constant nor a parameter")
	}
	var all []Metric
	var errs []error
	for _, f := range p.files {
		ast.Inspect(f, func(n ast.Node) bool {
			c, ok := n.(*ast.CallExpr)
			if id, isName := nodeFun(c, ok).(*ast.Ident); !isName || id.Name != fn {
				return true
			}
			m, err := p.metric(kind, argument(c, params, name), argument(c, params, help), arguments(c, params, labels))
			all, errs = append(all, m), append(errs, err)
			return true
		})
	}
	return all, errors.Join(errs...)
}

func nodeFun(c *ast.CallExpr, ok bool) ast.Expr {
	if !ok {
		return nil
	}
	return c.Fun
}

func (p *parsed) metric(kind string, name, help ast.Expr, labels []ast.Expr) (Metric, error) {
	m := Metric{Type: kind}
	var err error
	if m.Name, err = p.text(name); err != nil {
		return m, fmt.Errorf("name: %w", err)
	}
	if m.Help, err = p.text(help); err != nil {
		return m, fmt.Errorf("help of %s: %w", m.Name, err)
	}
	for _, l := range labels {
		if l == nil {
			continue
		}
		list, err := p.texts(l)
		if err != nil {
			return m, fmt.Errorf("labels of %s: %w", m.Name, err)
		}
		m.Labels = append(m.Labels, list...)
	}
	return m, nil
}

func (p *parsed) isValue(e ast.Expr) bool {
	_, err := p.text(e)
	return err == nil
}

// text evaluates a string.
func (p *parsed) text(e ast.Expr) (string, error) {
	switch e := e.(type) {
	case *ast.BasicLit:
		return strconv.Unquote(e.Value)
	case *ast.BinaryExpr:
		left, err := p.text(e.X)
		if err != nil {
			return "", err
		}
		right, err := p.text(e.Y)
		return left + right, err
	case *ast.Ident:
		if v, ok := p.values[e.Name]; ok {
			return p.text(v)
		}
	}
	return "", errors.New("no constant")
}

// texts evaluates a list of strings, or one.
func (p *parsed) texts(e ast.Expr) ([]string, error) {
	switch e := e.(type) {
	case *ast.CompositeLit:
		var all []string
		for _, elt := range e.Elts {
			s, err := p.text(elt)
			if err != nil {
				return nil, err
			}
			all = append(all, s)
		}
		return all, nil
	case *ast.SliceExpr:
		return p.texts(e.X)
	case *ast.CallExpr: // append(list, more)
		if !isPackage(e.Fun, "append") {
			break
		}
		var all []string
		for _, arg := range e.Args {
			list, err := p.texts(arg)
			if err != nil {
				return nil, err
			}
			all = append(all, list...)
		}
		return all, nil
	case *ast.Ident:
		if v, ok := p.values[e.Name]; ok {
			return p.texts(v)
		}
	}
	s, err := p.text(e)
	return []string{s}, err
}

func isPackage(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}

// field gives a field of a literal, or nil.
func field(lit *ast.CompositeLit, name string) ast.Expr {
	for _, e := range lit.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok && isPackage(kv.Key, name) {
			return kv.Value
		}
	}
	return nil
}

// enclosing gives the innermost function around a node that has the parameter,
// by the name that it is called by, and its parameters.
func enclosing(stack []ast.Node, param ast.Expr) (string, []string) {
	id, ok := param.(*ast.Ident)
	if !ok {
		return "", nil
	}
	for i, n := range slices.Backward(stack) {
		switch n := n.(type) {
		case *ast.FuncLit:
			params := names(n.Type)
			if as, ok := stack[max(i-1, 0)].(*ast.AssignStmt); ok && slices.Contains(params, id.Name) {
				if name, ok := as.Lhs[0].(*ast.Ident); ok {
					return name.Name, params
				}
			}
		case *ast.FuncDecl:
			if params := names(n.Type); slices.Contains(params, id.Name) {
				return n.Name.Name, params
			}
		}
	}
	return "", nil
}

func names(f *ast.FuncType) []string {
	var all []string
	for _, field := range f.Params.List {
		for _, n := range field.Names {
			all = append(all, n.Name)
		}
	}
	return all
}

// argument gives what a call hands to a parameter, or the expression itself if
// it is none.
func argument(c *ast.CallExpr, params []string, e ast.Expr) ast.Expr {
	if args := arguments(c, params, e); len(args) > 0 {
		return args[0]
	}
	return nil
}

// arguments is argument for a parameter that may take several.
func arguments(c *ast.CallExpr, params []string, e ast.Expr) []ast.Expr {
	id, ok := e.(*ast.Ident)
	if !ok {
		return []ast.Expr{e}
	}
	i := slices.Index(params, id.Name)
	switch {
	case i < 0:
		return []ast.Expr{e}
	case i == len(params)-1:
		return c.Args[min(i, len(c.Args)):]
	case i < len(c.Args):
		return []ast.Expr{c.Args[i]}
	}
	return nil
}
