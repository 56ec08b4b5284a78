package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/tests/cluster/clustertest"
)

// ambit runs the command for clusters as a person would.
func ambit(t *testing.T, c *clustertest.Cluster, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(c.Root(), "bin/ambit"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ambit %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	t.Logf("ambit %s:\n%s", strings.Join(args, " "), out)
}

// TestMesh installs the mesh, does everything that a person does with it, and uninstalls it: both nodes are as they were.
func TestMesh(t *testing.T) {
	c := clustertest.Open(t)
	before := map[string]clustertest.State{}
	for _, n := range c.Nodes {
		before[n] = c.State(n)
	}
	installed := false
	uninstall := func() {
		installed = false
		ambit(t, c, "uninstall", "--yes", "--delete-crds")
	}
	t.Cleanup(func() {
		if installed {
			uninstall()
		}
	})
	ambit(t, c, "install", "--version", tag())
	installed = true
	for _, part := range []struct {
		name string
		test func(*testing.T)
	}{
		{"journey", testJourney},
		{"again", testAgain},
		{"traffic", testTraffic},
		{"telemetry", testTelemetry},
		{"datagrams", testDatagrams},
		{"egress", testEgress},
		{"mistakes", testMistakes},
		{"replace", testReplace},
		{"nodes", testNodes},
		{"race", testRace},
	} {
		t.Run(part.name, func(t *testing.T) {
			began := time.Now()
			t.Cleanup(func() {
				if t.Failed() {
					complaints(t, c, began)
				}
			})
			part.test(t)
		})
	}
	uninstall()
	for n, s := range before {
		if d := s.Diff(c.State(n)); len(d) > 0 {
			t.Errorf("%s is not as it was:\n%s", n, strings.Join(d, "\n"))
		}
	}
}

// step says what comes next, and when.
func step(t *testing.T, what string) {
	t.Helper()
	t.Log(time.Now().UTC().Format("15:04:05.000"), what)
}

// complaints logs what the parts of the mesh have said since then about what went wrong.
func complaints(t *testing.T, c *clustertest.Cluster, since time.Time) {
	for _, part := range []string{"controlplane", "nodeagent", "ztunnel"} {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		out, _ := exec.CommandContext(ctx, filepath.Join(c.Root(), "bin/cluster"), "kubectl", "-n", "ambit-system", "logs", "--prefix", "--tail=-1",
			"-l", "app.kubernetes.io/name=ambit-"+part, "--since-time="+since.UTC().Format(time.RFC3339)).CombinedOutput()
		cancel()
		said := 0
		for line := range strings.Lines(string(out)) {
			if said < 60 && (strings.Contains(line, `"level":"warn"`) || strings.Contains(line, `"level":"error"`)) {
				t.Log(strings.TrimSpace(line))
				said++
			}
		}
	}
}

// tag is that of the images that the cluster has.
func tag() string {
	if t := os.Getenv("AMBIT_TAG"); t != "" {
		return t
	}
	return "dev"
}
