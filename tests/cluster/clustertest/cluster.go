// Package clustertest is the gear of tests that need the two-node cluster of tests/cluster: objects that vanish with the
// test, conditions to wait for, commands in pods and in nodes, what crosses a node's links, and what a node's rules and files
// are.
//
// A test that uses it runs in the network of the control plane, by `cluster in-net cp`, from where nodes, pods and
// services are reached as from outside of the cluster, and KUBECONFIG is set. Without a cluster it is skipped.
package clustertest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/tests/cluster/internal/binaries"
)

// Cluster is the running one.
type Cluster struct {
	t       testing.TB
	program string
	// Nodes are their names.
	Nodes []string
}

// Program is the environment variable that names the program of tests/cluster. `make e2e` sets it.
const Program = "AMBIT_CLUSTER"

// Open finds the cluster, or skips the test.
func Open(t testing.TB) *Cluster {
	t.Helper()
	program := os.Getenv(Program)
	if program == "" {
		t.Skip("no cluster: run it by make e2e")
	}
	return &Cluster{t: t, program: program, Nodes: []string{"n1", "n2"}}
}

// Root is the root of the project's tree.
func (c *Cluster) Root() string {
	c.t.Helper()
	wd, err := os.Getwd()
	if err != nil {
		c.t.Fatal(err)
	}
	root, err := binaries.Root(wd)
	if err != nil {
		c.t.Fatal(err)
	}
	return root
}

// run runs the cluster's program.
func (c *Cluster) run(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	// A child may keep the output open.
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w\n%s%s", strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String(), nil
}

// Kubectl runs kubectl as the administrator and gives its standard output.
func (c *Cluster) Kubectl(args ...string) (string, error) {
	return c.run(c.t.Context(), "", append([]string{"kubectl"}, args...)...)
}

// Must is Kubectl where a failure ends the test.
func (c *Cluster) Must(args ...string) string {
	c.t.Helper()
	out, err := c.Kubectl(args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// Namespace makes a namespace with labels (name=value), which is gone when the test has ended. Its name begins with prefix.
func (c *Cluster) Namespace(prefix string, labels ...string) string {
	c.t.Helper()
	name := fmt.Sprintf("%s-%x", prefix, time.Now().UnixNano()&0xffffff)
	c.Must("create", "namespace", name)
	c.Later("delete", "namespace", name, "--timeout=120s")
	if len(labels) > 0 {
		c.Must(append([]string{"label", "namespace", name}, labels...)...)
	}
	return name
}

// Later runs kubectl when the test has ended, also if it has failed.
func (c *Cluster) Later(args ...string) {
	c.t.Helper()
	c.t.Cleanup(func() { c.cleanup("", args...) })
}

// cleanup runs kubectl when the test's own context has ended.
func (c *Cluster) cleanup(stdin string, args ...string) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if _, err := c.run(ctx, stdin, append([]string{"kubectl"}, args...)...); err != nil {
		c.t.Errorf("clean up: %v", err)
	}
}

// Apply applies manifests and deletes them with the test. Namespace is for objects that name none; empty is default.
func (c *Cluster) Apply(namespace, manifests string) {
	c.t.Helper()
	args := []string{"-f", "-"}
	if namespace != "" {
		args = append(args, "-n", namespace)
	}
	if out, err := c.run(c.t.Context(), manifests, append([]string{"kubectl", "apply", "--server-side"}, args...)...); err != nil {
		c.t.Fatal(out, err)
	}
	c.t.Cleanup(func() {
		c.cleanup(manifests, append([]string{"delete", "--ignore-not-found", "--timeout=120s"}, args...)...)
	})
}

// Ready waits until what is named (deployment/echo) is rolled out.
func (c *Cluster) Ready(namespace string, names ...string) {
	c.t.Helper()
	for _, n := range names {
		if out, err := c.Kubectl("-n", namespace, "rollout", "status", n, "--timeout=120s"); err != nil {
			c.t.Fatalf("%v\n%s%s", err, out, c.explain(namespace))
		}
	}
}

// Condition waits until an object has a condition: "Programmed", or "Captured=False".
func (c *Cluster) Condition(namespace, object, condition string) {
	c.t.Helper()
	if _, err := c.Kubectl("-n", namespace, "wait", object, "--for=condition="+condition, "--timeout=120s"); err != nil {
		c.t.Fatalf("%v\n%s", err, c.explain(namespace))
	}
}

// explain shows a namespace as it is, for the message of a failure.
func (c *Cluster) explain(namespace string) string {
	pods, _ := c.Kubectl("-n", namespace, "get", "pods", "-o", "wide")
	events, _ := c.Kubectl("-n", namespace, "get", "events", "--sort-by=.lastTimestamp")
	return pods + events
}

// Exec runs a command in a pod (pod/name, or deploy/name for any of its pods).
func (c *Cluster) Exec(namespace, pod string, command ...string) (string, error) {
	return c.Kubectl(append([]string{"-n", namespace, "exec", pod, "--"}, command...)...)
}

// InNode runs a command in all namespaces of a node.
func (c *Cluster) InNode(node string, command ...string) (string, error) {
	return c.run(c.t.Context(), "", append([]string{"in-node", node}, command...)...)
}

// Self is the test's own program, for what runs in a node's network.
func (c *Cluster) Self() string {
	c.t.Helper()
	self, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	return filepath.Clean(self)
}

// Until polls until something holds, and fails the test with the last reason when it does not within a deadline.
func (c *Cluster) Until(what string, within time.Duration, holds func() error) {
	c.t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		err := holds()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			c.t.Fatalf("not within %v: %s: %v", within, what, err)
		case <-tick.C:
		}
	}
}
