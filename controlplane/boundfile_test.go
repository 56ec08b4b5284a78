package controlplane

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

func TestBoundFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), boundName)
	f, list, err := openBound(path)
	if err != nil || len(list) != 0 {
		t.Fatalf("no file: %v, %v", list, err)
	}
	want := []types.NamespacedName{{Namespace: "a", Name: "wp"}, {Namespace: "b", Name: "wp"}}
	if err := f.save(want); err != nil {
		t.Fatal(err)
	}
	if _, list, err = openBound(path); err != nil || !slices.Equal(list, want) {
		t.Fatalf("%v, %v", list, err)
	}
	if err := os.WriteFile(path, []byte(`["a/b/c"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err = openBound(path); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "delete it") {
		t.Errorf("damaged: %v", err)
	}
}

func FuzzParseBound(f *testing.F) {
	f.Add([]byte(`["shop/wp"]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseBound(data)
		for _, n := range list {
			if err == nil && (n.Namespace == "" || n.Name == "" || strings.Contains(n.Name, "/")) {
				t.Errorf("%q gives %v", data, n)
			}
		}
	})
}
