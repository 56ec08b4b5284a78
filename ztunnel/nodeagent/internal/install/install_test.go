package install

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/ambit-mesh/ambit/internal/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	entry    = `{"type":"ambit-cni","socket":"/s","enrolledFile":"/e"}`
	flannel  = "{\n  \"name\": \"cbr0\",\n  \"cniVersion\": \"0.3.1\",\n  \"plugins\": [\n    {\"type\": \"flannel\"},\n    {\"type\": \"portmap\"}\n  ]\n}\n"
	flannel2 = "{\"name\": \"cbr0\", \"cniVersion\": \"1.0.0\", \"plugins\": [{\"type\": \"flannel\", \"new\": true}]}"
	bridge   = "{\"cniVersion\": \"0.3.1\",\n\"name\": \"br\",  \"type\": \"bridge\"}\n"
)

// node is a node's directories, and an installer at work on them.
type node struct {
	t         *testing.T
	conf, bin string
	ready     *lifecycle.Readiness
	installer *Installer
	registry  *prometheus.Registry
}

func newNode(t *testing.T) *node {
	dir := t.TempDir()
	n := &node{t: t, conf: filepath.Join(dir, "net.d"), bin: filepath.Join(dir, "bin"), ready: new(lifecycle.Readiness), registry: prometheus.NewRegistry()}
	for _, d := range []string{n.conf, n.bin} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("the plugin"), 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	n.installer, err = New(Config{
		ConfDir: n.conf, BinDir: n.bin, Program: program, Entry: []byte(entry), Type: "ambit-cni",
		Interval: 200 * time.Millisecond, Settle: 5 * time.Millisecond,
		Readiness: n.ready, Logger: zaptest.NewLogger(t), Registerer: n.registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.installer.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Errorf("Run = %v", err)
		}
	})
	n.t.Cleanup(stop)
	return stop
}

// write replaces a file by rename, as a careful CNI does.
func (n *node) write(name, text string) {
	n.t.Helper()
	tmp := filepath.Join(n.conf, "."+name)
	if err := os.WriteFile(tmp, []byte(text), 0o640); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(n.conf, name)); err != nil {
		n.t.Fatal(err)
	}
}

// files is all of both directories: modes and contents.
func (n *node) files() map[string]string {
	n.t.Helper()
	all := map[string]string{}
	for _, dir := range []string{n.conf, n.bin} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			n.t.Fatal(err)
		}
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if os.IsNotExist(err) {
				continue // replaced at this moment
			}
			if err != nil {
				n.t.Fatal(err)
			}
			info, err := e.Info()
			if err != nil {
				continue
			}
			all[e.Name()] = fmt.Sprintf("%s %s", info.Mode(), b)
		}
	}
	return all
}

func (n *node) has(name string) bool { return strings.Contains(n.files()[name], "ambit-cni") }

func (n *node) eventually(what string, cond func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); <-time.After(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("timed out waiting until %s; files %q, pending %q", what, n.files(), n.ready.Pending())
		}
	}
}

func (n *node) isReady() bool { return len(n.ready.Pending()) == 0 }

// Whatever the primary CNI, what is on the node afterwards is what was before.
func TestInstallAndRemove(t *testing.T) {
	for name, tc := range map[string]struct {
		files   map[string]string
		primary string
	}{
		"a list":                  {map[string]string{"10-flannel.conflist": flannel, "87-podman.conflist": flannel2, "README": "x"}, "10-flannel.conflist"},
		"a single plugin":         {map[string]string{"10-bridge.conf": bridge}, "10-bridge.conf.conflist"},
		"a single plugin, .json":  {map[string]string{"10-bridge.json": bridge, "20-flannel.conflist": flannel}, "10-bridge.json.conflist"},
		"both, the single first":  {map[string]string{"10-a.conf": bridge, "10-a.conflist": flannel}, "10-a.conf.conflist"},
		"both, the list first":    {map[string]string{"10-b.conf": bridge, "10-a.conflist": flannel}, "10-a.conflist"},
		"a malformed one after":   {map[string]string{"10-flannel.conflist": flannel, "20-x.conflist": "{"}, "10-flannel.conflist"},
		"something long replaced": {map[string]string{"10-flannel.conflist": strings.Replace(flannel, `{"type": "portmap"}`, `{"type":"portmap","big":12345678901234567890.10}`, 1)}, "10-flannel.conflist"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			for f, text := range tc.files {
				n.write(f, text)
			}
			before := n.files()
			if n.isReady() {
				t.Error("ready before anything is installed")
			}
			stop := n.run()
			n.eventually("the agent is ready", n.isReady)
			if !n.has(tc.primary) {
				t.Errorf("no entry in %s: %q", tc.primary, n.files())
			}
			entries := 0
			for f, text := range n.files() {
				if f != "ambit-cni" && strings.Contains(text, "ambit-cni") {
					entries++
				}
			}
			if entries != 1 || n.files()["ambit-cni"] != "-rwxr-xr-x the plugin" {
				t.Errorf("%d entries: %q", entries, n.files())
			}
			order, err := configurations(n.conf)
			if err != nil || order[0] != tc.primary {
				t.Errorf("first is %v, %v; want %s", order, err, tc.primary)
			}
			// A restart of the agent takes nothing out.
			installed := n.files()
			stop()
			if !maps.Equal(installed, n.files()) {
				t.Errorf("after a stop %q", n.files())
			}
			if err := n.installer.Remove(); err != nil {
				t.Fatal(err)
			}
			if after := n.files(); !maps.Equal(before, after) {
				t.Errorf("before %q\nafter  %q", before, after)
			}
			if err := Remove(Config{ConfDir: n.conf, BinDir: n.bin, Type: "ambit-cni"}); err != nil {
				t.Errorf("a second time: %v", err)
			}
		})
	}
}

func TestRepair(t *testing.T) {
	n := newNode(t)
	n.run()
	n.eventually("the agent waits for a CNI", func() bool { return slices.Contains(n.ready.Pending(), "a configuration of a primary CNI in "+n.conf) })
	n.write("10-flannel.conflist", flannel)
	n.eventually("the entry is there", func() bool { return n.isReady() && n.has("10-flannel.conflist") })

	n.write("10-flannel.conflist", flannel2) // the CNI starts again
	n.eventually("the entry is there again", func() bool { return n.has("10-flannel.conflist") })
	if got := n.files()["10-flannel.conflist"]; !strings.Contains(got, `"new": true`) || !strings.HasPrefix(got, "-rw-r-----") {
		t.Errorf("file %q", got)
	}

	n.write("05-cilium.conflist", flannel) // another CNI takes over
	n.eventually("the entry has moved", func() bool { return n.has("05-cilium.conflist") && !n.has("10-flannel.conflist") })
	if got := n.files()["10-flannel.conflist"]; !strings.HasSuffix(got, flannel2) {
		t.Errorf("what the first CNI had is %q", got)
	}

	if err := os.Remove(filepath.Join(n.bin, "ambit-cni")); err != nil {
		t.Fatal(err)
	}
	n.eventually("the program is there again", func() bool { return n.files()["ambit-cni"] != "" })
	if err := os.WriteFile(filepath.Join(n.bin, "ambit-cni"), []byte("another version"), 0o755); err != nil {
		t.Fatal(err)
	}
	n.eventually("the program is ours again", func() bool { return n.files()["ambit-cni"] == "-rwxr-xr-x the plugin" })

	n.write("00-multus.conf", bridge) // one with a single plugin takes over, and is written again
	n.eventually("it is a list", func() bool { return n.has("00-multus.conf.conflist") && !n.has("05-cilium.conflist") })
	n.write("00-multus.conf", strings.Replace(bridge, "bridge", "multus", 1))
	n.eventually("it is a list of what was written last", func() bool {
		return strings.Contains(n.files()["00-multus.conf.conflist"], "multus") && n.files()["00-multus.conf"] == ""
	})
	if err := n.installer.Remove(); err != nil {
		t.Fatal(err)
	}
	if got := n.files(); len(got) != 3 || !strings.HasSuffix(got["00-multus.conf"], strings.Replace(bridge, "bridge", "multus", 1)) {
		t.Errorf("after removal %q", got)
	}
}

// A file that nobody can read is named and left alone. The next valid one gets the
// entry: some runtimes skip what they cannot read.
func TestMalformed(t *testing.T) {
	for name, bad := range map[string]string{
		"cut off": flannel[:40], "no version": `{"name":"n","plugins":[{"type":"a"}]}`, "empty": "",
		"only ours": `{"cniVersion":"1.0.0","name":"n","plugins":[` + entry + `]}`,
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.write("05-bad.conflist", bad)
			n.write("10-flannel.conflist", flannel)
			n.run()
			n.eventually("the entry is in the next", func() bool { return n.has("10-flannel.conflist") })
			n.eventually("readiness names the file", func() bool { return strings.Contains(strings.Join(n.ready.Pending(), ""), "05-bad.conflist: ") })
			if got := n.files()["05-bad.conflist"]; got != "-rw-r----- "+bad {
				t.Errorf("it is %q now", got)
			}
			if got := testutil.ToFloat64(n.installer.metrics.problem.WithLabelValues("05-bad.conflist")); got != 1 {
				t.Errorf("metric %v", got)
			}
			n.write("05-bad.conflist", flannel2)
			n.eventually("the entry is where it belongs", func() bool {
				return n.isReady() && n.has("05-bad.conflist") && !n.has("10-flannel.conflist")
			})
		})
	}
}

func TestLinksAndLeftovers(t *testing.T) {
	n := newNode(t)
	outside := filepath.Join(t.TempDir(), "x.conflist")
	if err := os.WriteFile(outside, []byte(flannel), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(n.conf, "05-link.conflist")); err != nil {
		t.Fatal(err)
	}
	n.write("real", flannel2)
	if err := os.Symlink("real", filepath.Join(n.conf, "10-link.conflist")); err != nil {
		t.Fatal(err)
	}
	n.write(temporary+"1", "half")
	n.run()
	n.eventually("the link's file has the entry", func() bool { return n.has("real") })
	if b, _ := os.ReadFile(outside); string(b) != flannel {
		t.Errorf("the file outside is %q", b)
	}
	n.eventually("readiness names the link", func() bool { return strings.Contains(strings.Join(n.ready.Pending(), ""), "05-link.conflist") })
	if n.files()[temporary+"1"] != "" {
		t.Error("what an interrupted run left is still there")
	}
	if st, err := os.Lstat(filepath.Join(n.conf, "10-link.conflist")); err != nil || st.Mode().Type() != fs.ModeSymlink {
		t.Errorf("the link is %v, %v", st, err)
	}
}

// Somebody who writes at the same moment wins, and nothing of theirs is lost.
func TestReplaceNoticesAnother(t *testing.T) {
	n := newNode(t)
	n.write("a", "theirs")
	if err := replace(filepath.Join(n.conf, "a"), []byte("before"), []byte("ours")); err == nil {
		t.Error("replaced")
	}
	if got := n.files(); !maps.Equal(got, map[string]string{"a": "-rw-r----- theirs"}) {
		t.Errorf("files %q", got)
	}
}
