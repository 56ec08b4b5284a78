package compile_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// TestPreview: what is said of an object before it is written is what is found when it
// is, for every object of every golden case, new or written once more.
func TestPreview(t *testing.T) {
	var paths []string
	for _, pattern := range []string{"testdata/*.txtar", "testdata/traffic/*.txtar"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("no cases: %v", err)
		}
		paths = append(paths, found...)
	}
	said := make(map[string]int)
	for _, path := range paths {
		t.Run(strings.TrimPrefix(strings.TrimSuffix(path, ".txtar"), "testdata/"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var opts compile.Options
			all := make(map[graph.Key]graph.Entry)
			for _, f := range archive.Files {
				if f.Name == "options" {
					if err := yaml.UnmarshalStrict(f.Data, &opts); err != nil {
						t.Fatal(err)
					}
				}
				if strings.HasSuffix(f.Name, ".yaml") {
					for _, e := range objects(t, f.Name, f.Data) {
						if k, ok := graph.KeyOf(e.Object); ok {
							all[k] = e
						}
					}
				}
			}
			c, err := compile.New(opts)
			if err != nil {
				t.Fatal(err)
			}
			var in compile.Input
			for _, e := range all {
				in.Upserts = append(in.Upserts, e)
			}
			c.Apply(in)
			for k, e := range all {
				if k.Kind == "Pod" || k.Kind == "EndpointSlice" {
					continue
				}
				want := about(c.Findings(), k)
				said[k.Kind] += len(want)
				copied, ok := e.Object.DeepCopyObject().(graph.Object)
				if !ok {
					t.Fatalf("%T", e.Object)
				}
				if d := cmp.Diff(want, c.Preview(copied)); d != "" {
					t.Errorf("%s written once more (-found +said before):\n%s", k, d)
				}
				c.Apply(compile.Input{Deletes: []graph.Key{k}})
				before := renderAll(c)
				if d := cmp.Diff(want, c.Preview(copied)); d != "" {
					t.Errorf("%s new (-found +said before):\n%s", k, d)
				}
				if d := cmp.Diff(before, renderAll(c)); d != "" {
					t.Errorf("to be asked of %s has changed something:\n%s", k, d)
				}
				c.Apply(compile.Input{Upserts: []graph.Entry{e}})
			}
		})
	}
	for _, kind := range []string{"Namespace", "Service", "Gateway", "HTTPRoute", "GRPCRoute", "TCPRoute", "AuthorizationPolicy", "PeerAuthentication", "RateLimitPolicy", "TimeoutPolicy", "BackendTLSPolicy", "ExternalService"} {
		if said[kind] == 0 {
			t.Errorf("no case finds anything of a %s", kind)
		}
	}
}

// about gives the findings of one object, without where it is written.
func about(all []compile.Finding, k graph.Key) []compile.Finding {
	var out []compile.Finding
	for _, f := range all {
		if f.Object == k {
			f.Origin = ""
			out = append(out, f)
		}
	}
	return slices.Clip(out)
}
