package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func benchPod(i, edit int) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata:\n  name: p%d\n  namespace: shop\n  labels: {app: web, edit: \"%d\"}\n"+
		"spec:\n  nodeName: n1\n  serviceAccountName: web\n  containers:\n  - name: c\n    ports: [{containerPort: 8080}]\n"+
		"status:\n  phase: Running\n  podIP: 10.1.%d.%d\n---\n", i, edit, i>>8&255, i&255)
}

// BenchmarkEditOneOf10000 changes one pod among 10,000, each in a file of its
// own and all in one file.
func BenchmarkEditOneOf10000(b *testing.B) {
	const size = 10_000
	open := func(b *testing.B, dir string) *overlay {
		v, err := open([]string{dir}, false, NewScheme())
		if err != nil {
			b.Fatal(err)
		}
		batch, _ := v.settle(v.scanAll(func(string) error { return nil }))
		if len(batch.Upserts) != size {
			b.Fatalf("%d objects: %v", len(batch.Upserts), batch.Problems)
		}
		return v
	}
	edit := func(b *testing.B, v *overlay, path string, content func(i int) string) {
		b.ResetTimer()
		for i := range b.N {
			b.StopTimer()
			if err := os.WriteFile(path, []byte(content(i+1)), 0o644); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			keys := v.replace(0, []touch{{path, v.layers[0].refresh(path, true)}})
			if batch, _ := v.settle(keys); len(batch.Upserts) != 1 {
				b.Fatalf("%d upserts, want 1", len(batch.Upserts))
			}
		}
	}
	b.Run("files", func(b *testing.B) {
		dir := b.TempDir()
		for i := range size {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("p%d.yaml", i)), []byte(benchPod(i, 0)), 0o644); err != nil {
				b.Fatal(err)
			}
		}
		edit(b, open(b, dir), filepath.Join(dir, "p7.yaml"), func(i int) string { return benchPod(7, i) })
	})
	b.Run("documents", func(b *testing.B) {
		dir := b.TempDir()
		content := func(edit int) string {
			var all strings.Builder
			for i := range size {
				if i == 7 {
					all.WriteString(benchPod(i, edit))
				} else {
					all.WriteString(benchPod(i, 0))
				}
			}
			return all.String()
		}
		path := filepath.Join(dir, "all.yaml")
		if err := os.WriteFile(path, []byte(content(0)), 0o644); err != nil {
			b.Fatal(err)
		}
		edit(b, open(b, dir), path, content)
	})
}
