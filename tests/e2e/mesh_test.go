package e2e

import (
	"context"
	"fmt"
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

// What a person does with a mesh, from installing to uninstalling it, while requests go on across nodes of which none fails.
func TestMesh(t *testing.T) {
	c := clustertest.Open(t)
	before := map[string]clustertest.State{}
	for _, n := range c.Nodes {
		before[n] = c.State(n)
	}
	installed := false
	t.Cleanup(func() {
		if installed {
			ambit(t, c, "uninstall", "--yes", "--delete-crds")
		}
	})
	ambit(t, c, "install", "--version", tag())
	installed = true

	ns := c.Namespace("mesh")
	c.Apply(ns, echoApp("near", c.Nodes[0])+echoApp("other", c.Nodes[0])+echoApp("far", c.Nodes[1])+echoApp("far2", c.Nodes[1]))
	c.Ready(ns, "deploy/near", "deploy/other", "deploy/far", "deploy/far2")
	call := func(from, url string, args ...string) (string, error) {
		return c.Exec(ns, "deploy/"+from, append([]string{"client", url}, args...)...)
	}
	for _, from := range []string{"near", "other"} {
		c.Until(from+" reaches far", time.Minute, func() error { _, err := call(from, "http://far/"); return err })
	}

	// The load goes on from here until it is stopped by its duration.
	const lasts = 100 * time.Second
	type result struct {
		out string
		err error
	}
	load := make(chan result, 1)
	go func() {
		out, err := call("near", "http://far/", "--duration="+lasts.String())
		load <- result{out, err}
	}()

	t.Log("enrol the running namespace")
	ambit(t, c, "enroll", ns)
	for _, p := range []string{"near", "other", "far", "far2"} {
		c.Must("-n", ns, "wait", "pod", "-l", "app="+p, "--for=condition=ambit-mesh.io/Captured", "--timeout=60s")
	}
	wire := c.Capture(c.Nodes[1], clustertest.Uplink, secret)
	c.Until("the link shows the tunnel and nothing of what was said", time.Minute, func() error {
		out, err := call("near", "http://far/x?say="+secret)
		if err != nil || !strings.Contains(out, "Hostname=far-") {
			return fmt.Errorf("%w\n%s", err, out)
		}
		if r := wire.Report(); r.Found[secret] != 0 || r.MeshBytes == 0 {
			return fmt.Errorf("found %v, mesh bytes %d", r.Found, r.MeshBytes)
		}
		return nil
	})

	t.Log("let near talk to far, and nobody else")
	c.Apply(ns, `
apiVersion: ambit-mesh.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: far}
spec:
  targetRefs: [{group: "", kind: Service, name: far}]
  action: ALLOW
  rules: [{name: near, sources: [{type: ServiceAccount, serviceAccount: {name: near}}]}]
`)
	c.Until("other is refused", time.Minute, func() error {
		if out, err := call("other", "http://far/"); err == nil {
			return fmt.Errorf("other was let in:\n%s", out)
		}
		return nil
	})
	if _, err := call("near", "http://far/"); err != nil {
		t.Errorf("near is refused: %v", err)
	}
	c.Condition(ns, "authorizationpolicy/far", "Accepted")

	t.Log("a waypoint, and a canary by header")
	ambit(t, c, "waypoint", "apply", "-n", ns)
	c.Condition(ns, "gateway/waypoint", "Programmed")
	c.Must("-n", ns, "label", "service", "far", "ambit-mesh.io/use-waypoint=waypoint")
	c.Apply(ns, `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: far}
spec:
  parentRefs: [{group: "", kind: Service, name: far}]
  rules:
  - name: testers
    matches: [{headers: [{name: x-group, value: testers}]}]
    backendRefs: [{name: far2, port: 80}]
  - name: everybody
    backendRefs: [{name: far, port: 80}]
`)
	c.Until("testers get the new version", time.Minute, func() error {
		out, err := call("near", "http://far/", "-H", "x-group:testers")
		if err == nil && !strings.Contains(out, "Hostname=far2-") {
			err = fmt.Errorf("somebody else has answered:\n%s", out)
		}
		return err
	})
	if out, err := call("near", "http://far/"); err != nil || !strings.Contains(out, "Hostname=far-") {
		t.Errorf("everybody else: %v\n%s", err, out)
	}
	if bound := c.Must("-n", ns, "get", "service", "far", "-o", `jsonpath={.status.conditions[?(@.type=="WaypointBound")].status}`); bound != "True" {
		t.Errorf("the service says WaypointBound=%q", bound)
	}

	t.Log("restart the control plane and the waypoint under load")
	c.Must("-n", "ambit-system", "rollout", "restart", "deploy/ambit-controlplane")
	c.Must("-n", ns, "rollout", "restart", "deploy/waypoint")
	c.Ready("ambit-system", "deploy/ambit-controlplane")
	c.Ready(ns, "deploy/waypoint")
	if _, err := call("near", "http://far/"); err != nil {
		t.Errorf("after the restarts: %v", err)
	}

	got := <-load
	if got.err != nil || !strings.Contains(got.out, "Failed=0") {
		t.Errorf("requests failed meanwhile: %v\n%s", got.err, got.out)
	}
	t.Log("take it all out again")
	c.Must("-n", ns, "label", "service", "far", "ambit-mesh.io/use-waypoint-")
	ambit(t, c, "unenroll", ns)
	if _, err := call("near", "http://far/"); err != nil {
		t.Errorf("after leaving: %v", err)
	}
	installed = false
	ambit(t, c, "uninstall", "--yes", "--delete-crds")
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
