package files_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/controlplane/internal/source/files"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a sink that hands on what it is given.
type recorder struct {
	inputs   chan compile.Input
	problems chan []manifest.Problem
}

func (r recorder) Objects(in compile.Input)         { r.inputs <- in }
func (r recorder) Problems(list []manifest.Problem) { r.problems <- list }

func receive[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was delivered")
		panic("unreachable")
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".tmp", []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		t.Fatal(err)
	}
}

func TestSource(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	r := recorder{make(chan compile.Input, 8), make(chan []manifest.Problem, 8)}
	src, err := files.New([]string{dir}, r)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- src.Run(ctx) }()

	if in := receive(t, r.inputs); len(in.Upserts)+len(in.Deletes) != 0 {
		t.Errorf("an empty directory gives %+v", in)
	}
	write(t, path, "\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")
	in := receive(t, r.inputs)
	if len(in.Upserts) != 1 || in.Upserts[0].Object.GetName() != "shop" || in.Upserts[0].Origin("metadata.name") != path+":4" {
		t.Errorf("a new file gives %+v", in)
	}
	write(t, path, "kind: [")
	if list := receive(t, r.problems); len(list) != 1 {
		t.Errorf("a broken file gives problems %v", list)
	}
	write(t, path, "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n")
	if list := receive(t, r.problems); len(list) != 0 {
		t.Errorf("a mended file gives problems %v", list)
	}
	in = receive(t, r.inputs)
	if want := (graph.Key{Kind: "Namespace", Name: "shop"}); len(in.Deletes) != 1 || in.Deletes[0] != want {
		t.Errorf("a renamed object gives deletes %v, want %v", in.Deletes, want)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestMissingDirectory(t *testing.T) {
	if _, err := files.New([]string{filepath.Join(t.TempDir(), "nope")}, recorder{}); err == nil {
		t.Error("a missing directory is no error")
	}
}
