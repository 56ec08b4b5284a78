package law

import (
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"strings"
	"testing"
)

// Every package says what it does, in doc.go or its main file.
func TestPackageComments(t *testing.T) {
	_, files := sources(t)
	has := map[string]bool{}
	for _, s := range files {
		if s.test() {
			continue
		}
		dir := path.Dir(s.path)
		has[dir] = has[dir] || s.file.Doc != nil && documents(s.file)
	}
	// The packages of protobuf are documented by their .proto files.
	for _, s := range files {
		if s.generated && strings.HasSuffix(s.path, ".pb.go") {
			has[path.Dir(s.path)] = true
		}
	}
	for dir, ok := range has {
		if !ok {
			t.Errorf("%s: no package comment: say in doc.go what the package does and what it leaves to others", dir)
		}
	}
}

// documents reports whether a package comment has the form that go doc knows.
func documents(f *ast.File) bool {
	text := f.Doc.Text()
	if f.Name.Name == "main" {
		return strings.HasPrefix(text, "Command ") || strings.HasPrefix(text, "Package main ")
	}
	return strings.HasPrefix(text, "Package "+f.Name.Name+" ")
}

var mark = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)

func TestNoMarks(t *testing.T) {
	fset, files := sources(t)
	for _, s := range files {
		if s.generated {
			continue
		}
		for _, group := range s.file.Comments {
			for _, c := range group.List {
				if m := mark.FindString(c.Text); m != "" {
					t.Errorf("%s: %s: do it, or file an issue", fset.Position(c.Pos()), m)
				}
			}
		}
	}
}

func TestNoInit(t *testing.T) {
	fset, files := sources(t)
	for _, s := range files {
		if s.generated {
			continue
		}
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: init(): what runs must be called, so that it can be left out, repeated and tested", fset.Position(f.Pos()))
			}
		}
	}
}

// use forbids names of a package in some files.
type use struct {
	pkg     string
	names   []string
	where   func(*source) bool
	because string
}

func code(s *source) bool { return !s.test() && !s.generated }

var uses = []use{
	{
		pkg:     "time",
		names:   []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"},
		where:   func(s *source) bool { return code(s) && s.in(folders(pure)...) },
		because: "pure packages are given the time",
	},
	{
		pkg:     "time",
		names:   []string{"Sleep"},
		where:   func(s *source) bool { return (s.test() || s.in("tests")) && !s.imports("testing/synctest") },
		because: "outside a synctest bubble, where time is free, a test that sleeps is slow when all is well and wrong when the machine is busy: wait for what should happen",
	},
	{
		pkg:   "os",
		names: []string{"Getenv", "LookupEnv", "Environ", "ExpandEnv"},
		where: func(s *source) bool {
			return code(s) && !s.in("cmd", "tests", "tools", "examples", "docs", "internal/cli", "internal/local", "internal/netns/netnstest", "internal/testkit")
		},
		because: "the environment is read in cmd, so that a component's Config is everything that steers it",
	},
	{
		pkg:     "os",
		names:   []string{"Exit"},
		where:   func(s *source) bool { return code(s) && s.file.Name.Name != "main" && !s.in("internal/local/sandbox") },
		because: "only a main function, or pid 1 of a sandbox, ends the process: deferred releases do not run",
	},
	{
		pkg:     "go.uber.org/zap",
		names:   []string{"L", "S", "ReplaceGlobals", "RedirectStdLog"},
		where:   code,
		because: "loggers are injected",
	},
	{
		pkg:     "github.com/prometheus/client_golang/prometheus",
		names:   []string{"DefaultRegisterer", "DefaultGatherer", "MustRegister", "Register"},
		where:   code,
		because: "registries are injected, so that two components fit into one process",
	},
	{
		pkg:     "log",
		names:   []string{"Print", "Printf", "Println", "Fatal", "Fatalf", "Fatalln", "Panic", "Panicf", "Panicln"},
		where:   func(s *source) bool { return code(s) && !s.in("examples", "tests") },
		because: "loggers are injected",
	},
	{
		pkg:     "net/http",
		names:   []string{"DefaultServeMux", "Handle", "HandleFunc", "ListenAndServe", "DefaultClient", "Get", "Post", "Head"},
		where:   func(s *source) bool { return code(s) && !s.in("examples", "tests") },
		because: "the default client and mux are shared by the process and have no timeout",
	},
	{
		pkg:     "math/rand",
		names:   []string{"Int", "Intn", "Float64", "Seed", "Read", "Perm", "Shuffle"},
		where:   code,
		because: "use math/rand/v2, or crypto/rand for secrets",
	},
}

// folders turns patterns into folders.
func folders(patterns []string) []string {
	out := make([]string, len(patterns))
	for i, p := range patterns {
		out[i] = strings.TrimSuffix(strings.TrimPrefix(p, "./"), "/...")
	}
	return out
}

func TestForbiddenUses(t *testing.T) {
	fset, files := sources(t)
	for _, s := range files {
		for _, u := range uses {
			if !u.where(s) {
				continue
			}
			for _, at := range s.uses(u.pkg, u.names...) {
				t.Errorf("%s: use of %s (%s): %s", fset.Position(at), u.pkg, strings.Join(u.names, ", "), u.because)
			}
		}
	}
}

// maxLines is where a file most likely holds a second idea.
const maxLines = 500

func TestFileSizes(t *testing.T) {
	fset, files := sources(t)
	for _, s := range files {
		if s.generated || s.test() {
			continue
		}
		if n := fset.Position(s.file.End()).Line; n > maxLines {
			t.Errorf("%s: %d lines, more than %d: look for the second idea in it", s.path, n, maxLines)
		}
	}
}

// State at package level is shared by everything in the process.
func TestNoGlobalLocks(t *testing.T) {
	fset, files := sources(t)
	for _, s := range files {
		if !code(s) {
			continue
		}
		for _, d := range s.file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				v, ok := spec.(*ast.ValueSpec)
				if !ok {
					continue
				}
				if sel, ok := v.Type.(*ast.SelectorExpr); ok && (sel.Sel.Name == "Mutex" || sel.Sel.Name == "RWMutex" || sel.Sel.Name == "Once") {
					t.Errorf("%s: a lock at package level guards state of the package: put both into a value", fset.Position(v.Pos()))
				}
			}
		}
	}
}
