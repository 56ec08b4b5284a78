package e2e

import (
	"os"
	"strconv"
	"testing"

	"github.com/ambit-mesh/ambit/tests/cluster/clustertest"
)

// testAgain has a namespace enrol and leave again and again under load, on both nodes. No request fails.
// AMBIT_TEST_ROUNDS is how often, 4 times by default.
func testAgain(t *testing.T) {
	rounds := 4
	if n, err := strconv.Atoi(os.Getenv("AMBIT_TEST_ROUNDS")); err == nil {
		rounds = n
	}
	c := clustertest.Open(t)
	ns := c.Namespace("again")
	c.Apply(ns, echoApp("near", c.Nodes[0])+echoApp("far", c.Nodes[1]))
	c.Ready(ns, "deploy/near", "deploy/far")
	loads := []*clustertest.Load{c.Load(ns, "deploy/near", "http://far/"), c.Load(ns, "deploy/far", "http://near/")}
	for i := range rounds {
		step(t, "round "+strconv.Itoa(i))
		ambit(t, c, "enroll", ns)
		c.Must("-n", ns, "wait", "pod", "--all", "--for=condition=ambit-mesh.io/Captured", "--timeout=60s")
		ambit(t, c, "unenroll", ns)
	}
	for _, l := range loads {
		l.Stop()
	}
}
