package contract

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/internal/manifest"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

func TestFrontendsAreUnderstood(t *testing.T) {
	paths, err := filepath.Glob("../../controlplane/compile/testdata/traffic/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			for _, r := range compiled(t, path).Resources(compile.TypeFrontend) {
				body, ok := r.Body.(*waypoint.Frontend)
				if !ok {
					t.Fatalf("%s is a %T", r.Name, r.Body)
				}
				_, problems := route.Compile(body)
				for _, p := range problems {
					if !told(body, p) {
						t.Errorf("the waypoint refuses what the control plane takes for sound: %s", p)
					}
				}
			}
		})
	}
}

// compiled applies the manifests of a case.
func compiled(t *testing.T, path string) *compile.Compiler {
	t.Helper()
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := compile.New(compile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range archive.Files {
		if !strings.HasSuffix(f.Name, ".yaml") {
			continue
		}
		objects, problems := manifest.Parse(manifest.NewScheme(), f.Name, f.Data)
		for _, p := range problems {
			t.Fatal(p)
		}
		var in compile.Input
		for _, o := range objects {
			in.Upserts = append(in.Upserts, graph.Entry{Object: o.Resource, Origin: o.Where})
		}
		c.Apply(in)
	}
	return c
}

// told says whether the control plane has itself marked the rule that a problem
// is about.
func told(f *waypoint.Frontend, p route.Problem) bool {
	for _, port := range f.GetPorts() {
		tables := []*waypoint.RouteTable{port.GetProducer()}
		for _, c := range port.GetConsumers() {
			tables = append(tables, c.GetTable())
		}
		for _, table := range tables {
			for _, r := range table.GetRoutes() {
				for _, rule := range r.GetRules() {
					if p.Object == r.GetKind()+" "+r.GetNamespace()+"/"+r.GetName() && int(rule.GetIndex()) == p.Rule && rule.GetInvalid() != "" {
						return true
					}
				}
			}
		}
	}
	return false
}
