package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/tests/cluster/clustertest"
)

const system = "ambit-system"

// testReplace replaces every part of the mesh on both nodes, one after the other and all at once, while requests, new
// connections, datagrams and a connection that is as old as the test go on.
func testReplace(t *testing.T) {
	c := clustertest.Open(t)
	e := enrol(t, c, "replace", []string{"near@" + c.Nodes[0], "far@" + c.Nodes[1], "routed@" + c.Nodes[1]})
	ambit(t, c, "waypoint", "apply", "-n", e.ns)
	e.Condition(e.ns, "gateway/waypoint", "Programmed")
	e.Must("-n", e.ns, "label", "service", "routed", "ambit-mesh.io/use-waypoint=waypoint")
	for _, url := range []string{"http://far/", "http://routed/", "tcp://far:9090", "udp://far:9091"} {
		e.eventually("near", url, "StatusCode=200")
	}
	wire := c.Capture(c.Nodes[1], clustertest.Uplink, secret)
	loads := []*clustertest.Load{
		c.Load(e.ns, "deploy/near", "http://far/?say="+secret, "--interval=20ms"),
		c.Load(e.ns, "deploy/near", "http://routed/?say="+secret, "--interval=50ms"),
		c.Load(e.ns, "deploy/near", "tcp://far:9090", "--interval=20ms", "--keep-alive"),
		c.Load(e.ns, "deploy/near", "udp://far:9091?say="+secret, "--interval=50ms"),
	}

	t.Log("ztunnels, one node after the other")
	first := pods(c, "ztunnel")
	replaced(t, c, "ztunnel")
	if last := pods(c, "ztunnel"); len(last) < 4 {
		t.Errorf("%v were replaced by %v: those with a connection are to stay", first, last)
	}
	t.Log("node agents")
	replaced(t, c, "nodeagent")
	t.Log("everything at once, and back")
	ambit(t, c, "upgrade", "--version", tag(), "--set", "log.level=debug")
	if args := c.Must("-n", system, "get", "ds/ambit-ztunnel", "-o", "jsonpath={.spec.template.spec.containers[0].args}"); !strings.Contains(args, "debug") {
		t.Errorf("the upgrade changes nothing: %s", args)
	}
	ambit(t, c, "upgrade", "--rollback")
	if args := c.Must("-n", system, "get", "ds/ambit-ztunnel", "-o", "jsonpath={.spec.template.spec.containers[0].args}"); strings.Contains(args, "debug") {
		t.Errorf("the rollback changes nothing: %s", args)
	}
	for _, l := range loads {
		l.Stop()
	}
	sealed(t, wire)
	c.Until("ztunnels that were replaced end with their last connection", 90*time.Second, func() error {
		if now := pods(c, "ztunnel"); len(now) != len(c.Nodes) {
			return fmt.Errorf("there are %v", now)
		}
		return nil
	})
}

// pods are those of a component of the mesh, those that are ending included.
func pods(c *clustertest.Cluster, component string) []string {
	return strings.Fields(c.Must("-n", system, "get", "pods", "-l", "app.kubernetes.io/name=ambit-"+component, "-o", "jsonpath={.items[*].metadata.name}"))
}

// replaced replaces a component on all nodes. The roll-out is over when each node has a new one that is ready; a DaemonSet's
// own status waits for the ends of the old ones.
func replaced(t *testing.T, c *clustertest.Cluster, component string) {
	t.Helper()
	before := pods(c, component)
	c.Must("-n", system, "rollout", "restart", "ds/ambit-"+component)
	c.Until("every node has a new "+component, 2*time.Minute, func() error {
		ready := strings.Fields(c.Must("-n", system, "get", "pods", "-l", "app.kubernetes.io/name=ambit-"+component, "-o", `jsonpath={range .items[?(@.status.containerStatuses[0].ready==true)]}{.metadata.name} {end}`))
		fresh := slices.DeleteFunc(ready, func(p string) bool { return slices.Contains(before, p) })
		if len(fresh) < len(c.Nodes) {
			return fmt.Errorf("new and ready are %v, before there were %v", fresh, before)
		}
		return nil
	})
}
