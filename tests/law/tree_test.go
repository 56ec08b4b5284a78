package law

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const (
	module = "github.com/ambit-mesh/ambit"
	root   = "../.."
)

// pkg is a package as `go list` tells it.
type pkg struct {
	ImportPath string
	Dir        string
	Standard   bool
	Imports    []string
}

// ours reports whether the package belongs to the module.
func (p *pkg) ours() bool {
	return p.ImportPath == module || strings.HasPrefix(p.ImportPath, module+"/")
}

// listPackages gives every package of the module and everything that they need,
// without tests, by import path.
var listPackages = sync.OnceValues(func() (map[string]*pkg, error) {
	cmd := exec.Command("go", "list", "-e", "-deps", "-json=ImportPath,Dir,Standard,Imports", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.Join(err, errors.New(stderr.String()))
	}
	packages := make(map[string]*pkg)
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(pkg)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, err
		}
		packages[p.ImportPath] = p
	}
})

func packages(t *testing.T) map[string]*pkg {
	t.Helper()
	p, err := listPackages()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return p
}

// source is one Go file of the module.
type source struct {
	path      string // from the root, with slashes
	file      *ast.File
	generated bool
}

func (s *source) test() bool { return strings.HasSuffix(s.path, "_test.go") }

// in reports whether the file is in one of the folders, or below it.
func (s *source) in(folders ...string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return strings.HasPrefix(s.path, f+"/") })
}

func (s *source) imports(path string) bool {
	return slices.ContainsFunc(s.file.Imports, func(i *ast.ImportSpec) bool { return strings.Trim(i.Path.Value, `"`) == path })
}

// uses gives the positions where the file uses package path's name, as in
// time.Now.
func (s *source) uses(path string, names ...string) []token.Pos {
	local := ""
	for _, imp := range s.file.Imports {
		if strings.Trim(imp.Path.Value, `"`) == path {
			if local = path[strings.LastIndex(path, "/")+1:]; imp.Name != nil {
				local = imp.Name.Name
			}
		}
	}
	if local == "" {
		return nil
	}
	var found []token.Pos
	ast.Inspect(s.file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok || !slices.Contains(names, sel.Sel.Name) {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == local {
			found = append(found, sel.Pos())
		}
		return true
	})
	return found
}

// tree is the parsed source.
type tree struct {
	fset  *token.FileSet
	files []*source
}

var parseTree = sync.OnceValues(func() (tree, error) {
	t := tree{fset: token.NewFileSet()}
	err := walk(".go", func(path string, text []byte) error {
		f, err := parser.ParseFile(t.fset, path, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		t.files = append(t.files, &source{path: path, file: f, generated: ast.IsGenerated(f)})
		return nil
	})
	return t, err
})

// sources gives every Go file of the module.
func sources(t *testing.T) (*token.FileSet, []*source) {
	t.Helper()
	all, err := parseTree()
	if err != nil {
		t.Fatal(err)
	}
	return all.fset, all.files
}

// walk visits the files of the tree that end in suffix.
func walk(suffix string, visit func(path string, text []byte) error) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && path != root && (name == "testdata" || name == "bin" || name != ".ci" && strings.HasPrefix(name, ".")) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, suffix) {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return visit(filepath.ToSlash(rel), text)
	})
}
