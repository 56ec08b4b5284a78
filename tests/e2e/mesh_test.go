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
	t.Run("journey", testJourney)
	t.Run("traffic", testTraffic)
	t.Run("datagrams", testDatagrams)
	t.Run("egress", testEgress)
	t.Run("mistakes", testMistakes)
	t.Run("replace", testReplace)
	t.Run("nodes", testNodes)
	t.Run("race", testRace)
	uninstall()
	for n, s := range before {
		if d := s.Diff(c.State(n)); len(d) > 0 {
			t.Errorf("%s is not as it was:\n%s", n, strings.Join(d, "\n"))
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
