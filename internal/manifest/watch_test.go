package manifest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tree is a directory under test.
type tree struct {
	t   *testing.T
	dir string
}

func newTree(t *testing.T, files ...string) tree {
	tr := tree{t, t.TempDir()}
	for i := 0; i+1 < len(files); i += 2 {
		tr.write(files[i], files[i+1])
	}
	return tr
}

func (tr tree) path(name string) string { return filepath.Join(tr.dir, name) }

func (tr tree) do(err error) {
	tr.t.Helper()
	if err != nil {
		tr.t.Fatal(err)
	}
}

func (tr tree) write(name, content string) {
	tr.t.Helper()
	tr.do(os.MkdirAll(filepath.Dir(tr.path(name)), 0o755))
	tr.do(os.WriteFile(tr.path(name), []byte(content), 0o644))
}

// replace writes as careful editors do.
func (tr tree) replace(name, content string) {
	tr.t.Helper()
	tr.write(".tmp-"+filepath.Base(name), content)
	tr.do(os.Rename(tr.path(".tmp-"+filepath.Base(name)), tr.path(name)))
}

// follower sums up the batches of a watcher.
type follower struct {
	t        *testing.T
	batches  chan Batch
	objects  map[Key]Object
	problems []Problem
}

func follow(t *testing.T, dirs ...string) *follower {
	t.Helper()
	f := &follower{t: t, batches: make(chan Batch, 64), objects: map[Key]Object{}}
	w, err := NewWatcher(Config{Dirs: dirs, Debounce: 5 * time.Millisecond, Apply: func(b Batch) { f.batches <- b }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	f.take()
	return f
}

// take waits for a batch.
func (f *follower) take() Batch {
	f.t.Helper()
	select {
	case b := <-f.batches:
		for _, o := range b.Upserts {
			f.objects[o.Key()] = o
		}
		for _, k := range b.Deletes {
			delete(f.objects, k)
		}
		f.problems = b.Problems
		return b
	case <-time.After(10 * time.Second):
		f.t.Fatalf("no batch; have %s and problems %v", f, f.problems)
		return Batch{}
	}
}

// String gives the objects as name=value of label v, sorted.
func (f *follower) String() string {
	var out []string
	for _, k := range slices.SortedFunc(maps.Keys(f.objects), Key.Compare) {
		out = append(out, k.Name+"="+f.objects[k].GetLabels()["v"])
	}
	return strings.Join(out, " ")
}

// until takes batches until the objects are as wanted.
func (f *follower) until(want string) {
	f.t.Helper()
	for f.String() != want {
		f.take()
	}
}

// untilProblem takes batches until there is exactly one problem with the text,
// or none if it is empty.
func (f *follower) untilProblem(text string) {
	f.t.Helper()
	good := func() bool {
		if text == "" {
			return len(f.problems) == 0
		}
		return len(f.problems) == 1 && strings.Contains(f.problems[0].Error(), text)
	}
	for !good() {
		f.take()
	}
}

func ns(name, v string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {v: %q}}\n---\n", name, v)
}

func TestWatchFollowsEdits(t *testing.T) {
	tr := newTree(t, "a.yaml", ns("a", "1"), "sub/deep/b.yml", ns("b", "1"), "c.txt", ns("c", "1"), ".hidden/d.yaml", ns("d", "1"),
		"e.yaml~", ns("e", "1"), "#f.yaml", ns("f", "1"))
	f := follow(t, tr.dir)
	f.until("a=1 b=1")
	tr.write("a.yaml", ns("a", "2"))
	f.until("a=2 b=1")
	tr.replace("a.yaml", ns("a", "3")+ns("a2", "3"))
	f.until("a=3 a2=3 b=1")
	tr.write("new/x.json", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"x"}}`)
	f.until("a=3 a2=3 b=1 x=")
	tr.do(os.RemoveAll(tr.path("sub")))
	f.until("a=3 a2=3 x=")
	tr.write("sub/deep/b.yml", ns("b", "4"))
	f.until("a=3 a2=3 b=4 x=")
	tr.write("sub/deep/b.yml", ns("b", "5"))
	f.until("a=3 a2=3 b=5 x=")
	tr.do(os.Rename(tr.path("a.yaml"), tr.path("a.bak")))
	f.until("b=5 x=")
}

func TestWatchKeepsTheLastGoodState(t *testing.T) {
	tr := newTree(t, "a.yaml", ns("a", "1")+ns("b", "1"))
	f := follow(t, tr.dir)
	tr.replace("a.yaml", ns("a", "2")+"apiVersion: v1\nkind: Namespace\nmetadata: {name: b, lables: {}}\n")
	f.until("a=2 b=1")
	f.untilProblem("a.yaml:7: Namespace b: metadata.lables: unknown field")
	tr.replace("a.yaml", ": : [")
	f.untilProblem("a.yaml:1: not valid YAML")
	f.until("a=2 b=1")
	tr.replace("a.yaml", "")
	f.untilProblem("a.yaml: is empty: remove the file to delete its objects")
	f.until("a=2 b=1")
	tr.replace("a.yaml", ns("b", "3"))
	f.until("b=3")
	f.untilProblem("")
}

func TestWatchOverlaysDirectories(t *testing.T) {
	base, top := newTree(t, "m.yaml", ns("a", "base")+ns("b", "base")), newTree(t, "m.yaml", ns("a", "top"))
	f := follow(t, base.dir, top.dir)
	f.until("a=top b=base")
	base.write("m.yaml", ns("a", "base2")+ns("b", "base2"))
	f.until("a=top b=base2")
	top.do(os.Remove(top.path("m.yaml")))
	f.until("a=base2 b=base2")
	top.write("m.yaml", ns("b", "top"))
	f.until("a=base2 b=top")
}

func TestWatchNamesDuplicates(t *testing.T) {
	tr := newTree(t, "b.yaml", ns("a", "b"))
	f := follow(t, tr.dir)
	tr.write("c.yaml", ns("a", "c"))
	f.untilProblem(tr.path("c.yaml") + ":1: Namespace a: already defined at " + tr.path("b.yaml") + ":1, which counts: remove one of the two")
	f.until("a=b")
	tr.write("a.yaml", "\n"+ns("a", "a"))
	f.until("a=a")
	tr.do(os.Remove(tr.path("a.yaml")))
	tr.do(os.Remove(tr.path("b.yaml")))
	f.until("a=c")
	f.untilProblem("")
}

// TestWatchConfigMapVolume swaps files as the kubelet does.
func TestWatchConfigMapVolume(t *testing.T) {
	tr := newTree(t, "..1/a.yaml", ns("a", "1"), "..2/a.yaml", ns("a", "2"), "..2/b.yaml", ns("b", "2"))
	tr.do(os.Symlink("..1", tr.path("..data")))
	tr.do(os.Symlink("..data/a.yaml", tr.path("a.yaml")))
	f := follow(t, tr.dir)
	f.until("a=1")
	tr.do(os.Symlink("..2", tr.path("..tmp")))
	tr.do(os.Rename(tr.path("..tmp"), tr.path("..data")))
	f.until("a=2")
	tr.do(os.Symlink("..data/b.yaml", tr.path("b.yaml")))
	f.until("a=2 b=2")
}

func TestWatchRootGoneAndBack(t *testing.T) {
	outer := newTree(t, "up/root/a.yaml", ns("a", "1"))
	f := follow(t, outer.path("up/root"))
	outer.do(os.Rename(outer.path("up"), outer.path("away")))
	f.untilProblem("the directory cannot be read, its last objects stay")
	f.until("a=1")
	outer.write("up/root/b.yaml", ns("b", "2"))
	f.until("b=2")
	f.untilProblem("")
	outer.write("up/root/b.yaml", ns("b", "3"))
	f.until("b=3")
	// By a symbolic link, as releases are switched.
	outer.write("other/c.yaml", ns("c", "4"))
	outer.do(os.Rename(outer.path("up/root"), outer.path("up/old")))
	outer.do(os.Symlink("../other", outer.path("up/root")))
	f.until("c=4")
	outer.write("other/c.yaml", ns("c", "5"))
	f.until("c=5")
}

func TestWatchLineMovesKeepTheObject(t *testing.T) {
	tr := newTree(t, "a.yaml", ns("a", "1")+ns("b", "1"))
	f := follow(t, tr.dir)
	before := f.objects
	old := before[Key{Kind: "Namespace", Name: "b"}]
	tr.write("a.yaml", ns("a", "1")+ns("new", "1")+ns("b", "1"))
	f.until("a=1 b=1 new=1")
	now := f.objects[Key{Kind: "Namespace", Name: "b"}]
	if now.Resource != old.Resource || now.Source.Line != old.Source.Line+4 {
		t.Errorf("object %p at %s became %p at %s", old.Resource, old.Source, now.Resource, now.Source)
	}
}

func TestNewWatcherErrors(t *testing.T) {
	tr := newTree(t, "sub/a.yaml", ns("a", "1"))
	apply := func(Batch) {}
	for name, tc := range map[string]struct {
		cfg  Config
		want string
	}{
		"no directory":  {Config{Apply: apply}, "no directory given"},
		"no function":   {Config{Dirs: []string{tr.dir}}, "no Apply"},
		"missing":       {Config{Dirs: []string{tr.path("nope")}, Apply: apply}, "no such file or directory: create it first"},
		"not directory": {Config{Dirs: []string{tr.path("sub/a.yaml")}, Apply: apply}, "not a directory"},
		"nested":        {Config{Dirs: []string{tr.dir, tr.path("sub")}, Apply: apply}, "one holds the other"},
		"twice":         {Config{Dirs: []string{tr.dir, tr.dir + "/"}, Flat: true, Apply: apply}, "one holds the other"},
	} {
		if _, err := NewWatcher(tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, tc.want)
		}
	}
}

func TestLoadReportsWhatIsNotAFile(t *testing.T) {
	tr := newTree(t, "a.yaml", ns("a", "1"))
	tr.do(os.Symlink("/dev/zero", tr.path("zero.yaml")))
	b, err := Load(tr.dir)
	if err != nil || len(b.Upserts) != 1 || len(b.Problems) != 1 {
		t.Fatalf("batch %+v, error %v", b, err)
	}
	if _, err := Load(tr.path("nope")); err == nil {
		t.Error("a missing directory is no error")
	}
}
