package compile_test

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

// FuzzTraffic compiles whatever can be read as manifests: nothing may panic, and
// what came of it must go away with the objects.
func FuzzTraffic(f *testing.F) {
	paths, err := filepath.Glob("testdata/traffic/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			if strings.HasSuffix(file.Name, ".yaml") {
				f.Add(file.Data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, _ := manifest.Parse(manifest.NewScheme(), "f.yaml", data)
		c := newCompiler(t)
		var in, out compile.Input
		for _, o := range objects {
			obj, ok := o.Resource.(graph.Object)
			if !ok {
				continue
			}
			in.Upserts = append(in.Upserts, graph.Entry{Object: obj, Origin: o.Where})
			if k, known := graph.KeyOf(obj); known {
				out.Deletes = append(out.Deletes, k)
			}
		}
		c.Apply(in)
		renderTraffic(c)
		c.Apply(out)
		if left := renderTraffic(c); left != "" {
			t.Errorf("left behind:\n%s", left)
		}
	})
}
