package local_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/local"
	"github.com/ambit-mesh/ambit/internal/local/control"
)

// withMesh makes a directory of programs in which this binary stands for those
// of the mesh.
func withMesh(t *testing.T, o local.Options) local.Options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o.Mesh, o.BinDir = true, t.TempDir()
	for _, name := range []string{"ambit-local-controlplane", "ambit-nodeagent", "ambit-ztunnel"} {
		if err := os.Symlink(self, filepath.Join(o.BinDir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

func TestComponents(t *testing.T) {
	m := up(t, withMesh(t, options(t, map[string]string{"client.yaml": client})))
	st := m.status()
	var names []string
	for _, c := range st.Components {
		names = append(names, c.Name)
		if !c.Ready || c.Pid == 0 || c.Restarts != 0 {
			t.Errorf("%+v", c)
		}
	}
	if want := []string{"controlplane", "n1/nodeagent", "n1/ztunnel", "n2/nodeagent", "n2/ztunnel"}; !slices.Equal(names, want) {
		t.Errorf("components %v, want %v", names, want)
	}
	if got := m.log("controlplane"); got != "control plane of cluster.local\n" {
		t.Errorf("log %q", got)
	}

	t.Run("pods are announced before they start, and until they are taken", func(t *testing.T) {
		if ok, _ := regexp.MatchString(`^ADD default client /run/netns/default_client \[10\.244\.1\.2 \S+\]\n$`, m.log("n1/nodeagent")); !ok {
			t.Errorf("the agent was told %q", m.log("n1/nodeagent"))
		}
	})
	t.Run("a component that is killed is started again", func(t *testing.T) {
		ctx, cancel := m.context()
		defer cancel()
		before := st.Components[2]
		if err := m.Call(ctx, control.OpRestart, control.RestartArgs{Component: before.Name, Signal: 9}, nil); err != nil {
			t.Fatal(err)
		}
		m.await("it is back", func(st control.Status) bool {
			c := st.Components[2]
			return c.Ready && c.Restarts == 1 && c.Pid != before.Pid
		})
		err := m.Call(ctx, control.OpRestart, control.RestartArgs{Component: "n9/ztunnel"}, nil)
		if err == nil || !strings.Contains(err.Error(), `there is no component "n9/ztunnel": want one of controlplane, n1/nodeagent`) {
			t.Error(err)
		}
	})
	t.Run("secrets are the node's own", func(t *testing.T) {
		tokens := make(map[string]bool)
		for _, n := range []string{"n1", "n2"} {
			path := filepath.Join(m.state, "credentials", n+".token")
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v %v", info.Mode(), err)
			}
			tokens[string(raw)] = true
		}
		if len(tokens) != 2 {
			t.Error("two nodes have the same token")
		}
	})
	t.Run("a pod that goes is announced", func(t *testing.T) {
		if err := os.Remove(filepath.Join(m.files, "client.yaml")); err != nil {
			t.Fatal(err)
		}
		m.await("it is gone", func(st control.Status) bool { return len(st.Pods) == 0 })
		if !strings.Contains(m.log("n1/nodeagent"), "DEL {\"podUID\":\""+st.Pods[0].UID) {
			t.Errorf("the agent was told %q", m.log("n1/nodeagent"))
		}
	})
}

func TestOptionsAreChecked(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.yaml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*local.Options){
		"--nodes 0: want 1 to 99":                                 func(o *local.Options) { o.Nodes = 0 },
		"no such file or directory: name a directory":             func(o *local.Options) { o.Manifests = "/nonexistent" },
		"is a file: name the directory":                           func(o *local.Options) { o.Manifests = file },
		`name "A": want at most 32`:                               func(o *local.Options) { o.Name = "A" },
		"ambit-local-controlplane: no such file or directory: bu": func(o *local.Options) { o.Mesh = true; o.BinDir = t.TempDir() },
		"--component-arg proxy=...: there is no such":             func(o *local.Options) { o.Args = map[string][]string{"proxy": nil} },
	} {
		o := options(t, nil)
		change(&o)
		if _, err := local.Start(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
